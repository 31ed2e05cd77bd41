"""One thing beside the register lists that a load or the guest depends on, as a value."""

import enum
from dataclasses import dataclass

from armferry.decide.risk_level import Risk

__all__ = ["Circumstance", "CircumstanceKind", "Weight"]


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
    comes from how the destination was recorded, not from its host.
    """

    kind: CircumstanceKind
    subject: str
    weight: Weight
    why: str
    risk: Risk = Risk.NONE
    of_record: bool = False

    def __str__(self) -> str:
        return self.why
