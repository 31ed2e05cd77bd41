"""What KVM makes of a value for a register that the guest cannot write: taken or not, and kept.

Measured value by value on real kernels (tests/decide/test_kernel_values.py); what departs from the
rule is a fact (`armferry.facts.kvm`). Knows one register at a time and the destination's own list;
what a register takes away from others is for `conditions`.
"""

import enum
from collections.abc import Mapping

from armferry.ends import Destination
from armferry.facts.kvm import FieldRule, kvm_values
from armferry.registers import FieldDifference, Kind, describe, differing_fields, field_fits

__all__ = ["Put", "is_of_the_host", "kept", "put"]

_CACHES = range(0x6020_0000_0011_0000, 0x6020_0000_0011_000E)
_PFR0, _CLIDR, _CTR = 0x6030_0000_0013_C020, 0x6030_0000_0013_C801, 0x6030_0000_0013_D801
_PMCR, _OVERFLOWS = 0x6030_0000_0013_DCE0, 0x6030_0000_0013_DCF3
_PAIRED = (
    *(0x6030_0000_0013_C4F1, 0x6030_0000_0013_C4F2),  # PMINTENSET_EL1, PMINTENCLR_EL1
    *(0x6030_0000_0013_DCE1, 0x6030_0000_0013_DCE2),  # PMCNTENSET_EL0, PMCNTENCLR_EL0
)
"""QEMU puts both of a pair, with the same value: the one sets what the other clears."""


class Put(enum.Enum):
    """What becomes of a put."""

    TAKEN = "taken"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """Another kernel of the same list was seen to take it, or it depends on the hardware."""


_SURE = (Put.TAKEN, Put.UNKNOWN, Put.REFUSED)
"""The answer of a whole is that of its part which comes last here."""


def put(index: int, value: int, destination: Destination) -> Put:
    """Whether KVM of the destination takes `value` for a constant or firmware register it has."""
    own = destination.registers[index]
    kind = describe(index).kind
    if value == own:
        return Put.TAKEN
    if kind is Kind.FIRMWARE_VERSION:
        return _answer(_offers(index, value, own))
    if kind is Kind.FIRMWARE_BITMAP:
        return _answer(not value & ~(own | kvm_values().taken_bits.get(index, 0)))
    if _ignored(index, destination.registers):
        return Put.TAKEN
    if index in kvm_values().never_writable:
        return Put.REFUSED
    if index in _CACHES:
        return _answer(_takes_geometry(index, value, destination.registers))
    return _identification(index, value, destination)


def kept(index: int, value: int, destination: Destination) -> int:
    """What the guest reads once KVM of the destination has taken `value`."""
    own = destination.registers[index]
    workaround = describe(index).name.startswith("SMCCC_ARCH_WORKAROUND")
    if workaround or _ignored(index, destination.registers):
        return own
    if index == _PMCR:
        return _kept_pmcr(value, own)
    if index in _PAIRED:
        return 0 if _clears(index, destination.registers) else value
    if value == own or not is_of_the_host(index):
        return value
    hidden = kvm_values().hidden.get(index)
    if hidden is not None and not hidden.raw(own):
        value &= ~hidden.mask
    for rule in _rules(index, destination.registers):
        if rule.forgets is not None and rule.field.raw(value) == rule.forgets:
            value &= ~rule.field.mask
    return value


def is_of_the_host(index: int) -> bool:
    """Whether what the guest reads there is what its host or its CPU says of itself."""
    register = describe(index)
    return register.constant or register.kind.is_firmware or index == _PMCR


def _clears(index: int, own: Mapping[int, int]) -> bool:
    """Whether the kernel, before 6.13, clears in one register of a pair what the other one set.

    It shows in a list after reset: those registers hold 0 there, and PMOVSSET_EL0, which KVM keeps
    as it is put, its reset pattern.
    """
    return own[index] == 0 and own.get(_OVERFLOWS, 0) != 0


def _answer(taken: bool) -> Put:
    return Put.TAKEN if taken else Put.REFUSED


def _offers(index: int, value: int, own: int) -> bool:
    """Whether a firmware version is one that there is, and not above the host's."""
    match describe(index).name:
        case "PSCI_VERSION":
            return value in kvm_values().psci_versions and value <= own
        case "SMCCC_ARCH_WORKAROUND_2":
            # KVM knows two levels: "unknown" is taken for "not available" and "available",
            # switched on or not, for "not required"
            level, switched_on = value & 0xF, value >> 4
            fits = level <= 3 and switched_on <= (level == 2)
            return fits and (level >= 2) <= (own & 0xF >= 2)
    return value <= own


def _ignored(index: int, own: Mapping[int, int]) -> bool:
    """Whether it describes AArch32, on a CPU without: KVM takes any value and keeps its own."""
    return index in kvm_values().ignored_without_aarch32 and own.get(_PFR0, 0) & 0xF == 1


def _takes_geometry(index: int, value: int, own: Mapping[int, int]) -> bool:
    """Whether a cache may have this geometry.

    A kernel that lists all that could be takes any whose lines are as long as the CPU's shortest;
    6.1 and older list the caches that the CPU has, and take their own geometry alone.
    """
    if not _lists_all_caches(own):
        return False
    shortest = own.get(_CTR, 0) >> (0 if index & 1 else 16) & 0xF  # IminLine, DminLine: log2 words
    return (value & 0x7) + 4 >= shortest + 2


def _lists_all_caches(own: Mapping[int, int]) -> bool:
    """Whether the kernel lists every cache that could be: then it lets masks be asked for, too."""
    return all(cache in own for cache in _CACHES)


def _identification(index: int, value: int, destination: Destination) -> Put:
    """It is taken where only writable bits differ, and no field promises more than the host has."""
    own = destination.registers[index]
    hidden = kvm_values().hidden.get(index)
    answer = Put.TAKEN
    newer = destination.writable is not None
    if destination.writable is not None:
        always = sometimes = destination.writable.get(index, 0)
    elif _lists_all_caches(destination.registers):
        newer, always, sometimes = True, 0, kvm_values().ever_writable.get(index, 0)
    else:
        always = sometimes = kvm_values().unsaid.get(index, 0)
    if newer and hidden is not None and not hidden.raw(own) and hidden.raw(value):
        if destination.hardware is None:
            answer = Put.UNKNOWN
        elif hidden.raw(value) != hidden.raw(destination.hardware.get(index, 0)):
            return Put.REFUSED
        value &= ~hidden.mask
    changed = value ^ own
    if changed & ~sometimes:
        return Put.REFUSED
    if changed & ~always:
        answer = Put.UNKNOWN
    return max(answer, _fields(index, value, destination.registers), key=_SURE.index)


def _fields(index: int, value: int, registers: Mapping[int, int]) -> Put:
    """What becomes of a value whose bits are writable, by what its fields promise."""
    if index == _CLIDR:
        return _answer(_takes_levels(value, registers.get(_CTR, 0)))
    rules = {rule.field.name: rule for rule in _rules(index, registers)}
    answers = [
        _by_rule(rules.get(difference.field.name), difference, value)
        for difference in differing_fields(index, value, registers[index])
    ]
    return max(answers, default=Put.TAKEN, key=_SURE.index)


def _by_rule(rule: FieldRule | None, difference: FieldDifference, value: int) -> Put:
    number = difference.field.raw(value)
    if rule is not None:
        if number in (rule.safe, rule.forgets):
            return Put.TAKEN
        if number < rule.lowest:
            return _answer(rule.or_zero and number == 0)
        if rule.unsure_from is not None and number >= rule.unsure_from:
            return Put.TAKEN if field_fits(difference) else Put.UNKNOWN
    return _answer(field_fits(difference))


def _takes_levels(value: int, ctr: int) -> bool:
    """Whether CLIDR_EL1 may be `value`: any levels, unless it hides that caches must be cleaned.

    CTR_EL0.IDC says that they need not; CLIDR_EL1 does too with no level of coherency, or with no
    level of unification.
    """
    coherency, inner, unification = value >> 24 & 7, value >> 21 & 7, value >> 27 & 7
    needless = not coherency or not (inner or unification)
    return value < 1 << 47 and (bool(ctr >> 28 & 1) or not needless)


def _rules(index: int, own: Mapping[int, int]) -> list[FieldRule]:
    return [
        rule for rule in kvm_values().fields.get(index, ()) if rule.mark is None or rule.mark in own
    ]


def _kept_pmcr(value: int, own: int) -> int:
    """No more counters than the host has; what names the PMU only where the host shows it."""
    if own >> 24:
        return value
    counters = 0x1F << 11
    return value & 0xFF | min(value & counters, own & counters)
