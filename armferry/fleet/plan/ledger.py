"""A fleet while a plan is made: who is where, what is free, and who could go somewhere.

Hosts that a guest does not tell apart (the same build, waiting for their upgrade or not) are one
pool, in which a host is found by its free memory without a look at the others.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from armferry.fleet.plan.guest_kinds import Kinds
from armferry.fleet.plan.model import PlanFleet, Scope
from armferry.fleet.plan.pool import Pool

__all__ = ["Ledger", "PoolKey"]

PoolKey = tuple[str, bool]
"""A build, and whether its hosts still wait for their upgrade."""
_Unsure = int | tuple[int, str]
"""A guest that is kept apart from others, or all guests of a kind on hosts of a build."""
_WITNESSES = 2
"""With so many hosts to go to, a guest that stands on one of them has another."""


class Ledger:
    """The state of a fleet, changed step by step. Hosts and guests are numbers here.

    `free` is the memory left on each host, `empty` how many hosts outside of the wave hold no
    guest, `groups` the guests of each kind on hosts of each build, `exempt` the guests that had
    nowhere to go when the plan began.
    """

    def __init__(self, fleet: PlanFleet, kinds: Kinds) -> None:
        self.fleet, self.kinds = fleet, kinds
        self.hosts = fleet.hosts
        self._named: dict[str, list[int]] = {}
        numbers: dict[str, int] = {}
        for number, host in enumerate(fleet.hosts):
            numbers[host.name] = number
            for name in {host.name, host.domain} - {""}:
                self._named.setdefault(name, []).append(number)
        self.build = [host.build for host in fleet.hosts]
        self.waiting = [host.target is not None for host in fleet.hosts]
        self.free = [host.memory for host in fleet.hosts]
        self.content: list[list[int]] = [[] for _ in fleet.hosts]
        self.where = [numbers[guest.host] for guest in fleet.guests]
        self.kind = [kinds.number(guest, exempt=False) for guest in fleet.guests]
        self.groups: dict[tuple[int, str], set[int]] = {}
        self._relying: dict[int, set[_Unsure]] = {}
        self._touched: set[int] = set()
        self._sure: set[tuple[int, str]] = set()
        self._unsure: set[_Unsure] = set()
        self._mates: dict[str, list[int]] = {}
        for number, one in enumerate(fleet.guests):
            if one.apart:
                self._mates.setdefault(one.apart, []).append(number)
        self._shared: Counter[tuple[str, object]] = Counter()
        self._apart = {n: guest for n, guest in enumerate(fleet.guests) if guest.apart}
        for guest, place in enumerate(self.where):
            self._enter(guest, place)
        self.pools: dict[PoolKey, Pool] = {}
        self._out: set[int] = set()
        self.empty = 0
        for number in range(len(self.hosts)):
            self._into_pool(number)
        self._open: dict[tuple[int, str], tuple[int, list[PoolKey]]] = {}
        self.exempt: Sequence[int] = list(dict.fromkeys(self.stranded()))
        for guest in self.exempt:
            self.rebirth(guest, kinds.number(fleet.guests[guest], exempt=True))

    # who is where

    def _enter(self, guest: int, host: int) -> None:
        self.content[host].append(guest)
        self.where[guest] = host
        self.free[host] -= self.fleet.guests[guest].memory
        self._group(guest, self.build[host])
        self._touched.add(host)
        if guest in self._apart:
            self._shared[self._apart[guest].apart, self._shares(guest, host)] += 1

    def _leave(self, guest: int) -> None:
        host = self.where[guest]
        self.content[host].remove(guest)
        self.free[host] += self.fleet.guests[guest].memory
        self._ungroup(guest, self.build[host])
        if guest in self._apart:
            self._shared[self._apart[guest].apart, self._shares(guest, host)] -= 1

    def _group(self, guest: int, build: str) -> None:
        key = self.kind[guest], build
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = set()
        group.add(guest)
        if key not in self._sure:
            self._unsure.add(key)
        if guest in self._apart:
            self._unsure.update(self._mates[self._apart[guest].apart])

    def _ungroup(self, guest: int, build: str) -> None:
        group = self.groups[self.kind[guest], build]
        group.remove(guest)
        if not group:
            del self.groups[self.kind[guest], build]

    def _shares(self, guest: int, host: int) -> object:
        if self._apart[guest].scope is Scope.HOST:
            return host
        # a host without a domain is one of its own
        return self.hosts[host].domain or host

    def _into_pool(self, host: int) -> None:
        key = self.build[host], self.waiting[host]
        empty = not self.content[host]
        self.pools.setdefault(key, Pool()).add(host, self.free[host], empty=empty)
        self.empty += empty

    def _out_of_pool(self, host: int) -> None:
        empty = not self.content[host]
        key = self.build[host], self.waiting[host]
        self.pools[key].remove(host, self.free[host], empty=empty)
        self.empty -= empty

    def set_aside(self, host: int) -> None:
        """Nothing is put on a host from now on: it is of this wave."""
        self._out_of_pool(host)
        self._out.add(host)

    def put_back(self, host: int) -> None:
        """The opposite of `set_aside`."""
        self._out.remove(host)
        self._into_pool(host)

    def move(self, guest: int, destination: int, kind: int | None = None) -> None:
        """A guest goes to another host; it becomes one of `kind` there if it was restarted."""
        touched = [one for one in (self.where[guest], destination) if one not in self._out]
        for host in touched:
            self._out_of_pool(host)
        self._leave(guest)
        if kind is not None:
            self.kind[guest] = kind
        self._enter(guest, destination)
        for host in touched:
            self._into_pool(host)

    def rebirth(self, guest: int, kind: int) -> None:
        """A guest is restarted where it is."""
        build = self.build[self.where[guest]]
        self._ungroup(guest, build)
        self.kind[guest] = kind
        self._group(guest, build)

    def rebuild(self, host: int, build: str, *, waiting: bool) -> None:
        """A host that was set aside has another build now."""
        for guest in self.content[host]:
            self._ungroup(guest, self.build[host])
            self._group(guest, build)
        self.build[host], self.waiting[host] = build, waiting
        self._touched.add(host)

    # who could go where

    def fits(self, guest: int, host: int) -> bool:
        """Whether a guest may stand on another host: room, pins, and whom it is kept apart from."""
        mine = self.fleet.guests[guest]
        if host == self.where[guest] or host in self._out or self.free[host] < mine.memory:
            return False
        if (mine.only or mine.never) and not mine.may_run_on(self.hosts[host]):
            return False
        if not mine.apart:
            return True
        place = self._shares(guest, host)
        stays = place == self._shares(guest, self.where[guest])
        return self._shared[mine.apart, place] <= stays

    def find(self, guest: int, key: PoolKey, *, spare: int = 0) -> int | None:
        """The fullest host of a pool that a guest may stand on, with `spare` hosts left empty."""
        mine = self.fleet.guests[guest]
        empty_too = self.empty > spare
        if mine.only:
            return next(
                (
                    host
                    for host in self._pinned(mine.only)
                    if (self.build[host], self.waiting[host]) == key
                    and (empty_too or self.content[host])
                    and self.fits(guest, host)
                ),
                None,
            )
        pool = self.pools.get(key)
        if pool is None:
            return None
        found = pool.fullest_first(mine.memory, empty_too=empty_too)
        return next((host for host in found if self.fits(guest, host)), None)

    def _pinned(self, names: frozenset[str]) -> Iterator[int]:
        for name in sorted(names):
            yield from self._named.get(name, ())

    def stranded(self) -> Iterator[int]:
        """Guests that could go nowhere now, though they could when the plan began.

        Looked at are those only for which something changed since they were seen to have a place.
        """
        self._doubt()
        for key in list(self._unsure):
            if isinstance(key, int):
                kind, build = self.kind[key], self.build[self.where[key]]
                without = [] if self._has_place(key, kind, build) else [key]
            elif key not in self.groups:
                without = []
            else:
                kind, build = key
                without = list(self._without_place(kind, build))
            if without and not self.kinds.kinds[kind].exempt:
                yield from without
            else:
                self._unsure.discard(key)

    def _doubt(self) -> None:
        """Adds to the unsure those whose place was on a host that changed, and is none any more."""
        for host in self._touched:
            for key in list(self._relying.get(host, ())):
                if isinstance(key, int):
                    kind, build = self.kind[key], self.build[self.where[key]]
                    kept = self.fits(key, host)
                else:
                    kind, build = key
                    kept = self.free[host] >= self.kinds.kinds[kind].like.memory
                if not kept or not self.kinds.way(kind, build, self.build[host]).allowed:
                    self._relying[host].discard(key)
                    self._unsure.add(key)
                    if not isinstance(key, int):
                        self._sure.discard(key)
        self._touched = set()

    def _without_place(self, kind: int, build: str) -> Iterator[int]:
        """Guests of a kind that have no place; two hosts that take one are a place for each."""
        like, hosts = self.kinds.kinds[kind].like, []
        if self.kinds.kinds[kind].exempt:
            return
        for host in self._hosts_for(kind, build):
            suits = not (like.only or like.never) or like.may_run_on(self.hosts[host])
            if suits and self.free[host] >= like.memory and host not in self._out:
                hosts.append(host)
                self._relying.setdefault(host, set()).add((kind, build))
                if len(hosts) == _WITNESSES:
                    self._sure.add((kind, build))
                    return
        for guest in sorted(self.groups[kind, build]):
            if not hosts or hosts == [self.where[guest]]:
                yield guest

    def _has_place(self, guest: int, kind: int, build: str) -> bool:
        for host in self._hosts_for(kind, build):
            if self.fits(guest, host):
                self._relying.setdefault(host, set()).add(guest)
                return True
        return False

    def _hosts_for(self, kind: int, build: str) -> Iterator[int]:
        """Hosts that a guest of a kind could go to, if there is room."""
        like = self.kinds.kinds[kind].like
        keys = self.pools_open_to(kind, build)
        if like.only:
            wanted = set(keys)
            for host in self._pinned(like.only):
                if (self.build[host], self.waiting[host]) in wanted:
                    yield host
            return
        for key in keys:
            yield from self.pools[key].emptiest_first(like.memory)

    def pools_open_to(self, kind: int, build: str) -> list[PoolKey]:
        """The pools that a guest of a kind, on a host of `build`, could move to."""
        origin = self.kinds.origin[kind]
        known = self._open.get((origin, build))
        if known is None or known[0] != len(self.pools):
            keys = [
                (other, waiting)
                for other in self.kinds.ways_from(kind, build)
                for waiting in (False, True)
                if (other, waiting) in self.pools
            ]
            known = self._open[origin, build] = len(self.pools), keys
        return known[1]
