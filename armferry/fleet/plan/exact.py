"""The least costly plan of a small fleet, by search (A*) over everything that can be done.

A state is what stands where; a step takes one guest elsewhere, or upgrades some hosts at once.
States that differ only in which of several hosts or guests that are alike is which are one. What
each guest costs at least, alone, is the bound that guides the search.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, count

from armferry.fleet.plan.guest_kinds import Kinds
from armferry.fleet.plan.ledger import Ledger
from armferry.fleet.plan.model import (
    Cost,
    Limits,
    Move,
    PlanFleet,
    Restart,
    Scope,
    Solution,
    Step,
    Wave,
    Way,
    Ways,
)
from armferry.fleet.plan.price import EARLY, ENTRY, MOVE, RESTART, VISIBLE, WAVE, cost_of, price_of

__all__ = ["TooLarge", "plan_exactly"]


class TooLarge(Exception):
    """The search was given up; nothing is known."""


Content = tuple[int, ...]
"""Tokens of the guests on a host, in rising order."""
Stand = tuple[tuple[bool, Content], ...]
"""Of each host: whether it still waits for its upgrade, and what is on it."""


@dataclass(frozen=True, slots=True)
class _Node:
    stand: Stand
    entries: int
    before: "_Node | None"
    deed: "tuple[str, int, int, int] | tuple[str, tuple[int, ...]]"


def plan_exactly(
    fleet: PlanFleet, ways: Ways, limits: Limits, *, states: int, below: Cost | None = None
) -> Solution | None:
    """The least costly plan; None when there is none (none below `below`, where that is given).

    Raises TooLarge when more than `states` states would have to be looked at.
    """
    return _Search(fleet, ways, limits).run(states, below)


class _Search:
    def __init__(self, fleet: PlanFleet, ways: Ways, limits: Limits) -> None:
        self._fleet, self._limits = fleet, limits
        self._kinds = Kinds(fleet, ways, limits)
        self._ledger = Ledger(fleet, self._kinds)
        self._tokens: dict[tuple[int, str, Scope], int] = {}
        self._of_token: list[tuple[int, str, Scope]] = []
        self._masks: dict[frozenset[str], int] = {}
        self._bits: dict[str, int] = {}
        self._born: dict[tuple[int, str], int | None] = {}
        self._pinned: dict[tuple[int, int], bool] = {}
        self._hosts = fleet.hosts
        self._alike = self._ranges()
        self._group = {number: group for group in self._alike for number in group}
        self._prices: dict[tuple[int, int], int] = {}
        self._sizes: dict[Content, int] = {}

    def _ranges(self) -> list[list[int]]:
        """Numbers of hosts that are alike, group by group."""
        named = {name for guest in self._fleet.guests for name in guest.only | guest.never}
        domains = any(guest.scope is Scope.DOMAIN for guest in self._fleet.guests if guest.apart)
        groups: dict[object, list[int]] = {}
        for number, host in enumerate(self._hosts):
            key = (
                host.build,
                host.target,
                host.memory,
                host.name if host.name in named or (domains and not host.domain) else "",
                host.domain if host.domain in named or domains else "",
            )
            groups.setdefault(key, []).append(number)
        return list(groups.values())

    def _token(self, kind: int, apart: str, scope: Scope) -> int:
        key = kind, apart, scope
        known = self._tokens.get(key)
        if known is None:
            known = self._tokens[key] = len(self._of_token)
            self._of_token.append(key)
        return known

    def _restarted(self, token: int, build: str) -> int | None:
        key = token, build
        if key not in self._born:
            kind, apart, scope = self._of_token[token]
            born = self._kinds.restarted(kind, build)
            self._born[key] = None if born is None else self._token(born, apart, scope)
        return self._born[key]

    def _mask(self, entries: frozenset[str]) -> int:
        known = self._masks.get(entries)
        if known is None:
            known = 0
            for entry in entries:
                known |= 1 << self._bits.setdefault(entry, len(self._bits))
            self._masks[entries] = known
        return known

    def run(self, states: int, below: Cost | None) -> Solution | None:
        start = self._start()
        if self._empty(start) < self._limits.spare:
            return None
        ceiling = None if below is None else price_of(below)
        tie = count()
        least = {self._key(start, 0): 0}
        root = _Node(start, 0, None, ("", ()))
        queue = [(self._still(start), 0, next(tie), 0, root)]
        bound = cost_of(queue[0][0])
        seen = set()
        while queue:
            estimate, _, _, spent, node = heapq.heappop(queue)
            if ceiling is not None and estimate >= ceiling:
                return None
            key = self._key(node.stand, node.entries)
            if key in seen or not self._valid(node):
                continue
            seen.add(key)
            if not any(waits for waits, _ in node.stand):
                cost = cost_of(spent)
                waves = _Names(self, node).waves()
                return Solution(waves, cost, bound, exhausted=True, examined=len(seen))
            if len(seen) > states:
                raise TooLarge
            for price, after in self._after(node):
                total = spent + price
                key = self._key(after.stand, after.entries)
                if key in seen or total >= least.get(key, total + 1):
                    continue
                if len(after.deed) == 4:
                    # an upgrade is judged when its turn comes: most never have one
                    least[key] = total
                estimate = total + self._still(after.stand)
                if ceiling is None or estimate < ceiling:
                    heapq.heappush(queue, (estimate, -total, next(tie), total, after))
        return None

    def _start(self) -> Stand:
        ledger = self._ledger
        on: list[list[int]] = [[] for _ in self._hosts]
        for number, guest in enumerate(self._fleet.guests):
            scope = guest.scope if guest.apart else Scope.HOST
            token = self._token(ledger.kind[number], guest.apart, scope)
            on[ledger.where[number]].append(token)
        return tuple(
            (host.target is not None, tuple(sorted(tokens)))
            for host, tokens in zip(self._hosts, on, strict=True)
        )

    def _key(self, stand: Stand, entries: int) -> object:
        if len(self._alike) == len(stand):
            return entries, stand
        return entries, tuple(
            stand[group[0]] if len(group) == 1 else tuple(sorted(stand[n] for n in group))
            for group in self._alike
        )

    def _still(self, stand: Stand) -> int:
        """What it takes from here at least."""
        price = waiting = 0
        for number, (waits, content) in enumerate(stand):
            if waits:
                waiting += 1
                for token in content:
                    price += self._price_alone(token, number)
        return price + -(-waiting // self._limits.wave) * WAVE

    def _price_alone(self, token: int, number: int) -> int:
        key = token, number
        price = self._prices.get(key)
        if price is None:
            kind, build = self._of_token[token][0], self._hosts[number].build
            least = self._kinds.leaving(kind, build)
            price = least.restarts * RESTART + least.visible * VISIBLE + least.moves * MOVE
            self._prices[key] = price
        return price

    def _build(self, stand: Stand, number: int) -> str:
        host = self._hosts[number]
        return host.build if stand[number][0] or host.target is None else host.target

    def _memory(self, token: int) -> int:
        return self._kinds.kinds[self._of_token[token][0]].like.memory

    def _free(self, stand: Stand, number: int) -> int:
        content = stand[number][1]
        size = self._sizes.get(content)
        if size is None:
            size = self._sizes[content] = sum(map(self._memory, content))
        return self._hosts[number].memory - size

    @staticmethod
    def _empty(stand: Stand) -> int:
        return sum(not content for _, content in stand)

    def _may_stand(self, stand: Stand, token: int, here: int, there: int) -> bool:
        """Pins, and whom it is kept apart from."""
        key = token, there
        pinned = self._pinned.get(key)
        kind, apart, scope = self._of_token[token]
        if pinned is None:
            like = self._kinds.kinds[kind].like
            pinned = self._pinned[key] = like.may_run_on(self._hosts[there])
        if not pinned or not apart:
            return pinned
        near = [
            number
            for number, host in enumerate(self._hosts)
            if number == there
            or (scope is Scope.DOMAIN and host.domain and host.domain == self._hosts[there].domain)
        ]
        mates = sum(self._of_token[one][1] == apart for n in near for one in stand[n][1])
        return mates <= (here in near)

    def _after(self, node: _Node) -> Iterator[tuple[int, _Node]]:
        yield from self._guest_steps(node)
        yield from self._upgrades(node)

    def _guest_steps(self, node: _Node) -> Iterator[tuple[int, _Node]]:
        stand = node.stand
        waiting = sum(waits for waits, _ in stand)
        targets = list(self._distinct(stand))
        for here in self._distinct(stand):
            build = self._build(stand, here)
            for token in dict.fromkeys(stand[here][1]):
                others = targets
                if any(stand[here] == stand[n] and n != here for n in self._group[here]):
                    # another host like this one may be where the guest goes
                    twin = next(
                        n for n in self._group[here] if n != here and stand[n] == stand[here]
                    )
                    others = [*targets, twin]
                for there in others:
                    if there == here or self._free(stand, there) < self._memory(token):
                        continue
                    if not self._may_stand(stand, token, here, there):
                        continue
                    yield from self._to(node, token, here, there, build, waiting)

    def _distinct(self, stand: Stand) -> Iterator[int]:
        for group in self._alike:
            yield from {stand[number]: number for number in reversed(group)}.values()

    def _to(
        self, node: _Node, token: int, here: int, there: int, build: str, waiting: int
    ) -> Iterator[tuple[int, _Node]]:
        kind = self._of_token[token][0]
        destination = self._build(node.stand, there)
        way = self._kinds.may_move(kind, build, destination)
        if way.allowed:
            stand = _placed(node.stand, token, here, token, there)
            if self._empty(stand) >= self._limits.spare:
                price, entries = self._price_of(node, way)
                price += waiting * EARLY * self._kinds.one_way(kind, build, destination)
                yield price, _Node(stand, entries, node, ("move", token, here, there))
        born = self._restarted(token, destination)
        if born is not None:
            stand = _placed(node.stand, token, here, born, there)
            if self._empty(stand) >= self._limits.spare:
                yield RESTART, _Node(stand, node.entries, node, ("restart", token, here, there))

    def _price_of(self, node: _Node, way: Way) -> tuple[int, int]:
        entries = node.entries | self._mask(way.entries)
        new = entries.bit_count() - node.entries.bit_count()
        return MOVE + way.visible * VISIBLE + new * ENTRY, entries

    def _upgrades(self, node: _Node) -> Iterator[tuple[int, _Node]]:
        stand = node.stand
        waiting = [number for number, (waits, _) in enumerate(stand) if waits]
        tried = set()
        for size in range(1, min(len(waiting), self._limits.wave) + 1):
            for chosen in combinations(waiting, size):
                after, price = list(stand), WAVE
                for number in chosen:
                    target = self._hosts[number].target
                    assert target is not None
                    content = stand[number][1]
                    born = [self._restarted(token, target) for token in content]
                    if None in born:
                        break
                    price += len(content) * RESTART
                    after[number] = False, tuple(sorted(one for one in born if one is not None))
                else:
                    result = tuple(after)
                    key = self._key(result, 0)
                    if key in tried:
                        continue
                    if len(self._alike) < len(stand):
                        tried.add(key)
                    up = sum(not on for n, (_, on) in enumerate(stand) if n not in chosen)
                    if up >= self._limits.spare:
                        yield price, _Node(result, node.entries, node, ("upgrade", chosen))

    def _valid(self, node: _Node) -> bool:
        """Whether no guest is stranded by the upgrade that led here, if it was one."""
        return len(node.deed) == 4 or node.before is None or self._all_can_leave(node.stand)

    def _all_can_leave(self, stand: Stand) -> bool:
        return all(
            self._kinds.kinds[self._of_token[token][0]].exempt or self._can_leave(stand, token, n)
            for n, (_, content) in enumerate(stand)
            for token in dict.fromkeys(content)
        )

    def _can_leave(self, stand: Stand, token: int, here: int) -> bool:
        kind, build = self._of_token[token][0], self._build(stand, here)
        return any(
            there != here
            and self._kinds.way(kind, build, self._build(stand, there)).allowed
            and self._free(stand, there) >= self._memory(token)
            and self._may_stand(stand, token, here, there)
            for there in range(len(self._hosts))
        )


def _placed(stand: Stand, gone: int, here: int, come: int, there: int) -> Stand:
    after = list(stand)
    waits, content = stand[here]
    at = content.index(gone)
    after[here] = waits, content[:at] + content[at + 1 :]
    waits, content = stand[there]
    after[there] = waits, tuple(sorted((*content, come)))
    return tuple(after)


class _Names:
    """A path of states, told as steps of real guests."""

    def __init__(self, search: _Search, end: _Node) -> None:
        self._search = search
        self._path: list[_Node] = []
        node: _Node | None = end
        while node is not None and node.before is not None:
            self._path.append(node)
            node = node.before
        self._path.reverse()
        fleet, start = search._fleet, search._start()
        self._on: list[list[tuple[int, str]]] = [[] for _ in start]
        numbers = {host.name: n for n, host in enumerate(fleet.hosts)}
        for number, guest in enumerate(fleet.guests):
            scope = guest.scope if guest.apart else Scope.HOST
            token = search._token(search._ledger.kind[number], guest.apart, scope)
            self._on[numbers[guest.host]].append((token, guest.name))

    def waves(self) -> tuple[Wave, ...]:
        waves: list[Wave] = []
        steps: list[Step] = []
        hosts = self._search._hosts
        for node in self._path:
            if len(node.deed) == 2:
                chosen = node.deed[1]
                for number in chosen:
                    steps += self._restarts(number)
                waves.append(Wave(tuple(steps), tuple(hosts[number].name for number in chosen)))
                steps = []
                continue
            word, token, here, there = node.deed
            guest = next(pair for pair in self._on[here] if pair[0] == token)
            self._on[here].remove(guest)
            after = token
            if word == "restart":
                assert node.before is not None
                born = self._search._restarted(token, self._search._build(node.before.stand, there))
                assert born is not None
                after = born
            self._on[there].append((after, guest[1]))
            make = Move if word == "move" else Restart
            steps.append(make(guest[1], hosts[here].name, hosts[there].name))
        assert not steps
        return tuple(waves)

    def _restarts(self, number: int) -> Iterator[Step]:
        """Guests that are still on a host when it is upgraded."""
        host = self._search._hosts[number]
        assert host.target is not None
        for at, (token, name) in enumerate(self._on[number]):
            born = self._search._restarted(token, host.target)
            assert born is not None
            self._on[number][at] = born, name
            yield Restart(name, host.name, host.name)
