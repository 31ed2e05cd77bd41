"""A register that both sides have, with two values: may it be sent, and which value?

Guest state differs by nature and is sent as it is. This module is about the other registers:
those whose value the host or the CPU model fixes, and firmware versions and bitmaps, which a
host accepts up to its own. Facts: TCG reads each register back after writing it; KVM answers
EINVAL (both measured, see docs).
"""

from collections.abc import Iterator, Mapping
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
)
from armferry.decide.kept_bits import not_kept
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
    counts_vcpus,
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

_EVERY_CACHE = {0x6020000000110000 + number for number in range(14)}
"""CCSIDR of every cache that could be: a kernel that lists them all, those the CPU has not
included, keeps them for the guest and takes any geometry (measured on 6.12 and later); 6.1 and
older list what the CPU has, and take nothing else."""


# What KVM lets be set, measured value by value on Linux 5.10 to 7.3 and emulated CPUs
# (tests/lab/test_kernel_refusals.py), beyond what KVM_ARM_GET_REG_WRITABLE_MASKS says.
_CLIDR = 0x6030_0000_0013_C801
"""Takes every value in its writable bits, deeper caches than the host's too."""
_IMPLEMENTATION = (0x6030_0000_0013_C000, 0x6030_0000_0013_C006, 0x6030_0000_0013_C807)
"""MIDR_EL1, REVIDR_EL1 and AIDR_EL1: said to be writable from 6.15 on, and refused all the same to
a VM that did not ask for KVM_CAP_ARM_WRITABLE_IMP_ID_REGS first; QEMU does not ask."""
_PFR0, _MMFR2 = 0x6030_0000_0013_C020, 0x6030_0000_0013_C03A  # ID_AA64...
_WRITABLE_WHERE_UNSAID = {_PFR0: 0xFF << 56}
"""CSV2 and CSV3 may be lowered on kernels older than the request (5.10 and 6.1)."""
_FORGOTTEN = {_MMFR2: 0xF << 24, _PFR0: 0xF << 40}
"""NV, shown before 6.16, and MPAM, shown before 6.13: no guest could use either. Taken and
forgotten where the host's own is 0. NV is measured; no emulated CPU has MPAM, which is from
set_id_aa64pfr0_el1() of arch/arm64/kvm/sys_regs.c."""


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
    kvm = destination.accelerator is Accelerator.KVM
    if kvm and register.kind is Kind.FIRMWARE_VERSION:
        if _level(index, source) > _level(index, own):
            return AtMost(own)
        return None
    if kvm and register.kind is Kind.FIRMWARE_BITMAP:
        if source & ~own:
            return Lacks(source & ~own)
        return None
    if not kvm:
        bits = not_kept(index, source, destination)
        if not bits:
            return None
        return NotKept(bits) if destination.kept.get(index) else Fixed(own)
    if not register.constant or (counts_vcpus(index) and not destination.same_vcpus):
        return None
    if _kernel_lets_be_set(index, source, own, destination.writable):
        return None
    every_cache = destination.registers.keys() >= _EVERY_CACHE
    if register.kind is Kind.CACHE_GEOMETRY and every_cache:
        return None
    return Fixed(own)


def _kernel_lets_be_set(
    index: int, source: int, own: int, writable: Mapping[int, int] | None
) -> bool:
    """Whether KVM takes another value for an identification register.

    It does where only writable bits differ and no field promises more than the host has. What
    older kernels should not have shown, newer ones take and forget.
    """
    if index in _IMPLEMENTATION:
        return False
    if writable is None:
        bits = _WRITABLE_WHERE_UNSAID.get(index, 0)
    else:
        bits = writable.get(index, 0)
        if not own & _FORGOTTEN.get(index, 0):
            source &= ~_FORGOTTEN.get(index, 0)
    if (source ^ own) & ~bits:
        return False
    return index == _CLIDR or fields_fit(index, source, own)


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


def _level(index: int, value: int) -> int:
    """How much of a firmware register's service a value promises.

    Of the second workaround KVM tells two levels apart only: it takes "unknown" for "not available"
    and "available", switched on or not, for "not required" (measured on 5.10, 6.12 and 7.3).
    """
    if describe(index).name == "SMCCC_ARCH_WORKAROUND_2":
        return int(value & 0xF >= 2)
    return value
