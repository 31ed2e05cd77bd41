"""The least cost of a plan by trying everything: no bound, no likeness of hosts, no pools.

Written from docs/fleet-plan.md, not from the planner; slow, and for the smallest fleets only.
"""

import heapq
from collections.abc import Iterator
from itertools import combinations, count

from armferry.fleet.plan.model import Cost, Limits, PlanFleet, PlanGuest, Scope, Way, Ways

State = tuple[tuple[tuple[str, str], ...], frozenset[str], frozenset[str]]
"""(host, birth) of each guest; the hosts that wait; the policy entries used."""


class Everything:
    """All that can be done with a fleet."""

    def __init__(self, fleet: PlanFleet, ways: Ways, limits: Limits) -> None:
        self.fleet, self.ways, self.limits = fleet, ways, limits
        self.hosts = {host.name: host for host in fleet.hosts}
        start = tuple((guest.host, guest.birth) for guest in fleet.guests)
        waiting = frozenset(host.name for host in fleet.hosts if host.target is not None)
        self.start: State = start, waiting, frozenset()
        self.exempt = {n for n in range(len(fleet.guests)) if not self.somewhere(start, waiting, n)}
        alike: dict[object, list[int]] = {}
        for n, guest in enumerate(fleet.guests):
            key = (
                guest.memory, guest.kind, guest.only, guest.never, guest.apart, guest.scope,
                guest.known, n in self.exempt,
            )  # fmt: skip
            alike.setdefault(key, []).append(n)
        self.alike = list(alike.values())

    def least(self, states: int = 10**9) -> Cost | None:
        """The least cost; None when nothing upgrades every host. Raises MemoryError beyond."""
        if self.empty(self.start[0], set()) < self.limits.spare:
            return None
        tie = count()
        queue = [(Cost(), next(tie), self.start)]
        best = {self.key(self.start): Cost()}
        done = set()
        while queue:
            cost, _, state = heapq.heappop(queue)
            key = self.key(state)
            if key in done:
                continue
            done.add(key)
            if not state[1]:
                return cost
            if len(done) > states:
                raise MemoryError
            for more, after in self.after(state):
                total = Cost(*(a + b for a, b in zip(cost, more, strict=True)))
                key = self.key(after)
                if key not in best or total < best[key]:
                    best[key] = total
                    heapq.heappush(queue, (total, next(tie), after))
        return None

    def key(self, state: State) -> object:
        """Guests that are alike may change places."""
        places = state[0]
        return tuple(tuple(sorted(places[n] for n in group)) for group in self.alike), *state[1:]

    def build(self, waiting: frozenset[str], name: str) -> str:
        host = self.hosts[name]
        return host.build if name in waiting or host.target is None else host.target

    def empty(self, places: tuple[tuple[str, str], ...], down: set[str]) -> int:
        return len(set(self.hosts) - {host for host, _ in places} - down)

    def way(self, guest: PlanGuest, birth: str, here: str, there: str) -> Way | None:
        old = self.fleet.class_of(here, guest.kind)
        new = self.fleet.class_of(there, guest.kind)
        if old is None or new is None:
            return None
        way = self.ways(birth, old, new)
        return way if way.allowed and way.conditions <= guest.known else None

    def room(self, places: tuple[tuple[str, str], ...], n: int, there: str) -> bool:
        guest, host = self.fleet.guests[n], self.hosts[there]
        used = sum(
            other.memory
            for other, (at, _) in zip(self.fleet.guests, places, strict=True)
            if at == there
        )
        if used + guest.memory > host.memory:
            return False
        if guest.only and there not in guest.only and host.domain not in guest.only:
            return False
        if there in guest.never or host.domain in guest.never:
            return False
        for m, (other, (at, _)) in enumerate(zip(self.fleet.guests, places, strict=True)):
            if m != n and guest.apart and other.apart == guest.apart:
                if at == there:
                    return False
                wide = guest.scope is Scope.DOMAIN and host.domain
                if wide and self.hosts[at].domain == host.domain:
                    return False
        return True

    def somewhere(
        self, places: tuple[tuple[str, str], ...], waiting: frozenset[str], n: int
    ) -> bool:
        guest, (here, birth) = self.fleet.guests[n], places[n]
        return any(
            there != here
            and self.way(guest, birth, self.build(waiting, here), self.build(waiting, there))
            and self.room(places, n, there)
            for there in self.hosts
        )

    def after(self, state: State) -> Iterator[tuple[Cost, State]]:
        places, waiting, entries = state
        for n, guest in enumerate(self.fleet.guests):
            here, birth = places[n]
            for there in self.hosts:
                if there == here or not self.room(places, n, there):
                    continue
                old, new = self.build(waiting, here), self.build(waiting, there)
                moved = (*places[:n], (there, birth), *places[n + 1 :])
                if self.empty(moved, set()) < self.limits.spare:
                    continue
                way, back = self.way(guest, birth, old, new), self.way(guest, birth, new, old)
                if way is not None and (back is not None or not self.limits.keep_way_back):
                    used = entries | way.entries
                    yield (
                        Cost(
                            visible=int(way.visible),
                            entries=len(used) - len(entries),
                            moves=1,
                            early=0 if back is not None else len(waiting),
                        ),
                        (moved, waiting, used),
                    )
                born = self.fleet.class_of(new, guest.kind)
                if born is not None:
                    anew = (*places[:n], (there, born), *places[n + 1 :])
                    yield Cost(restarts=1), (anew, waiting, entries)
        for size in range(1, min(self.limits.wave, len(waiting)) + 1):
            for chosen in combinations(sorted(waiting), size):
                yield from self.upgrade(state, set(chosen))

    def upgrade(self, state: State, chosen: set[str]) -> Iterator[tuple[Cost, State]]:
        places, waiting, entries = state
        if self.empty(places, chosen) < self.limits.spare:
            return
        left = waiting - chosen
        after = list(places)
        restarts = 0
        for n, (here, _) in enumerate(places):
            if here in chosen:
                born = self.fleet.class_of(self.build(left, here), self.fleet.guests[n].kind)
                if born is None:
                    return
                after[n] = here, born
                restarts += 1
        result = tuple(after)
        if all(n in self.exempt or self.somewhere(result, left, n) for n in range(len(after))):
            yield Cost(restarts=restarts, waves=1), (result, left, entries)
