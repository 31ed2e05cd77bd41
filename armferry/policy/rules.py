"""The values of a policy: origins, tolerances, pinned versions, accepted risks, and their union.

What this module knows: which rules exist and how two sets of them are united. A rule is a
permission, never a judgement: whether it helps a given register is for `armferry.decide`.

What it refuses to know: how rules are written (`tolerance`, `properties`, `document`), where
compat levels are kept (`levels`), and what a register's value means.

A `Policy` is always in canonical form (origins sorted and unique, tolerances sorted and merged),
so equality is equality of meaning and `Policy.union` is commutative, associative and idempotent.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from armferry.registers import Kind, kind

__all__ = [
    "EMPTY",
    "NO_RISK",
    "AcceptedRisk",
    "CapAtDestination",
    "DifferInMask",
    "FieldsAtMostDestination",
    "NotOnBothEnds",
    "OnlySourceIf",
    "OnlySourceIfReset",
    "Origin",
    "OriginKind",
    "Policy",
    "PsciVersion",
    "Rekey",
    "Selector",
    "TakeDestination",
    "Tolerance",
    "TolerancePlaced",
    "selects",
]


class OriginKind(enum.StrEnum):
    """Where an entry came from, in rising order of specificity."""

    BUILTIN = "builtin"
    SITE = "site"
    FILE = "file"
    COMMAND_LINE = "command line"

    @property
    def rank(self) -> int:
        """0 for the least specific source; the text itself does not sort this way."""
        return list(OriginKind).index(self)


@dataclass(frozen=True, slots=True)
class Origin:
    """One place that listed an entry.

    `where` is what a person would look up: "compat level virt-10.2",
    "/etc/armferry/policy.toml: level site", "--hidden-regs". `reason` is a sentence, or empty.
    """

    kind: OriginKind
    where: str
    reason: str = ""

    def __lt__(self, other: Origin) -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[int, str, str]:
        return (self.kind.rank, self.where, self.reason)

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" if self.reason else self.where


Selector = int | Kind
"""Which registers a tolerance is for: one index, or every register of a kind."""


@dataclass(frozen=True, slots=True)
class _Selecting:
    """A rule without numbers; shared, as each dataclass makes every command start later."""

    select: Selector


class NotOnBothEnds(_Selecting):
    """May exist on one end only, whichever it is and whatever it holds."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class OnlySourceIf:
    """May be dropped when the destination lacks it and `(value & mask) == expected`."""

    select: Selector
    mask: int
    expected: int


@dataclass(frozen=True, slots=True)
class OnlySourceIfReset:
    """May be dropped when the destination lacks it and it still holds its reset value.

    `reset` are known reset values beyond those that the policy's levels and the source's own
    fingerprint name; ascending and unique.
    """

    select: Selector
    reset: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "reset", tuple(sorted(set(self.reset))))


@dataclass(frozen=True, slots=True)
class DifferInMask:
    """Bits in `mask` may differ; the destination's bits are taken there."""

    select: Selector
    mask: int


class FieldsAtMostDestination(_Selecting):
    """May differ when every identification field is no greater than the destination's."""

    __slots__ = ()


class CapAtDestination(_Selecting):
    """May be lowered to what the destination offers: a firmware version or feature bitmap."""

    __slots__ = ()


class TakeDestination(_Selecting):
    """May differ; the destination's value is taken: constants."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Rekey:
    """The register that the source calls `select` is called `new` on the destination."""

    select: int
    new: int


Tolerance = (
    NotOnBothEnds
    | OnlySourceIf
    | OnlySourceIfReset
    | DifferInMask
    | FieldsAtMostDestination
    | CapAtDestination
    | TakeDestination
    | Rekey
)


_CLASSES: tuple[type[Tolerance], ...] = (
    NotOnBothEnds,
    OnlySourceIf,
    OnlySourceIfReset,
    DifferInMask,
    FieldsAtMostDestination,
    CapAtDestination,
    TakeDestination,
    Rekey,
)


def selects(tolerance: Tolerance, index: int) -> bool:
    """True when the tolerance is for the register at this index, by itself or by its kind."""
    if isinstance(tolerance.select, Kind):
        return kind(index) is tolerance.select
    return tolerance.select == index


def _tolerance_key(tolerance: Tolerance) -> tuple[bool, int, str, int, tuple[int, ...]]:
    """Order of tolerances: single registers by index, then kinds; then the class; then numbers."""
    match tolerance:
        case OnlySourceIf(mask=mask, expected=expected):
            numbers: tuple[int, ...] = (mask, expected)
        case OnlySourceIfReset(reset=reset):
            numbers = reset
        case DifferInMask(mask=mask):
            numbers = (mask,)
        case Rekey(new=new):
            numbers = (new,)
        case _:
            numbers = ()
    rank = _CLASSES.index(type(tolerance))
    if isinstance(tolerance.select, Kind):
        return (True, 0, tolerance.select.value, rank, numbers)
    return (False, tolerance.select, "", rank, numbers)


@dataclass(frozen=True, slots=True)
class TolerancePlaced:
    """A tolerance and everyone who listed it, origins ascending and unique."""

    tolerance: Tolerance
    origins: tuple[Origin, ...]


@dataclass(frozen=True, slots=True, order=True)
class PsciVersion:
    """A PSCI version that the guest is to see, as KVM's firmware register holds it."""

    major: int
    minor: int

    @property
    def value(self) -> int:
        """The register's value: major in bits 31..16, minor in bits 15..0 (1.1 is 0x10001)."""
        return self.major << 16 | self.minor

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclass(frozen=True, slots=True)
class AcceptedRisk:
    """What the user accepts by name: single registers, or every risk of a sort.

    `breaks` is accepted by its own word only, never by `lossy` or `guest_visible`.
    `subsections` are parts of a section, such as cpu/fpmr, whose content may be lost.
    """

    registers: frozenset[int] = frozenset()
    guest_visible: bool = False
    lossy: bool = False
    subsections: frozenset[str] = frozenset()
    breaks: bool = False

    def union(self, other: AcceptedRisk) -> AcceptedRisk:
        """Everything that either accepts."""
        return AcceptedRisk(
            self.registers | other.registers,
            self.guest_visible or other.guest_visible,
            self.lossy or other.lossy,
            self.subsections | other.subsections,
            self.breaks or other.breaks,
        )


NO_RISK = AcceptedRisk()


@dataclass(frozen=True, slots=True)
class Policy:
    """Every rule that applies to one move, each knowing where it came from.

    `hidden` and `safe_missing` map a register index to everyone who listed it; `resets` maps an
    index to values it is known to hold after reset; `psci` maps each version that was pinned to
    everyone who pinned it (two different ones are a problem to report, not an error to raise).
    `notes` is what a person should know of how the rules were chosen, in words.
    """

    hidden: Mapping[int, tuple[Origin, ...]] = field(default_factory=dict)
    safe_missing: Mapping[int, tuple[Origin, ...]] = field(default_factory=dict)
    tolerances: tuple[TolerancePlaced, ...] = ()
    resets: Mapping[int, frozenset[int]] = field(default_factory=dict)
    psci: Mapping[PsciVersion, tuple[Origin, ...]] = field(default_factory=dict)
    accepted: AcceptedRisk = NO_RISK
    notes: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "hidden", _canonical(self.hidden))
        put(self, "safe_missing", _canonical(self.safe_missing))
        put(self, "tolerances", _merged(self.tolerances))
        put(self, "resets", {i: frozenset(v) for i, v in sorted(self.resets.items()) if v})
        put(self, "psci", {v: _unique(self.psci[v]) for v in sorted(self.psci)})

    @property
    def psci_version(self) -> PsciVersion | None:
        """The pinned version; of several, the most specific source's, then the lowest."""
        if not self.psci:
            return None
        return min(self.psci, key=lambda v: (-max(o.kind.rank for o in self.psci[v]), v))

    @property
    def psci_origins(self) -> tuple[Origin, ...]:
        """Everyone who pinned `psci_version`; empty when there is none."""
        version = self.psci_version
        return () if version is None else self.psci[version]

    def union(self, other: Policy) -> Policy:
        """Every rule of either; a rule in both remembers the origins of both. Never an error."""
        psci = {v: self.psci.get(v, ()) + other.psci.get(v, ()) for v in {*self.psci, *other.psci}}
        none: frozenset[int] = frozenset()
        resets = {
            i: self.resets.get(i, none) | other.resets.get(i, none)
            for i in {*self.resets, *other.resets}
        }
        return Policy(
            hidden=_united(self.hidden, other.hidden),
            safe_missing=_united(self.safe_missing, other.safe_missing),
            tolerances=self.tolerances + other.tolerances,
            resets=resets,
            psci=psci,
            accepted=self.accepted.union(other.accepted),
            notes=self.notes | other.notes,
        )

    def tolerances_for(self, index: int) -> tuple[TolerancePlaced, ...]:
        """The tolerances for one register: those that name its index first, then its kind's."""
        return tuple(placed for placed in self.tolerances if selects(placed.tolerance, index))


def _unique(origins: Iterable[Origin]) -> tuple[Origin, ...]:
    return tuple(sorted(set(origins)))


def _canonical(listed: Mapping[int, tuple[Origin, ...]]) -> dict[int, tuple[Origin, ...]]:
    return {index: _unique(listed[index]) for index in sorted(listed)}


def _united(
    left: Mapping[int, tuple[Origin, ...]], right: Mapping[int, tuple[Origin, ...]]
) -> dict[int, tuple[Origin, ...]]:
    return {i: left.get(i, ()) + right.get(i, ()) for i in {*left, *right}}


def _merged(placed: Iterable[TolerancePlaced]) -> tuple[TolerancePlaced, ...]:
    origins: dict[Tolerance, tuple[Origin, ...]] = {}
    for one in placed:
        origins[one.tolerance] = origins.get(one.tolerance, ()) + one.origins
    return tuple(
        TolerancePlaced(tolerance, _unique(origins[tolerance]))
        for tolerance in sorted(origins, key=_tolerance_key)
    )


EMPTY = Policy()
