"""The bit fields of registers, and values taken apart into them.

Knows names, positions and signs (data/fields.json, after the Arm Architecture Reference Manual,
DDI 0487) and which way an identification field may differ. Refuses to know which register list a
value came from.

Most 4-bit identification fields count upwards from 0; some are signed, with 0xf for "not there"
(floating point): comparing them needs the sign. In two, PMUVer and PerfMon, 0xf alone stands apart
("a PMU, but not by the book") and 8 upwards are newer versions. A few are safer when greater, or
only when equal: `Safer` tells. What names a CPU or draws its caches is no feature at all: there any
difference is one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from .data_files import load

__all__ = [
    "Field",
    "FieldDifference",
    "Safer",
    "Sign",
    "field_fits",
    "fields_of",
    "names_cpu_fields",
    "unnamed_bits",
]


class Safer(Enum):
    """Which of two values of an identification field a running guest survives."""

    LOWER = "lower"
    HIGHER = "higher"
    HIGHER_OR_ZERO = "higher or zero"
    """As HIGHER, but 0 says that it is unknown, so it stands for the greatest."""
    SUPERSET = "superset"
    """Bits that nobody named: what was set must stay set."""
    EQUAL = "equal"


_SAFER: dict[tuple[str, str], Safer] = {
    ("ID_AA64ISAR1_EL1", "APA"): Safer.EQUAL,
    ("ID_AA64ISAR1_EL1", "API"): Safer.EQUAL,
    ("ID_AA64ISAR2_EL1", "APA3"): Safer.EQUAL,
    ("ID_AA64MMFR0_EL1", "TGran4_2"): Safer.EQUAL,
    ("ID_AA64MMFR0_EL1", "TGran16_2"): Safer.EQUAL,
    ("ID_AA64MMFR0_EL1", "TGran64_2"): Safer.EQUAL,
    ("ID_AA64MMFR1_EL1", "SpecSEI"): Safer.HIGHER,
    ("ID_MMFR4", "SpecSEI"): Safer.HIGHER,
    ("CTR_EL0", "CWG"): Safer.HIGHER_OR_ZERO,
    ("CTR_EL0", "ERG"): Safer.HIGHER_OR_ZERO,
    ("CTR_EL0", "L1Ip"): Safer.EQUAL,
    ("CTR", "CWG"): Safer.HIGHER_OR_ZERO,
    ("CTR", "ERG"): Safer.HIGHER_OR_ZERO,
    ("CTR", "L1Ip"): Safer.EQUAL,
    ("DCZID_EL0", "DZP"): Safer.EQUAL,
    ("DCZID_EL0", "BS"): Safer.EQUAL,
}
_IDENTITY = re.compile(
    r"(MIDR|REVIDR|AIDR|SMIDR|MPIDR|TCMTR|TLBTR|CLIDR|CCSIDR2?|ID_AFR0)(_EL1)?|CCSIDR_L.*"
)
"""Registers whose fields are no features that a CPU has more or less of."""


class Sign(Enum):
    """How the bits of a field are a number. The value is the mark in the table."""

    UNSIGNED = ""
    SIGNED = "s"
    ALL_ONES = "x"
    """Unsigned, but all ones is less than any other."""


@dataclass(frozen=True, slots=True)
class Field:
    """Bits `low` to `low + width - 1` of a register, read as a number by `sign`."""

    name: str
    low: int
    width: int
    sign: Sign = Sign.UNSIGNED
    safer: Safer = Safer.LOWER

    @property
    def mask(self) -> int:
        """The field's bits, in place."""
        return ((1 << self.width) - 1) << self.low

    def raw(self, value: int) -> int:
        """The field's bits of a register value, never negative."""
        return (value & self.mask) >> self.low

    def of(self, value: int) -> int:
        """The field of a register value as a number: negative where its sign says so."""
        bits = self.raw(value)
        if self.sign is Sign.SIGNED and bits >> (self.width - 1):
            return bits - (1 << self.width)
        if self.sign is Sign.ALL_ONES and bits == (1 << self.width) - 1:
            return -1
        return bits


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field with two values: `left` and `right` are numbers as `Field.of` gives them."""

    field: Field
    left: int
    right: int


def field_fits(difference: FieldDifference) -> bool:
    """Whether a guest that knows the left value finds the right one at least as good."""
    left, right = difference.left, difference.right
    match difference.field.safer:
        case Safer.LOWER:
            return left <= right
        case Safer.HIGHER:
            return left >= right
        case Safer.HIGHER_OR_ZERO:
            return left == 0 or left >= right > 0
        case Safer.SUPERSET:
            return not left & ~right
        case Safer.EQUAL:  # pragma: no branch - the last there is
            return False


def names_cpu_fields(register: str) -> bool:
    """Whether a register, by its catalogue name, names a CPU or draws its caches.

    Its fields are then no features that a CPU has more or less of.
    """
    return _IDENTITY.fullmatch(register.removesuffix("_S")) is not None


@lru_cache(maxsize=4096)
def fields_of(name: str) -> tuple[Field, ...]:
    """The fields of a register by its catalogue name, lowest first; empty when none are known."""
    table: dict[str, str] = load("fields.json")["fields"]
    plain = name.removesuffix("_S")
    candidates = [plain, plain.removesuffix("_32").removesuffix("_64").removesuffix("_QEMU")]
    if plain.startswith("ID_"):
        candidates.append(plain.removesuffix("_EL1"))
    if plain.startswith("CCSIDR_L"):
        candidates.append("CCSIDR_EL1")
    if plain in ("TIMER_CNT", "TIMER_CVAL"):
        return ()
    for candidate in candidates:
        if candidate in table:
            return tuple(_field(candidate, text) for text in table[candidate].split())
    return ()


def _field(register: str, text: str) -> Field:
    name, low, width, *sign = text.split(":")
    safer = _SAFER.get((register, name), Safer.LOWER)
    if _IDENTITY.fullmatch(register):
        safer = Safer.EQUAL
    return Field(name, int(low), int(width), Sign("".join(sign)), safer)


def unnamed_bits(register: str, low: int, width: int) -> Field:
    """Bits of a register, by its catalogue name, that no field of it has."""
    name = f"bit {low}" if width == 1 else f"bits {low + width - 1}:{low}"
    equal = names_cpu_fields(register)
    return Field(name, low, width, safer=Safer.EQUAL if equal else Safer.SUPERSET)
