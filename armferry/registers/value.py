"""A register's value taken apart, and two values compared.

Knows how to read a value through the catalogue's fields and the firmware registers' own numbers.
The firmware meanings are those of the KVM user API (Documentation/virt/kvm/arm/fw-pseudo-registers)
and of the PSCI specification (DEN0022): version = major << 16 | minor.
"""

from __future__ import annotations

from armferry.errors import ArmferryError

from .catalogue import describe
from .fields import Field, FieldDifference, unnamed_bits
from .index import Arm64System, Firmware, FirmwareBitmap, decode
from .midr import identify

__all__ = [
    "PsciVersionError",
    "bitmap_services",
    "decode_fields",
    "differing_fields",
    "explain_value",
    "psci_version",
    "psci_version_text",
]

_WORKAROUND_LEVELS: dict[int, tuple[str, ...]] = {
    1: ("not available", "available", "not required"),
    2: ("not available", "unknown", "available", "not required"),
    3: ("not available", "available", "not required"),
}
_WORKAROUND_2_ENABLED = 1 << 4
_SERVICES: dict[int, dict[int, str]] = {
    0: {0: "TRNG_V1_0"},
    1: {0: "PV_TIME"},
    2: {0: "FUNC_FEAT", 1: "PTP"},
    3: {0: "DISCOVER_IMPL_VER", 1: "DISCOVER_IMPL_CPUS"},
}


class PsciVersionError(ArmferryError):
    """A text that is no PSCI version."""


def decode_fields(index: int, value: int) -> tuple[tuple[Field, int], ...]:
    """Every field of the register with its number, lowest bits first; empty when none are known."""
    return tuple((field, field.of(value)) for field in describe(index).fields)


def differing_fields(index: int, left: int, right: int) -> tuple[FieldDifference, ...]:
    """The fields in which two values of a register differ, lowest bits first.

    Bits that differ outside every known field come last, as one field `bits` for each run of
    neighbours, so that the differences always account for the whole of `left ^ right`.
    """
    found = [
        FieldDifference(field, field.of(left), field.of(right))
        for field in describe(index).fields
        if field.raw(left) != field.raw(right)
    ]
    rest = left ^ right
    for difference in found:
        rest &= ~difference.field.mask
    while rest:
        low = (rest & -rest).bit_length() - 1
        width = (~(rest >> low) & ((rest >> low) + 1)).bit_length() - 1
        field = unnamed_bits(describe(index).name, low, width)
        found.append(FieldDifference(field, field.raw(left), field.raw(right)))
        rest &= ~field.mask
    return tuple(found)


def psci_version_text(value: int) -> str:
    """A PSCI_VERSION value as people write it: 0x10003 is "1.3"."""
    return f"{value >> 16}.{value & 0xFFFF}"


def psci_version(text: str) -> int:
    """The PSCI_VERSION value of "1.3". Raises `PsciVersionError` for what is not MAJOR.MINOR."""
    major, dot, minor = text.strip().partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        raise PsciVersionError(f"PSCI version {text!r} is not MAJOR.MINOR, as in 1.1")
    if max(len(major), len(minor)) > 5 or int(major) > 0x7FFF or int(minor) > 0xFFFF:
        raise PsciVersionError(f"PSCI version {text!r} is out of range: 32767.65535 is the last")
    return int(major) << 16 | int(minor)


def bitmap_services(index: int, value: int) -> tuple[str, ...]:
    """The names of the services in a firmware bitmap's value; `bit N` for one without a name."""
    encoding = decode(index)
    names = _SERVICES.get(encoding.number, {}) if isinstance(encoding, FirmwareBitmap) else {}
    return tuple(names.get(n, f"bit {n}") for n in range(64) if value >> n & 1)


def explain_value(index: int, value: int) -> str:
    """What a value of a firmware register or of MIDR_EL1 says, in words; else empty."""
    match decode(index):
        case Arm64System(3, 0, 0, 0, 0):
            return identify(value).text
        case Firmware(0):
            return f"PSCI {psci_version_text(value)}"
        case Firmware(number) if number in _WORKAROUND_LEVELS:
            levels = _WORKAROUND_LEVELS[number]
            level = value & 0xF
            word = levels[level] if level < len(levels) else f"level {level}"
            return word + (", enabled" if number == 2 and value & _WORKAROUND_2_ENABLED else "")
        case FirmwareBitmap():
            return ", ".join(bitmap_services(index, value)) or "no services"
    return ""
