"""What a move costs the guest: what it read before against what it will read afterwards.

The only place that decides a risk of a register. `after` is what the guest will read on the
destination, however it got there: the value that is sent, the destination's own reset value where
nothing is sent, never the value that a guest which ran had left there.

A register that the guest may have written is lost when another value is read afterwards, unless
there is evidence that nobody wrote it. One that is read-only to the guest cannot be lost, but the
guest may have acted upon what it read: features that are gone break it.
"""

from dataclasses import dataclass

from armferry.decide.harms import (
    Evidence,
    Harm,
    LosesFeatures,
    NeverRan,
    NothingLost,
    ReadsElse,
    SameThere,
    ValueLost,
    Zero,
)
from armferry.decide.physical_counter import PHYSICAL_COUNTER
from armferry.decide.reset import read_only
from armferry.decide.risk_level import Risk
from armferry.ends import NotKnown
from armferry.registers import (
    FieldDifference,
    Kind,
    describe,
    differing_fields,
    field_fits,
    kind,
    names_cpu,
)

__all__ = ["Assessment", "assess", "lost_features"]

_NO_FEATURES = frozenset(
    (
        *("CSV2", "CSV2_frac", "CSV3", "ECBHB", "SpecSEI"),  # speculation: no program uses it
        *("NV", "MPAM", "MPAM_frac"),  # older kernels showed them, no guest could use either
        "CCIDX",  # how caches are drawn
    )
)
"""Fields that may fall without taking anything away that a guest could be using."""

_STEPS = {
    "DebugVer": (11,),
    "CopDbg": (11,),
    "PMUVer": (1, 4, 6, 7, 8, 9),
    "PerfMon": (1, 4, 6, 7, 8, 9),
}
"""Versions from which on there is something more to use (DDI 0487): Armv8.9 debug its registers to
select banks; a PMU at all, 16-bit event numbers, 64-bit counters, and what came after. What lies
between, such as PMMIR_EL1 of PMUv3p4, KVM hides or reads as zero."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """A risk, and what makes it one."""

    risk: Risk
    harm: Harm


def assess(
    index: int, before: int, after: int | NotKnown | None, evidence: Evidence | None
) -> Assessment:
    """What it costs that a register reads `before` now and `after` afterwards.

    `after` is None where the destination has no such register. `evidence` says that nobody wrote
    it, None when nothing says so.
    """
    if isinstance(evidence, NeverRan):
        return Assessment(Risk.LOSSLESS, NothingLost(evidence))
    if after == before:
        return Assessment(Risk.LOSSLESS, SameThere())
    fixed = read_only(index)
    if fixed and isinstance(after, int):
        lost = lost_features(index, before, after)
        if lost:
            return Assessment(Risk.BREAKS, LosesFeatures(before, after, lost))
        return Assessment(Risk.GUEST_VISIBLE, ReadsElse(before, after))
    if kind(index).is_firmware and before:
        # what firmware offers was read by the guest, reset or not
        return Assessment(Risk.GUEST_VISIBLE, ReadsElse(before, after))
    if evidence is not None and (after is None or not (fixed or isinstance(evidence, Zero))):
        return Assessment(Risk.LOSSLESS, NothingLost(evidence))
    if fixed or index == PHYSICAL_COUNTER:
        return Assessment(Risk.GUEST_VISIBLE, ReadsElse(before, after))
    return Assessment(Risk.LOSSY, ValueLost(before))


def lost_features(index: int, before: int, after: int) -> tuple[FieldDifference, ...]:
    """The fields of an identification register that promise what the destination lacks."""
    if describe(index).kind is not Kind.IDENTIFICATION or names_cpu(index):
        return ()
    return tuple(
        difference
        for difference in differing_fields(index, before, after)
        if not field_fits(difference) and _takes_away(difference)
    )


def _takes_away(difference: FieldDifference) -> bool:
    field = difference.field.name
    if field in _STEPS:
        return any(difference.right < step <= difference.left for step in _STEPS[field])
    return field not in _NO_FEATURES
