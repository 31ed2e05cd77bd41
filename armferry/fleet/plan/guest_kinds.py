"""Guests that a plan need not tell apart, and what can be said of one alone.

Guests of the same size, birth, kind and pins are interchangeable. Of each it is known, whatever
the others do, what it costs at least to get it from a host that is to be upgraded to one that
stays as it is: a bound for every plan.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

from armferry.fleet.plan.model import (
    NO_WAY,
    Limits,
    PlanFleet,
    PlanGuest,
    PlanHost,
    Scope,
    Way,
    Ways,
)

__all__ = ["Kind", "Kinds", "Leaving"]


class Leaving(NamedTuple):
    """What one guest costs at least until it stands where no upgrade is to come."""

    restarts: int
    visible: int
    moves: int


@dataclass(frozen=True, slots=True)
class Kind:
    """Interchangeable guests: `like` is one of them, without its name, host and `apart` group.

    `exempt`: such a guest had nowhere to go before the plan began, so no wave is held to it.
    """

    like: PlanGuest
    exempt: bool = False


_RESTART = Leaving(1, 0, 0)
_Origin = tuple[str, str, frozenset[str]]
"""What the ways of a guest hang on: its birth, its kind, what is known of it."""
_Pins = tuple[int, frozenset[str], frozenset[str]]
"""What the hosts that a guest may stand on hang on: its size, `only` and `never`."""


class Kinds:
    """The kinds of a fleet's guests, numbered, with the ways that each has between builds."""

    def __init__(self, fleet: PlanFleet, ways: Ways, limits: Limits) -> None:
        self._fleet, self._limits, self._relation = fleet, limits, ways
        self._numbers: dict[Kind, int] = {}
        self.kinds: list[Kind] = []
        self._origins: list[_Origin] = []
        self._same_origin: dict[_Origin, int] = {}
        self.origin: list[int] = []
        """Kinds with the same number have the same ways."""
        self._open: dict[tuple[_Origin, str], dict[str, Way]] = {}
        self._leaving: dict[tuple[int, str], Leaving] = {}
        self._restarted: dict[tuple[int, str], int | None] = {}
        self._taking: dict[_Pins, tuple[frozenset[str], frozenset[str]]] = {}
        self._roomiest = sorted(fleet.hosts, key=lambda host: -host.memory)
        self._named: dict[str, list[PlanHost]] = {}
        for host in self._roomiest:
            for name in {host.name, host.domain}:
                self._named.setdefault(name, []).append(host)
        self._builds = list(
            dict.fromkeys(
                build for host in fleet.hosts for build in (host.build, host.target) if build
            )
        )

    def number(self, guest: PlanGuest, *, exempt: bool) -> int:
        """The number of a guest's kind."""
        kind = Kind(replace(guest, name="", host="", apart="", scope=Scope.HOST), exempt)
        known = self._numbers.get(kind)
        if known is None:
            known = self._numbers[kind] = len(self.kinds)
            self.kinds.append(kind)
            origin = guest.birth, guest.kind, guest.known
            self._origins.append(origin)
            self.origin.append(self._same_origin.setdefault(origin, len(self._same_origin)))
        return known

    def ways_from(self, number: int, present: str) -> Mapping[str, Way]:
        """Build -> the way of a guest to it, for those that are open to it."""
        key = self._origins[number], present
        found = self._open.get(key)
        if found is None:
            found = self._open[key] = dict(self._find_ways(*key))
        return found

    def _find_ways(self, origin: _Origin, present: str) -> Iterator[tuple[str, Way]]:
        birth, kind, known = origin
        here = self._fleet.class_of(present, kind)
        for build in self._builds if here is not None else ():
            there = self._fleet.class_of(build, kind)
            if here is not None and there is not None:
                way = self._relation(birth, here, there)
                if way.open_to(known):
                    yield build, way

    def way(self, number: int, present: str, destination: str) -> Way:
        """The way of a guest between two builds, `NO_WAY` where it is not open to it."""
        return self.ways_from(number, present).get(destination, NO_WAY)

    def may_move(self, number: int, present: str, destination: str) -> Way:
        """As `way`, and with a way back where that is to be kept."""
        way = self.way(number, present, destination)
        if self._limits.keep_way_back and self.one_way(number, present, destination):
            return NO_WAY
        return way

    def moves_from(self, number: int, present: str) -> Iterator[tuple[str, Way]]:
        """The ways of `ways_from` that `may_move` allows."""
        for build, way in self.ways_from(number, present).items():
            if not self._limits.keep_way_back or not self.one_way(number, present, build):
                yield build, way

    def one_way(self, number: int, present: str, destination: str) -> bool:
        """Whether a guest that went cannot come back to the build that it left."""
        return not self.way(number, destination, present).allowed

    def restarted(self, number: int, build: str) -> int | None:
        """The kind that a guest is once it was started anew there; None where it cannot run."""
        key = number, build
        if key not in self._restarted:
            kind = self.kinds[number]
            birth = self._fleet.class_of(build, kind.like.kind)
            self._restarted[key] = (
                None
                if birth is None
                else self.number(replace(kind.like, birth=birth), exempt=kind.exempt)
            )
        return self._restarted[key]

    def leaving(self, number: int, build: str) -> Leaving:
        """The least that it takes a guest on a host of `build` that is to be upgraded to settle."""
        key = number, build
        known = self._leaving.get(key)
        if known is None:
            known = self._leaving[key] = self._least(number, build)
        return known

    def _least(self, number: int, start: str) -> Leaving:
        """Dijkstra's way, by hosts that wait for their own upgrade where that is cheaper."""
        ends, middles = self._takers(number)
        best = _RESTART
        tie = count()
        queue = [(Leaving(0, 0, 0), next(tie), start)]
        least = {start: Leaving(0, 0, 0)}
        while queue:
            cost, _, build = heapq.heappop(queue)
            if cost.moves + 1 >= best.moves and cost[:2] >= best[:2]:
                continue
            for other, way in self.moves_from(number, build):
                step = Leaving(0, cost.visible + way.visible, cost.moves + 1)
                if other in ends:
                    best = min(best, step)
                if other in middles and step < least.get(other, best):
                    least[other] = step
                    heapq.heappush(queue, (step, next(tie), other))
        return best

    def _takers(self, number: int) -> tuple[frozenset[str], frozenset[str]]:
        """The builds of hosts that a guest could stand on: where it settles, and as they are."""
        like = self.kinds[number].like
        key = like.memory, like.only, like.never
        known = self._taking.get(key)
        if known is None:
            hosts = [
                host
                for host in self._candidates(like)
                if host.memory >= like.memory and like.may_run_on(host)
            ]
            known = self._taking[key] = (
                frozenset(host.target or host.build for host in hosts),
                frozenset(host.build for host in hosts),
            )
        return known

    def _candidates(self, like: PlanGuest) -> Iterable[PlanHost]:
        if not like.only:
            return self._roomiest
        return (host for name in like.only for host in self._named.get(name, ()))
