"""What a plan is made of: hosts to upgrade, guests to move, the ways between them, the steps.

A host has a *build*: all that decides which guests it takes (kernel, QEMUs, CPU). For each kind of
guest a build is one class, and a class is what the relation between hosts speaks of. An upgrade
takes a host from its build to its target. Refuses to know where any of it was read.
"""

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from armferry.errors import ArmferryError

__all__ = [
    "NO_WAY",
    "Cost",
    "Limits",
    "Move",
    "NoPlan",
    "PlanFleet",
    "PlanGuest",
    "PlanHost",
    "Restart",
    "Scope",
    "Solution",
    "Step",
    "Wave",
    "Way",
    "Ways",
]


class NoPlan(ArmferryError):
    """No order of steps was found that keeps the hard constraints; the message says what broke."""

    exit_code = 2


class Scope(enum.StrEnum):
    """What two guests of one `apart` group never share."""

    HOST = "host"
    DOMAIN = "domain"


@dataclass(frozen=True, slots=True)
class PlanHost:
    """A host: `build` as it is now, `target` after its upgrade, None where it is left as it is.

    `memory` is what it has for guests, in the unit of the guests' sizes. `domain` is its failure
    domain. `evidence` says what the class of the target was taken from.
    """

    name: str
    build: str
    target: str | None = None
    memory: int = 0
    domain: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class PlanGuest:
    """A guest: `birth` is the class that it was started on, for guests of its `kind`.

    `only` and `never` name hosts or failure domains; an empty `only` allows all. Guests of one
    `apart` group never share a host, or a failure domain (`scope`). `known` are the conditions of
    a way that are known to hold for it.
    """

    name: str
    host: str
    birth: str
    memory: int = 0
    kind: str = ""
    only: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()
    apart: str = ""
    scope: Scope = Scope.HOST
    known: frozenset[str] = frozenset()

    def may_run_on(self, host: PlanHost) -> bool:
        """Whether its pins to hosts and failure domains allow a host."""
        names = {host.name, host.domain}
        return (not self.only or not names.isdisjoint(self.only)) and names.isdisjoint(self.never)


@dataclass(frozen=True, slots=True)
class Way:
    """Whether a running guest can go from one class to another, and what it costs.

    `allowed` is False for a move that would lose something of the guest, too. `visible`: the
    guest may notice. `entries` are the policy entries that it takes, `conditions` what must hold
    of the guest, `first` what is to be looked at before it goes. `armferry`: stock QEMU alone does
    not do it.
    """

    allowed: bool
    visible: bool = False
    entries: frozenset[str] = frozenset()
    conditions: frozenset[str] = frozenset()
    armferry: bool = False
    why: str = ""
    first: frozenset[str] = frozenset()

    def open_to(self, known: frozenset[str]) -> bool:
        """Whether a guest of which `known` is known to hold can take it."""
        return self.allowed and self.conditions <= known


NO_WAY = Way(allowed=False)
Ways = Callable[[str, str, str], Way]
"""(class of birth, present class, destination's class) -> the way; neither symmetric nor
transitive."""


@dataclass(frozen=True)
class PlanFleet:
    """Hosts, guests, and the class of each build for each kind of guest.

    A build that `classes` does not name is a class itself, for every kind. A kind that a named
    build has no class for cannot run there.
    """

    hosts: tuple[PlanHost, ...]
    guests: tuple[PlanGuest, ...]
    classes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def class_of(self, build: str, kind: str) -> str | None:
        """The class of a build for guests of `kind`; None where they cannot run."""
        kinds = self.classes.get(build)
        return build if kinds is None else kinds.get(kind)

    @cached_property
    def by_name(self) -> Mapping[str, PlanHost]:
        """The hosts by their names."""
        return {host.name: host for host in self.hosts}


@dataclass(frozen=True, slots=True)
class Limits:
    """`wave`: how many hosts are down at once. `spare`: how many that are up hold no guest, always.

    `keep_way_back`: a guest moves only where it could come back from, to the class that it leaves.
    """

    wave: int = 1
    spare: int = 0
    keep_way_back: bool = False


class Move(NamedTuple):
    """A running guest goes from one host to another."""

    guest: str
    source: str
    destination: str


class Restart(NamedTuple):
    """A guest is shut down on one host and started on another: it is born anew.

    On the same host: it is shut down before the upgrade of this wave, and started after it.
    """

    guest: str
    source: str
    destination: str


Step = Move | Restart


@dataclass(frozen=True, slots=True)
class Wave:
    """Steps, one after the other; then the `upgrades`, all at once."""

    steps: tuple[Step, ...]
    upgrades: tuple[str, ...]


class Cost(NamedTuple):
    """What a plan costs, the first that differs decides. Moves that lose something are not made.

    `restarts`, `visible` (moves that the guest may notice), `entries` (of a policy, each once),
    `moves`, `waves`; `early` is the sum, over the moves that cannot be undone, of the hosts that
    still wait for their upgrade then.
    """

    restarts: int = 0
    visible: int = 0
    entries: int = 0
    moves: int = 0
    waves: int = 0
    early: int = 0


@dataclass(frozen=True, slots=True)
class Solution:
    """The waves, what they cost, and a bound that no plan is below.

    `exhausted`: every cheaper plan was ruled out by search. `examined` counts the states of it.
    """

    waves: tuple[Wave, ...]
    cost: Cost
    bound: Cost
    exhausted: bool = False
    examined: int = 0

    @property
    def proved(self) -> tuple[str, ...]:
        """The parts of the cost, from the first on, that are proved to be the least possible."""
        return tuple(self._proved())

    def _proved(self) -> Iterator[str]:
        for name, cost, bound in zip(Cost._fields, self.cost, self.bound, strict=True):
            if cost != bound and not self.exhausted:
                return
            yield name

    @property
    def optimal(self) -> bool:
        """Whether all that the order of preference names is proved: up to the waves."""
        return "waves" in self.proved
