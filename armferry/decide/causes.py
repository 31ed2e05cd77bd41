"""Why a register ends in its class, as values: a closed set of types.

`merge` makes them, `words` puts them into English, `plan` matches them; no other module reads an
English sentence to learn what happened.
"""

from dataclasses import dataclass

from armferry.decide.harms import Harm, Plain
from armferry.decide.risk_level import Risk
from armferry.policy import PsciVersion

__all__ = [
    "Arrives",
    "AtMost",
    "Capped",
    "Cause",
    "Change",
    "Condition",
    "CounterJumps",
    "Declared",
    "DifferenceInMask",
    "Dropped",
    "FieldsFit",
    "Fixed",
    "HeldReset",
    "Hidden",
    "KeepsOther",
    "Lacks",
    "LeftByGuest",
    "Matched",
    "Meaningless",
    "NotKept",
    "NotOffered",
    "OneEndOnly",
    "OnlyThere",
    "OwnTaken",
    "PartTaken",
    "Permission",
    "Pinned",
    "Refusal",
    "RenamedTo",
    "StockIgnores",
    "TakesAway",
    "TooWide",
    "Unlisted",
    "Unsure",
    "ValueChanged",
    "ValueRefused",
]


@dataclass(frozen=True, slots=True)
class _OfOwn:
    own: int


@dataclass(frozen=True, slots=True)
class _OfBits:
    bits: int


# -- by which rule a register may stay behind


class Hidden(Plain):
    """It is hidden from the VM."""

    __slots__ = ()


class Declared(Plain):
    """It is declared safe to be missing."""

    __slots__ = ()


class OneEndOnly(Plain):
    """It may exist on one end only."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """It may be dropped while `value & mask == expected`."""

    mask: int
    expected: int


class HeldReset(Plain):
    """It may be dropped while it holds its reset value."""

    __slots__ = ()


class StockIgnores(Plain):
    """The destination's QEMU loads the guest without it by itself."""

    __slots__ = ()


class Unlisted(Plain):
    """The destination has the register and lists it nowhere; the guest reads the same there."""

    __slots__ = ()


Permission = Hidden | Declared | OneEndOnly | Condition | HeldReset | StockIgnores | Unlisted

# -- why the destination does not take a value


class Fixed(_OfOwn):
    """The destination fixes the register at `own`."""

    __slots__ = ()


class AtMost(_OfOwn):
    """The destination offers `own` at most: a firmware version."""

    __slots__ = ()


class Lacks(_OfBits):
    """The destination lacks the firmware services `bits`."""

    __slots__ = ()


class TooWide(Plain):
    """The value has more bits than the register that it is to go into."""

    __slots__ = ()


class NotKept(_OfBits):
    """The destination's QEMU does not keep `bits` of it."""

    __slots__ = ()


class Unsure(_OfOwn):
    """It is not known whether the destination's kernel takes another value than `own`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TakesAway:
    """The destination's kernel then no longer has `registers`, which its QEMU puts all the same."""

    registers: tuple[int, ...]


Refusal = Fixed | AtMost | Lacks | TooWide | NotKept | Unsure | TakesAway

# -- by which rule another value is sent


@dataclass(frozen=True, slots=True)
class Pinned:
    """kvm-psci-version pins it."""

    version: PsciVersion


class OwnTaken(Plain):
    """The destination's value is taken."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class DifferenceInMask:
    """It differs in the bits of `mask` only."""

    mask: int


class FieldsFit(Plain):
    """No field is beyond the destination's."""

    __slots__ = ()


class Capped(Plain):
    """It is capped at the destination's."""

    __slots__ = ()


class PartTaken(_OfBits):
    """`bits`, which do not stay, are the destination's."""

    __slots__ = ()


class Meaningless(_OfBits):
    """`bits`, which do not stay, mean nothing by the architecture (RES0), and are left out."""

    __slots__ = ()


Change = Pinned | OwnTaken | DifferenceInMask | FieldsFit | Capped | PartTaken | Meaningless

# -- what became of the register


class Matched(Plain):
    """The source's value is sent."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class KeepsOther:
    """`value` is sent, and the destination's kernel takes it and keeps `after`."""

    value: int
    after: int
    harm: Harm


@dataclass(frozen=True, slots=True)
class Dropped:
    """The source's value does not travel, or may not: `permission` is None where no rule says so.

    `asks` is the risk that the user has to accept first, None when that is not needed.
    """

    permission: Permission | None
    harm: Harm
    asks: Risk | None = None


@dataclass(frozen=True, slots=True)
class RenamedTo:
    """It is sent as `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class OnlyThere:
    """The source does not have it: it keeps its reset value, or `sent` says that its own is sent.

    `recorded` says that what is sent was recorded of a guest that ran.
    """

    sent: bool
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class LeftByGuest:
    """The source does not have it, and what would be sent is what another guest left there."""

    value: int
    asks: Risk | None = None


@dataclass(frozen=True, slots=True)
class CounterJumps:
    """The source leaves the physical counter to its host, and the guest may read it: it jumps."""

    asks: Risk | None = None


@dataclass(frozen=True, slots=True)
class ValueRefused:
    """The destination does not take `value`. `renamed` is the register's name on the source."""

    reason: Refusal
    value: int
    own: int
    harm: Harm
    renamed: str = ""


@dataclass(frozen=True, slots=True)
class ValueChanged:
    """`sent` goes instead of `value`, by a rule; `renamed` and `asks` as above."""

    rule: Change
    value: int
    sent: int
    harm: Harm
    renamed: str = ""
    asks: Risk | None = None


@dataclass(frozen=True, slots=True)
class Arrives:
    """It comes under `renamed`, its name on the source."""

    renamed: str


@dataclass(frozen=True, slots=True)
class NotOffered:
    """kvm-psci-version pins a version that the destination does not offer."""

    version: PsciVersion
    own: int


Cause = (
    Matched
    | KeepsOther
    | Dropped
    | RenamedTo
    | OnlyThere
    | LeftByGuest
    | CounterJumps
    | ValueRefused
    | ValueChanged
    | Arrives
    | NotOffered
)
