"""One thing beside the register lists that a load or the guest depends on, as a value."""

import enum
from dataclasses import dataclass

from armferry.decide.consent import accepts
from armferry.decide.risk_level import Risk
from armferry.policy import AcceptedRisk
from armferry.registers import name

__all__ = ["Circumstance", "CircumstanceKind", "Weight", "weighed"]


class CircumstanceKind(enum.StrEnum):
    """What differs, or is not known."""

    ACCELERATOR = "accelerator"
    MACHINE = "machine type"
    MEMORY = "memory"
    VCPUS = "vCPUs"
    DEVICES = "devices"
    GIC = "interrupt controller"
    CPU = "CPU"
    COUNTER = "counter frequency"
    VECTORS = "vector lengths"
    CORES = "kinds of cores"
    UNRECORDED = "not recorded"


class Weight(enum.StrEnum):
    """What a circumstance means for the move."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    NOTED = "noted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Circumstance:
    """One of them: `subject` is a block of memory or what the kind alone does not say.

    `risk` is what the guest loses or notices although the load succeeds. `of_record` says that it
    comes from how the destination was recorded, not from its host. `accepted_by` is the index of
    the register by whose name the risk can be accepted, None where nothing allows it.
    """

    kind: CircumstanceKind
    subject: str
    weight: Weight
    why: str
    risk: Risk = Risk.NONE
    of_record: bool = False
    accepted_by: int | None = None

    def __str__(self) -> str:
        if self.weight is not Weight.REFUSED or self.accepted_by is None:
            return self.why
        named = f"--accept-risk {name(self.accepted_by)} or {self.risk}"
        return f"{self.why}; not done unless you name it ({named})"


def weighed(
    kind: CircumstanceKind, subject: str, why: str, risk: Risk, index: int, accepted: AcceptedRisk
) -> Circumstance:
    """One that costs the guest `risk`, refused unless that of the register `index` is accepted."""
    allowed = accepts(accepted, index, risk, (), named=False)
    weight = Weight.ACCEPTED if allowed else Weight.REFUSED
    return Circumstance(kind, subject, weight, why, risk, accepted_by=index)
