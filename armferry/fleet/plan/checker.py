"""Whether a plan holds, step by step, for the fleet that it names.

Shares nothing with the planner but the document (docs/fleet-plan.md), so that neither can repeat
the other's mistake: a plan written by hand is checked alike. What it goes through is a diary of the
fleet: every guest's host and class of birth, every host's build and free memory.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from armferry.fleet.plan.checked import Checked

__all__ = ["Checked", "check_plan"]

_HOST = ("name", "build", "target", "memory", "domain")
_GUEST = ("name", "host", "kind", "birth", "memory", "pins")
_WAY = ("birth", "from", "to", "visible", "entries", "conditions", "armferry")
_MOST = 50
"""Faults that are told."""


def check_plan(document: Mapping[str, Any]) -> Checked:
    """Goes through a plan. Nothing is raised: what cannot be read is a fault of the plan."""
    checked = Checked()
    try:
        _Diary(document, checked).read()
    except _Enough:
        checked.faults.append("and more")
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        checked.faults.append(f"the document cannot be read: {type(error).__name__}: {error}")
    return checked


def _rows(
    fleet: Mapping[str, Any], what: str, columns: str, usual: tuple[str, ...]
) -> Iterator[Mapping[str, Any]]:
    names = fleet.get(columns) or usual
    for row in fleet[what]:
        yield row if isinstance(row, Mapping) else dict(zip(names, row, strict=False))


class _Enough(Exception):
    pass


class _Diary:
    def __init__(self, document: Mapping[str, Any], checked: Checked) -> None:
        self._document, self._checked = document, checked
        limits = document.get("limits") or {}
        self._wave_limit = int(limits.get("wave", 1))
        self._spare = int(limits.get("spare", 0))
        self._way_back = bool(limits.get("keep_way_back", False))
        fleet = document["fleet"]
        self._classes = fleet.get("classes") or {}
        self._ways: dict[tuple[str, str, str], Mapping[str, Any]] = {}
        for way in _rows(fleet, "ways", "way_columns", _WAY):
            self._ways[way["birth"], way["from"], way["to"]] = way
        self._hosts(fleet)
        self._guests(fleet)
        self._members: dict[str, set[str]] = defaultdict(set)
        for name, host in self._at.items():
            self._members[host].add(name)
        self._bare = sum(not self._members[name] for name in self._build)
        self._cost: Counter[str] = Counter()
        self._entries: set[str] = set()
        self._alike = Counter(self._likeness(name) for name in self._at if name not in self._pins)
        self._two_on: dict[str, set[tuple[str, str, str, int]]] = defaultdict(set)
        self._sure: set[tuple[str, str, str, int]] = set()
        self._touched: set[str] = set()
        self._reachable: dict[tuple[str, str, str, int], list[str]] = {}
        self._relying: dict[str, set[str]] = defaultdict(set)
        self._unsure = set(self._pins)
        self._named: dict[str, list[str]] = defaultdict(list)
        for name in self._build:
            for word in {name, self._domain[name]}:
                self._named[word].append(name)
        self._by_class: dict[str, dict[str, None]] = defaultdict(dict)
        for name, build in self._build.items():
            self._by_class[build][name] = None

    def _hosts(self, fleet: Mapping[str, Any]) -> None:
        self._build: dict[str, str] = {}
        self._target: dict[str, str] = {}
        self._free: dict[str, int] = {}
        self._domain: dict[str, str] = {}
        for host in _rows(fleet, "hosts", "host_columns", _HOST):
            name = host["name"]
            if name in self._build:
                self._fault(f"host {name} is there twice")
            self._build[name] = host["build"]
            self._free[name] = int(host.get("memory", 0))
            self._domain[name] = host.get("domain") or ""
            if host.get("target") is not None:
                self._target[name] = host["target"]

    def _guests(self, fleet: Mapping[str, Any]) -> None:
        self._at: dict[str, str] = {}
        self._birth: dict[str, str] = {}
        self._size: dict[str, int] = {}
        self._kind: dict[str, str] = {}
        self._pins: dict[str, Mapping[str, Any]] = {}
        self._groups: dict[str, list[str]] = defaultdict(list)
        for guest in _rows(fleet, "guests", "guest_columns", _GUEST):
            name = guest["name"]
            if name in self._at:
                self._fault(f"guest {name} is there twice")
            self._at[name] = guest["host"]
            self._birth[name] = guest["birth"]
            self._size[name] = int(guest.get("memory", 0))
            self._kind[name] = guest.get("kind") or ""
            pins = guest.get("pins")
            if pins:
                self._pins[name] = pins
                if pins.get("apart"):
                    self._groups[pins["apart"]].append(name)
            self._free[guest["host"]] -= self._size[name]

    def _fault(self, text: str) -> None:
        self._checked.faults.append(text)
        if len(self._checked.faults) >= _MOST:
            raise _Enough

    def read(self) -> None:
        """The whole plan."""
        self._exempt = set(self._stuck())
        self._checked.exempt = sorted(self._exempt)
        self._require_spare("before the first step", set())
        number = 0
        for at, wave in enumerate(self._document["waves"], 1):
            upgrades = list(wave.get("upgrades") or ())
            down: dict[str, list[str]] = defaultdict(list)
            for words in wave.get("steps") or ():
                number += 1
                self._step(f"step {number}", list(words), set(upgrades), down)
            number += len(upgrades)
            self._upgrade(f"wave {at}", upgrades, down)
        left = sorted(self._target)
        if left:
            more = "" if len(left) <= 5 else f" and {len(left) - 5} more"
            self._fault(f"the plan ends with {', '.join(left[:5])}{more} not upgraded")
        self._cost["entries"] = len(self._entries)
        self._cost["waves"] = len(self._document["waves"])
        names = ("restarts", "visible", "entries", "moves", "waves", "early")
        self._checked.cost = {name: self._cost[name] for name in names}
        self._checked.waves, self._checked.steps = self._cost["waves"], number
        claimed = self._document.get("cost")
        if claimed is not None and dict(claimed) != self._checked.cost:
            self._fault(f"it costs {self._checked.cost}, not {dict(claimed)} as it says")

    def _step(
        self, where: str, words: list[str], upgrades: set[str], down: dict[str, list[str]]
    ) -> None:
        if len(words) != 4 or words[0] not in ("move", "restart"):
            self._fault(f"{where}: {words} is neither move nor restart with guest, from, to")
            return
        deed, name, source, destination = words
        if name not in self._at or destination not in self._build:
            self._fault(f"{where}: {name} or {destination} is not in the fleet")
            return
        if self._at[name] != source:
            self._fault(f"{where}: {name} is on {self._at[name]} then, not on {source}")
            return
        if name in down[source]:
            self._fault(f"{where}: {name} is shut down then")
            return
        if source == destination:
            if deed == "move" or source not in upgrades:
                self._fault(f"{where}: {name} stays on {source}, which is not upgraded with it")
            else:
                down[source].append(name)
                self._cost["restarts"] += 1
            return
        self._room(where, name, destination)
        free = name not in self._pins
        self._alike[self._likeness(name)] -= free
        if deed == "move":
            self._moving(where, name, source, destination)
        else:
            self._cost["restarts"] += 1
            self._born(where, name, self._build[destination])
        self._put(name, source, destination)
        self._alike[self._likeness(name)] += free
        if down[destination]:
            self._fault(f"{where}: {destination} has guests shut down for its upgrade")
        self._require_spare(where, set())

    def _likeness(self, name: str) -> tuple[str, str, str, int]:
        """What guests without pins have in common that have the same places to go to."""
        return self._birth[name], self._kind[name], self._build[self._at[name]], self._size[name]

    def _changed(self, name: str) -> None:
        """A guest has moved or was born anew, so it may have nowhere to go."""
        if name in self._pins:
            self._unsure.add(name)
            self._unsure.update(self._groups.get(self._pins[name].get("apart") or "", ()))

    def _put(self, name: str, source: str, destination: str) -> None:
        self._changed(name)
        self._unsure |= self._relying.pop(destination, set())
        self._touched.add(destination)
        self._at[name] = destination
        self._free[source] += self._size[name]
        self._free[destination] -= self._size[name]
        self._bare -= not self._members[destination]
        self._members[source].discard(name)
        self._members[destination].add(name)
        self._bare += not self._members[source]

    def _moving(self, where: str, name: str, source: str, destination: str) -> None:
        way = self._way(name, self._build[source], self._build[destination])
        if way is None:
            self._fault(f"{where}: {name} cannot go from {source} to {destination} as they are")
            return
        self._cost["moves"] += 1
        self._cost["visible"] += bool(way.get("visible"))
        self._entries.update(way.get("entries") or ())
        if self._way(name, self._build[destination], self._build[source]) is None:
            self._checked.one_way += 1
            self._cost["early"] += len(self._target)
            if self._way_back:
                self._fault(f"{where}: {name} could not come back from {destination}")

    def _way(self, name: str, build: str, onto: str) -> Mapping[str, Any] | None:
        here, there = self._class(build, name), self._class(onto, name)
        if here is None or there is None:
            return None
        way = self._ways.get((self._birth[name], here, there))
        if way is None:
            return None
        needed = way.get("conditions")
        if needed and not set(needed) <= set(self._pins.get(name, {}).get("known") or ()):
            return None
        return way

    def _class(self, build: str, name: str) -> str | None:
        return self._class_for(build, self._kind[name])

    def _class_for(self, build: str, kind: str) -> str | None:
        if build not in self._classes:
            return build
        found = self._classes[build].get(kind)
        return None if found is None else str(found)

    def _born(self, where: str, name: str, build: str) -> None:
        birth = self._class(build, name)
        if birth is None:
            self._fault(f"{where}: {name} cannot be started on {build}")
        self._birth[name] = birth or self._birth[name]

    def _room(self, where: str, name: str, host: str) -> None:
        if self._free[host] < self._size[name]:
            self._fault(
                f"{where}: {host} has {self._free[host]} free, and {name} needs {self._size[name]}"
            )
        refused = self._pinned(name, host)
        if refused:
            self._fault(f"{where}: {name} on {host}: {refused}")

    def _pinned(self, name: str, host: str) -> str:
        """What of its pins keeps a guest from a host; empty for nothing."""
        pins = self._pins.get(name)
        if pins is None:
            return ""
        only, never = pins.get("only") or (), pins.get("never") or ()
        if only and host not in only and self._domain[host] not in only:
            return f"it may run on {', '.join(only)} only"
        if host in never or self._domain[host] in never:
            return "it may never run there"
        group = pins.get("apart")
        if group:
            wide = pins.get("scope") == "domain" and self._domain[host]
            for mate in self._groups[group]:
                there = self._at[mate]
                near = there == host or (wide and self._domain[there] == self._domain[host])
                if mate != name and near:
                    return f"it is kept apart from {mate}"
        return ""

    def _upgrade(self, where: str, upgrades: list[str], down: dict[str, list[str]]) -> None:
        most = self._wave_limit
        if len(upgrades) > most:
            self._fault(f"{where}: {len(upgrades)} hosts at once, {most} are allowed")
        self._require_spare(f"{where}, while its hosts are down", set(upgrades))
        for host in upgrades:
            target = self._target.pop(host, None)
            if target is None:
                self._fault(f"{where}: {host} is not to be upgraded, or was")
                continue
            awake = self._members[host] - set(down[host])
            if awake:
                self._fault(f"{where}: {', '.join(sorted(awake)[:5])} still on {host}")
            members = sorted(self._members[host])
            free = [name for name in members if name not in self._pins]
            self._alike.subtract(map(self._likeness, free))
            del self._by_class[self._build[host]][host]
            self._build[host] = target
            self._by_class[target][host] = None
            for name in down[host]:
                self._born(where, name, target)
            self._alike.update(map(self._likeness, free))
            self._unsure |= self._relying.pop(host, set())
            self._touched.add(host)
            for name in members:
                self._changed(name)
        for name in self._stuck():
            if name not in self._exempt:
                self._fault(f"after {where}, {name} on {self._at[name]} has nowhere to go")

    def _require_spare(self, where: str, down: set[str]) -> None:
        bare = self._bare
        if down:
            bare -= sum(not self._members[host] for host in down if host in self._build)
        if bare < self._spare:
            self._fault(f"{where}: {bare} hosts are empty, {self._spare} are to be spare")

    def _stuck(self) -> Iterator[str]:
        """Guests that could go to no other host now."""
        for host in self._touched:
            for likeness in list(self._two_on.get(host, ())):
                if not self._takes(likeness, host):
                    self._two_on[host].discard(likeness)
                    self._sure.discard(likeness)
        self._touched = set()
        for likeness in [one for one in self._alike if one not in self._sure]:
            if self._alike[likeness]:
                yield from self._stuck_alike(likeness)
            else:
                del self._alike[likeness]
        unsure, self._unsure = self._unsure, set()
        for name in sorted(unsure):
            if not self._somewhere(name, self._at[name]):
                self._unsure.add(name)
                yield name

    def _stuck_alike(self, likeness: tuple[str, str, str, int]) -> Iterator[str]:
        """Of guests without pins: with two hosts to go to, one is always another than their own."""
        found: list[str] = []
        for host in self._hosts_for(*likeness[:3]):
            if self._free[host] >= likeness[3] and self._open(likeness, self._build[host]):
                found.append(host)
                self._two_on[host].add(likeness)
                if len(found) == 2:
                    self._sure.add(likeness)
                    return
        names = self._at if not found else self._members[found[0]]
        for name in sorted(names):
            if name not in self._pins and self._likeness(name) == likeness:
                yield name

    def _takes(self, likeness: tuple[str, str, str, int], host: str) -> bool:
        return self._free[host] >= likeness[3] and self._open(likeness, self._build[host])

    def _open(self, likeness: tuple[str, str, str, int], onto: str) -> bool:
        birth, kind, build, _ = likeness
        here, there = self._class_for(build, kind), self._class_for(onto, kind)
        way = self._ways.get((birth, here or "", there or ""))
        return here is not None and there is not None and bool(way and not way.get("conditions"))

    def _hosts_for(self, birth: str, kind: str, build: str) -> Iterator[str]:
        """Hosts of the builds that some guest with this birth can go to."""
        key = birth, kind, build, len(self._by_class)
        builds = self._reachable.get(key)
        if builds is None:
            here = self._class_for(build, kind) or ""
            builds = self._reachable[key] = [
                onto
                for onto in self._by_class
                if (birth, here, self._class_for(onto, kind) or "") in self._ways
            ]
        for onto in builds:
            yield from self._by_class[onto]

    def _somewhere(self, name: str, here: str) -> bool:
        build, only = self._build[here], self._pins[name].get("only")
        candidates = (
            (host for word in only for host in self._named.get(word, ()))
            if only
            else self._hosts_for(self._birth[name], self._kind[name], build)
        )
        for host in candidates:
            if (
                host != here
                and self._free[host] >= self._size[name]
                and self._way(name, build, self._build[host]) is not None
                and not self._pinned(name, host)
            ):
                self._relying[host].add(name)
                return True
        return False
