"""A plan for a fleet of any size: wave by wave, each host emptied in the cheapest way at hand.

Hosts that are empty come first, then those with little on them; those with guests that could not
come back come last. A guest goes where it never has to move again; only when no host at all can be
emptied so does one guest-load move onto hosts that still wait, and only then is a guest restarted
that could have moved. Keeps every hard constraint; whether the result is the least possible is for
`bounds` to say.
"""

from dataclasses import dataclass, field
from itertools import islice

from armferry.fleet.plan.bounds import lower_bound
from armferry.fleet.plan.guest_kinds import Kinds, Leaving
from armferry.fleet.plan.ledger import Ledger, PoolKey
from armferry.fleet.plan.model import (
    Cost,
    Limits,
    Move,
    NoPlan,
    PlanFleet,
    Restart,
    Solution,
    Step,
    Wave,
    Ways,
)

__all__ = ["plan_by_waves"]

_IN_VAIN = 64
"""Hosts in a row that cannot be emptied, after which a wave is closed."""
_TRIED = 500
"""Hosts that are tried one by one when no wave can be made in the cheapest way."""
_NAMED = 5


def plan_by_waves(fleet: PlanFleet, ways: Ways, limits: Limits) -> Solution:
    """A plan that keeps the hard constraints. Raises NoPlan where none is found like this."""
    return _Planner(fleet, ways, limits).run()


@dataclass
class _Deed:
    """What was done for a wave so far, so that it can be undone."""

    steps: list[Step] = field(default_factory=list)
    undo: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(guest, host before, kind before, host afterwards) of each step."""


class _Planner:
    def __init__(self, fleet: PlanFleet, ways: Ways, limits: Limits) -> None:
        self._fleet, self._limits = fleet, limits
        self._kinds = Kinds(fleet, ways, limits)
        self._ledger = Ledger(fleet, self._kinds)
        self._targets = {host.target for host in fleet.hosts}
        self._entries: set[str] = set()
        self._options: dict[object, tuple[tuple[int, int], list[PoolKey]]] = {}
        self._costs = dict.fromkeys(("restarts", "visible", "moves", "early"), 0)
        self._left = sum(host.target is not None for host in fleet.hosts)
        self._refused = ""

    def run(self) -> Solution:
        ledger, limits = self._ledger, self._limits
        if ledger.empty < limits.spare:
            raise NoPlan(
                f"{limits.spare} spare hosts are to hold no guest, and {ledger.empty} of "
                f"{len(ledger.hosts)} do not: empty some, or give a smaller --spare"
            )
        bound = lower_bound(
            self._kinds,
            (
                (kind, build, sum(ledger.waiting[ledger.where[guest]] for guest in guests))
                for (kind, build), guests in list(ledger.groups.items())
            ),
            self._left,
            limits,
        )
        queue = sorted(
            (n for n, host in enumerate(ledger.hosts) if host.target is not None), key=self._rank
        )
        waves = []
        while queue:
            wave, hosts = self._wave(queue)
            waves.append(wave)
            done = set(hosts)
            queue = [host for host in queue if host not in done]
        cost = Cost(**self._costs, entries=len(self._entries), waves=len(waves))
        return Solution(tuple(waves), cost, bound)

    def _rank(self, host: int) -> tuple[int, bool, int, int]:
        """Whose guests need hosts that wait as a stepping stone goes before those are gone."""
        ledger = self._ledger
        target, content = ledger.hosts[host].target, ledger.content[host]
        assert target is not None
        stuck = sum(
            self._kinds.one_way(ledger.kind[guest], ledger.build[host], target) for guest in content
        )
        steps = any(
            self._kinds.leaving(ledger.kind[guest], ledger.build[host]).moves > 1
            for guest in content
        )
        return stuck, not steps, len(content), ledger.hosts[host].memory - ledger.free[host]

    def _wave(self, queue: list[int]) -> tuple[Wave, list[int]]:
        """The next wave; as many hosts as can be emptied at the least cost, else one."""
        at_once = self._limits.wave
        while at_once:
            deed, hosts = _Deed(), []
            in_vain = 0
            for host in queue:
                if self._empty(host, deed, strict=True):
                    hosts.append(host)
                    in_vain = 0
                else:
                    in_vain += 1
                if len(hosts) == at_once or in_vain == _IN_VAIN:
                    break
            if not hosts:
                break
            if self._commit(hosts, deed):
                return self._made(hosts, deed), hosts
            at_once = len(hosts) // 2
        for way in ("strict", "again", "restart"):
            by_load = sorted(queue, key=lambda host: len(self._ledger.content[host]))
            for host in by_load[:_TRIED]:
                deed = _Deed()
                done = self._empty(host, deed, strict=way == "strict", restart=way == "restart")
                if done and self._commit([host], deed):
                    return self._made([host], deed), [host]
        raise NoPlan(
            f"no host of the {len(queue)} that wait can be upgraded next: "
            + (self._refused or "no room is left to empty one")
            + "; free memory, allow fewer --spare hosts or add a host"
        )

    def _empty(self, host: int, deed: _Deed, *, strict: bool, restart: bool = False) -> bool:
        """Empties a host for this wave, or leaves everything as it is."""
        ledger, spare = self._ledger, self._limits.spare
        if not ledger.content[host] and ledger.empty <= spare:
            return False
        before = len(deed.steps)
        ledger.set_aside(host)
        memory = ledger.fleet.guests
        for guest in sorted(ledger.content[host], key=lambda guest: -memory[guest].memory):
            if not self._clear(guest, host, deed, strict=strict, restart=restart):
                self._undo(deed, before)
                ledger.put_back(host)
                return False
        return True

    def _clear(self, guest: int, host: int, deed: _Deed, *, strict: bool, restart: bool) -> bool:
        """One guest leaves a host, or is restarted with it."""
        ledger, kinds = self._ledger, self._kinds
        kind, build = ledger.kind[guest], ledger.build[host]
        target = ledger.hosts[host].target
        assert target is not None
        if not kinds.leaving(kind, build).restarts:
            for key in self._ways_out(kind, build, strict=strict):
                destination = ledger.find(guest, key, spare=self._limits.spare)
                if destination is not None:
                    self._record(deed, guest, Move, destination)
                    ledger.move(guest, destination)
                    return True
            if not restart:
                return False
        born = kinds.restarted(kind, target)
        if born is not None:
            self._record(deed, guest, Restart, host)
            ledger.rebirth(guest, born)
            return True
        for key in sorted(ledger.pools, key=lambda key: key[1]):
            born = kinds.restarted(kind, key[0])
            destination = ledger.find(guest, key, spare=self._limits.spare)
            if born is not None and destination is not None:
                self._record(deed, guest, Restart, destination)
                ledger.move(guest, destination, born)
                return True
        return False

    def _record(
        self, deed: _Deed, guest: int, step: type[Move] | type[Restart], destination: int
    ) -> None:
        ledger = self._ledger
        source = ledger.where[guest]
        names = ledger.fleet.guests[guest].name, ledger.hosts[source].name
        deed.steps.append(step(*names, ledger.hosts[destination].name))
        deed.undo.append((guest, source, ledger.kind[guest], destination))

    def _undo(self, deed: _Deed, down_to: int) -> None:
        ledger = self._ledger
        while len(deed.undo) > down_to:
            guest, host, kind, destination = deed.undo.pop()
            deed.steps.pop()
            if destination == host:
                ledger.rebirth(guest, kind)
            else:
                ledger.move(guest, host, kind)

    def _ways_out(self, kind: int, build: str, *, strict: bool) -> list[PoolKey]:
        """The pools for a guest to go to, the cheapest first.

        Strictly: only those from which it gets on at the least cost that is possible at all.
        """
        kinds = self._kinds
        age = len(self._ledger.pools), len(self._entries)
        least = kinds.leaving(kind, build)
        like = kinds.kinds[kind].like
        alike = kinds.origin[kind], like.only, like.never, build, least if strict else None
        known = self._options.get(alike)
        if known is not None and known[0] == age:
            return known[1]
        found = []
        ways = (
            ((build, waiting), way)
            for build, way in kinds.moves_from(kind, build)
            for waiting in (False, True)
            if (build, waiting) in self._ledger.pools
        )
        for key, way in ways:
            after = kinds.leaving(kind, key[0]) if key[1] else Leaving(0, 0, 0)
            cost = Leaving(after.restarts, after.visible + way.visible, after.moves + 1)
            if not strict or cost == least:
                new = len(way.entries - self._entries)
                # hosts that stay as they are may be the only ones for somebody else
                found.append(((cost[:2], new, cost.moves, key[0] not in self._targets), key))
        keys = [key for _, key in sorted(found)]
        self._options[alike] = age, keys
        return keys

    def _commit(self, hosts: list[int], deed: _Deed) -> bool:
        """Upgrades the hosts, unless a guest would have nowhere to go; then all is undone."""
        ledger = self._ledger
        for host in hosts:
            target = ledger.hosts[host].target
            assert target is not None
            ledger.rebuild(host, target, waiting=False)
            ledger.put_back(host)
        stranded = list(islice(ledger.stranded(), _NAMED))
        if not stranded and ledger.empty >= self._limits.spare:
            return True
        if stranded:
            names = ", ".join(ledger.fleet.guests[guest].name for guest in stranded)
            self._refused = f"{names} would have nowhere to go afterwards"
        for host in hosts:
            ledger.set_aside(host)
            ledger.rebuild(host, ledger.hosts[host].build, waiting=True)
        self._undo(deed, 0)
        for host in hosts:
            ledger.put_back(host)
        return False

    def _made(self, hosts: list[int], deed: _Deed) -> Wave:
        """A wave that stays, with its cost counted; what cannot be undone comes last in it."""
        kinds, ledger, costs = self._kinds, self._ledger, self._costs
        upgraded = set(hosts)
        last: list[Step] = []
        first: list[Step] = []
        for step, (_, source, kind, destination) in zip(deed.steps, deed.undo, strict=True):
            if isinstance(step, Restart):
                costs["restarts"] += 1
                first.append(step)
                continue
            # what is upgraded in this wave was not yet when the guest went
            here, there = (
                ledger.hosts[host].build if host in upgraded else ledger.build[host]
                for host in (source, destination)
            )
            way = kinds.may_move(kind, here, there)
            self._entries |= way.entries
            costs["moves"] += 1
            costs["visible"] += way.visible
            one_way = kinds.one_way(kind, here, there)
            costs["early"] += one_way * self._left
            (last if one_way else first).append(step)
        self._left -= len(hosts)
        # the order matters only where one step makes room for the next
        moved = [guest for guest, *_ in deed.undo]
        free = len(set(moved)) == len(moved) and not any(
            ledger.fleet.guests[guest].apart for guest in moved
        )
        steps = first + last if free else deed.steps
        return Wave(tuple(steps), tuple(ledger.hosts[host].name for host in hosts))
