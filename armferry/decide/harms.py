"""What becomes of a value for the guest, and what says that nobody wrote it: a closed set of types.

`risk` finds them, `causes` carry them, `words` puts them into English.
"""

from dataclasses import dataclass

from armferry.ends import NotKnown
from armferry.registers import FieldDifference

__all__ = [
    "Evidence",
    "Harm",
    "KnownReset",
    "KvmPattern",
    "LosesFeatures",
    "NeverRan",
    "NotInUse",
    "NothingLost",
    "Plain",
    "ReadsElse",
    "ResetByRule",
    "SameThere",
    "SourceReset",
    "ValueLost",
    "Zero",
]

# -- forms that many share: to define a frozen dataclass takes half a millisecond, its child none


@dataclass(frozen=True, slots=True)
class Plain:
    """A cause that its type says whole."""


@dataclass(frozen=True, slots=True)
class _OfValue:
    value: int


# -- why a value is the one that the register had after reset


class NeverRan(Plain):
    """The guest never ran."""

    __slots__ = ()


class SourceReset(_OfValue):
    """`value` is the reset value of the source's host."""

    __slots__ = ()


class KnownReset(_OfValue):
    """`value` is a reset value that a compat level or the user states."""

    __slots__ = ()


class ResetByRule(Plain):
    """The rule that drops the register lists its value as a reset value."""

    __slots__ = ()


class KvmPattern(_OfValue):
    """`value` is what KVM puts into registers whose reset value is unknown."""

    __slots__ = ()


class Zero(Plain):
    """It is zero, and the destination, which lacks it, reads as zero: nothing is missed."""

    __slots__ = ()


class NotInUse(Plain):
    """The physical counter: its timer is off and was never set, and no program may read it."""

    __slots__ = ()


Evidence = NeverRan | SourceReset | KnownReset | ResetByRule | KvmPattern | Zero | NotInUse

# -- what it is for the guest


@dataclass(frozen=True, slots=True)
class NothingLost:
    """Nobody wrote the register."""

    evidence: Evidence


class SameThere(Plain):
    """The guest reads the same value afterwards."""

    __slots__ = ()


class ValueLost(_OfValue):
    """A value that the guest may have written is gone."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ReadsElse:
    """The guest reads `before` now and `after` afterwards: None where no register is."""

    before: int
    after: int | NotKnown | None


@dataclass(frozen=True, slots=True)
class LosesFeatures:
    """Features of the CPU that the guest may be using are gone or have changed."""

    before: int
    after: int
    fields: tuple[FieldDifference, ...]


Harm = NothingLost | SameThere | ValueLost | ReadsElse | LosesFeatures
