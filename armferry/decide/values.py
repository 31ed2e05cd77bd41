"""A register that both sides have, with two values: may it be sent, and which value?

Guest state differs by nature and is sent as it is. This module is about the other registers:
those whose value the host or the CPU model fixes, and firmware versions and bitmaps, which a
host accepts up to its own. Facts: TCG reads each register back after writing it; KVM answers
EINVAL (both measured, see docs).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from armferry.decide.causes import (
    AtMost,
    Capped,
    Change,
    DifferenceInMask,
    FieldsFit,
    Fixed,
    Lacks,
    NotKept,
    OwnTaken,
    PartTaken,
    Pinned,
    Refusal,
    Unsure,
)
from armferry.decide.kept_bits import not_kept
from armferry.decide.kernel_values import Put, put
from armferry.ends import Destination
from armferry.policy import (
    CapAtDestination,
    DifferInMask,
    FieldsAtMostDestination,
    Origin,
    Policy,
    TakeDestination,
    Tolerance,
)
from armferry.registers import (
    Accelerator,
    Kind,
    describe,
    differing_fields,
    field_fits,
    kind,
)

__all__ = [
    "ValueRule",
    "fields_fit",
    "names_register",
    "refusal",
    "tolerated_values",
]


@dataclass(frozen=True, slots=True)
class ValueRule:
    """A value to send instead of the source's, and why it is allowed."""

    value: int
    rule: Change
    origins: tuple[Origin, ...]
    named: bool
    """Whether the rule names this very register, not a whole kind."""


def refusal(index: int, source: int, destination: Destination) -> Refusal | None:
    """Why the destination would refuse `source` for a register it has, None when it would not."""
    own = destination.registers[index]
    if source == own:
        return None
    register = describe(index)
    if destination.accelerator is not Accelerator.KVM:
        bits = not_kept(index, source, destination)
        if not bits:
            return None
        return NotKept(bits) if destination.kept.get(index) else Fixed(own)
    if not (register.constant or register.kind.is_firmware):
        return None
    answer = put(index, source, destination)
    if answer is Put.TAKEN:
        return None
    if answer is Put.UNKNOWN:
        return Unsure(own)
    if register.kind is Kind.FIRMWARE_VERSION:
        return AtMost(own)
    if register.kind is Kind.FIRMWARE_BITMAP:
        return Lacks(source & ~own)
    return Fixed(own)


def tolerated_values(
    index: int, source: int, destination: Destination, policy: Policy
) -> Iterator[ValueRule]:
    """The values that the policy allows instead of `source`, the most specific rule first.

    Only values that the destination would take.
    """
    own = destination.registers[index]
    if kind(index) is Kind.FIRMWARE_VERSION and policy.psci_version is not None:
        pinned = policy.psci_version.value
        if describe(index).name == "PSCI_VERSION" and pinned <= own:
            yield ValueRule(pinned, Pinned(policy.psci_version), policy.psci_origins, named=True)
    for placed in policy.tolerances_for(index):
        rule = placed.tolerance
        named = names_register(rule)
        match rule:
            case TakeDestination():
                bits = not_kept(index, source, destination)
                if destination.kept.get(index) and bits:
                    yield ValueRule(source ^ bits, PartTaken(bits), placed.origins, named)
                else:
                    yield ValueRule(own, OwnTaken(), placed.origins, named)
            case DifferInMask(mask=mask) if not (source ^ own) & ~mask:
                yield ValueRule(own, DifferenceInMask(mask), placed.origins, named)
            case FieldsAtMostDestination() if fields_fit(index, source, own):
                yield ValueRule(own, FieldsFit(), placed.origins, named)
            case CapAtDestination() if kind(index).is_firmware:
                value = source & own if kind(index) is Kind.FIRMWARE_BITMAP else min(source, own)
                if refusal(index, value, destination) is None:
                    yield ValueRule(value, Capped(), placed.origins, named)


def names_register(rule: Tolerance) -> bool:
    """Whether a rule names its register, not a whole kind: only then it accepts the risk."""
    return isinstance(rule.select, int)


def fields_fit(index: int, source: int, own: int) -> bool:
    """Whether a guest that knows `source` finds each field at least as good in `own`."""
    return all(field_fits(one) for one in differing_fields(index, source, own))
