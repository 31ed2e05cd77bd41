"""Registers that come and go together: one cause in the place of many lines.

Knows which registers a feature of the CPU brings, and by which property a guest has it or not; and
that two CPUs differ in their identification registers all at once. Refuses to decide anything.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from armferry.decide.model import RegisterClass, RegisterOutcome
from armferry.registers import Demux, Kind, decode, describe
from armferry.registers.midr import identify

__all__ = ["CommonCause", "common_causes"]

_FEWEST = 4
_MIDR = 0x6030_0000_0013_C000
_POINTER_AUTH = "pointer authentication"
_PROPERTIES = {
    "AArch32": "-cpu host,aarch64=on is 64-bit alone; a CPU with EL1 in AArch32 has them",
    "PMU": "-cpu ...,pmu=on or off",
    "SVE": "-cpu ...,sve=on or off",
    _POINTER_AUTH: "-cpu ...,pauth=on or off",
    "memory tagging": "-machine mte=on or off",
    "caches": "newer kernels list every cache that could be",
}
_TAGS = ("RGSR_EL1", "GCR_EL1", "TFSR_EL1", "TFSRE0_EL1", "GMID_EL1", "TFSR_EL2", "TFSR_EL3")


@dataclass(frozen=True, slots=True)
class CommonCause:
    """One reason for several registers of a class: `outcomes` are those of one vCPU."""

    subject: str
    why: str
    register_class: RegisterClass
    outcomes: tuple[RegisterOutcome, ...]

    @property
    def counted(self) -> str:
        """How many of what, with the first names: `73 of PMU (PMCR_EL0, ...)`."""
        names = ", ".join(one.name for one in self.outcomes[:3])
        return f"{len(self.outcomes)} of {self.subject} ({names}, ...)"


def common_causes(outcomes: Sequence[RegisterOutcome]) -> tuple[CommonCause, ...]:
    """The causes that explain at least four registers of one vCPU's `outcomes` each."""
    return (*_features(outcomes), *_another_cpu(outcomes))


def _features(outcomes: Sequence[RegisterOutcome]) -> Iterator[CommonCause]:
    found: dict[tuple[str, RegisterClass, bool], list[RegisterOutcome]] = {}
    for outcome in outcomes:
        feature = _feature_of(outcome.index)
        if feature and (outcome.source is None) is not (outcome.destination is None):
            key = feature, outcome.register_class, outcome.source is None
            found.setdefault(key, []).append(outcome)
    for (feature, group, only_there), members in found.items():
        if len(members) >= _FEWEST:
            has, lacks = ("destination", "source") if only_there else ("source", "destination")
            why = f"the {has} lists registers of {feature}, the {lacks} does not"
            yield CommonCause(feature, f"{why} ({_PROPERTIES[feature]})", group, tuple(members))


def _another_cpu(outcomes: Sequence[RegisterOutcome]) -> Iterator[CommonCause]:
    midr = next((one for one in outcomes if one.index == _MIDR), None)
    if midr is None or midr.source is None or midr.destination is None:
        return
    here, there = identify(midr.source), identify(midr.destination)
    if (here.implementer, here.part) == (there.implementer, there.part):
        return
    why = f"these are what {here.text} and {there.text} say of themselves"
    for group in (RegisterClass.VALUE_REFUSED, RegisterClass.VALUE_TOLERATED):
        members = [
            one
            for one in outcomes
            if one.register_class is group and describe(one.index).kind is Kind.IDENTIFICATION
        ]
        if len(members) >= _FEWEST:
            yield CommonCause("another CPU", why, group, tuple(members))


def _feature_of(index: int) -> str:
    """The feature that brings a register, empty for any other."""
    if index >> 60 == 4:
        return "AArch32"
    if isinstance(decode(index), Demux):
        return "caches"
    register = describe(index)
    if register.name in _TAGS:
        return "memory tagging"
    if register.kind is Kind.PMU:
        return "PMU"
    if register.kind is Kind.POINTER_AUTH_KEY:
        return _POINTER_AUTH
    return "SVE" if register.name.startswith(("ZCR_", "ID_AA64ZFR0")) else ""
