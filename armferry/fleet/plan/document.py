"""A plan as a document: the fleet that it was made for, its steps, what it costs and is proved of.

JSON, described in docs/fleet-plan.md. Rows, not objects, where there is one for each of a million
guests. The steps are numbered from 1 through all waves, the upgrades of a wave after its moves.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from armferry.errors import ArmferryError
from armferry.fleet.plan.model import (
    NO_WAY,
    Limits,
    PlanFleet,
    PlanGuest,
    PlanHost,
    Restart,
    Scope,
    Solution,
    Way,
    Ways,
)

__all__ = [
    "SCHEMA_VERSION",
    "PlanDocumentError",
    "RecordedWays",
    "fleet_document",
    "fleet_of",
    "limits_of",
    "numbered",
    "plan_document",
    "replayed",
    "ways_of",
]

SCHEMA_VERSION = 1
_T = TypeVar("_T")
_HOST = ("name", "build", "target", "memory", "domain", "evidence")
_GUEST = ("name", "host", "kind", "birth", "memory", "pins")
_WAY = ("birth", "from", "to", "visible", "entries", "conditions", "armferry", "first")


class PlanDocumentError(ArmferryError):
    """A document is no fleet or no plan: what is wrong, and where."""


@dataclass
class RecordedWays:
    """Ways that remember which of them were asked for and are allowed."""

    ways: Ways
    asked: dict[tuple[str, str, str], Way] = field(default_factory=dict)

    def __call__(self, birth: str, present: str, destination: str) -> Way:
        """As `ways`, each asked for once."""
        key = birth, present, destination
        way = self.asked.get(key)
        if way is None:
            way = self.asked[key] = self.ways(birth, present, destination)
        return way

    @property
    def allowed(self) -> Mapping[tuple[str, str, str], Way]:
        """Those that a guest can take."""
        return {key: way for key, way in self.asked.items() if way.allowed}


def plan_document(
    fleet: PlanFleet,
    ways: Mapping[tuple[str, str, str], Way],
    limits: Limits,
    solution: Solution,
    goal: Mapping[str, str],
    named: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The document of a plan.

    `ways` are the allowed ones at least that the plan rests on, `named` the guests that need a
    word of their own (docs/fleet-plan.md).
    """
    return {
        "schema": SCHEMA_VERSION,
        "goal": dict(goal),
        "limits": {
            "wave": limits.wave,
            "spare": limits.spare,
            "keep_way_back": limits.keep_way_back,
        },
        "cost": solution.cost._asdict(),
        "bound": solution.bound._asdict(),
        "optimal": solution.optimal,
        "proved": list(solution.proved),
        "waves": [
            {
                "steps": [
                    ["restart" if isinstance(step, Restart) else "move", *step]
                    for step in wave.steps
                ],
                "upgrades": list(wave.upgrades),
            }
            for wave in solution.waves
        ],
        "guests_named": [dict(one) for one in named],
        "fleet": fleet_document(fleet, ways),
    }


def fleet_document(fleet: PlanFleet, ways: Mapping[tuple[str, str, str], Way]) -> dict[str, Any]:
    """The part of a plan that says what it was made for."""
    return {
        "classes": {build: dict(kinds) for build, kinds in fleet.classes.items()},
        "host_columns": list(_HOST),
        "hosts": [
            [host.name, host.build, host.target, host.memory, host.domain, host.evidence]
            for host in fleet.hosts
        ],
        "guest_columns": list(_GUEST),
        "guests": [
            [guest.name, guest.host, guest.kind, guest.birth, guest.memory, _pins(guest)]
            for guest in fleet.guests
        ],
        "way_columns": list(_WAY),
        "ways": [
            [
                *key,
                way.visible,
                sorted(way.entries),
                sorted(way.conditions),
                way.armferry,
                sorted(way.first),
            ]
            for key, way in sorted(ways.items())
        ],
    }


def _pins(guest: PlanGuest) -> dict[str, Any] | None:
    pins: dict[str, Any] = {
        "only": sorted(guest.only),
        "never": sorted(guest.never),
        "apart": guest.apart,
        "scope": guest.scope.value if guest.apart else "",
        "known": sorted(guest.known),
    }
    return {key: value for key, value in pins.items() if value} or None


def fleet_of(document: Mapping[str, Any]) -> PlanFleet:
    """The fleet in a plan, or in a document with `fleet` alone. Raises PlanDocumentError."""
    return _read(_fleet, document)


def _fleet(document: Mapping[str, Any]) -> PlanFleet:
    part = document["fleet"]
    hosts = tuple(
        PlanHost(
            str(row["name"]),
            str(row["build"]),
            None if row.get("target") is None else str(row["target"]),
            int(row.get("memory", 0)),
            str(row.get("domain", "")),
            str(row.get("evidence", "")),
        )
        for row in _rows(part["hosts"], part.get("host_columns", _HOST))
    )
    guests = tuple(_guest(row) for row in _rows(part["guests"], part.get("guest_columns", _GUEST)))
    classes = {
        str(build): {str(kind): str(one) for kind, one in kinds.items()}
        for build, kinds in part.get("classes", {}).items()
    }
    names = [host.name for host in hosts]
    if len(set(names)) != len(names):
        raise PlanDocumentError("two hosts have one name")
    known = set(names)
    for guest in guests:
        if guest.host not in known:
            raise PlanDocumentError(f"guest {guest.name} is on {guest.host}, which is no host here")
    if len({guest.name for guest in guests}) != len(guests):
        raise PlanDocumentError("two guests have one name")
    scopes: dict[str, Scope] = {}
    for guest in guests:
        if guest.apart and scopes.setdefault(guest.apart, guest.scope) is not guest.scope:
            raise PlanDocumentError(
                f"guests of the group {guest.apart} are kept apart by host and by domain; "
                "give the group one scope"
            )
    return PlanFleet(hosts, guests, classes)


def _guest(row: Mapping[str, Any]) -> PlanGuest:
    pins = row.get("pins") or {}
    return PlanGuest(
        str(row["name"]),
        str(row["host"]),
        str(row["birth"]),
        int(row.get("memory", 0)),
        str(row.get("kind", "")),
        frozenset(map(str, pins.get("only", ()))),
        frozenset(map(str, pins.get("never", ()))),
        str(pins.get("apart", "")),
        Scope(pins.get("scope") or "host"),
        frozenset(map(str, pins.get("known", ()))),
    )


def _rows(rows: Iterable[Any], columns: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """Rows as mappings; a document written by hand may have mappings itself."""
    names = tuple(columns)
    for row in rows:
        yield row if isinstance(row, Mapping) else dict(zip(names, row, strict=False))


def ways_of(document: Mapping[str, Any]) -> Ways:
    """The ways in a plan; what it does not list is not allowed. Raises PlanDocumentError."""

    def read(document: Mapping[str, Any]) -> dict[tuple[str, str, str], Way]:
        part = document["fleet"]
        return {
            (str(row["birth"]), str(row["from"]), str(row["to"])): Way(
                allowed=True,
                visible=bool(row.get("visible", False)),
                entries=frozenset(map(str, row.get("entries", ()))),
                conditions=frozenset(map(str, row.get("conditions", ()))),
                armferry=bool(row.get("armferry", False)),
                first=frozenset(map(str, row.get("first", ()))),
            )
            for row in _rows(part["ways"], part.get("way_columns", _WAY))
        }

    ways = _read(read, document)
    return lambda birth, present, destination: ways.get((birth, present, destination), NO_WAY)


def limits_of(document: Mapping[str, Any]) -> Limits:
    """The limits in a plan. Raises PlanDocumentError."""

    def read(document: Mapping[str, Any]) -> Limits:
        part = document.get("limits", {})
        wave, spare = int(part.get("wave", 1)), int(part.get("spare", 0))
        if wave < 1 or spare < 0:
            raise PlanDocumentError(f"a wave of {wave} hosts with {spare} spare is none")
        return Limits(wave, spare, bool(part.get("keep_way_back")))

    return _read(read, document)


def numbered(document: Mapping[str, Any]) -> Iterator[tuple[int, int, list[str]]]:
    """(Number, wave from 1, words) of each step: move, restart or upgrade, and names."""
    number = 0
    for at, wave in enumerate(document["waves"], 1):
        rows = [*wave.get("steps", ()), *(["upgrade", host] for host in wave["upgrades"])]
        for words in rows:
            number += 1
            yield number, at, list(words)


def replayed(document: Mapping[str, Any], done: int) -> PlanFleet:
    """The fleet after the first `done` steps of a plan, for planning anew from there.

    A guest that is shut down for the upgrade of its own host counts as restarted once the host is
    upgraded. Raises PlanDocumentError for steps that do not fit the fleet.
    """
    fleet = fleet_of(document)
    hosts = {host.name: host for host in fleet.hosts}
    guests = {guest.name: guest for guest in fleet.guests}
    asleep: dict[str, set[str]] = {}
    for number, _, words in _read(lambda one: list(numbered(one)), document):
        if number > done:
            break
        try:
            if words[0] == "upgrade":
                host = hosts[words[1]]
                target = host.build if host.target is None else host.target
                hosts[host.name] = replace(host, build=target, target=None)
                for name in asleep.pop(host.name, ()):
                    guests[name] = _reborn(fleet, guests[name], target)
                continue
            word, name, _, destination = words
            guest = guests[name]
            if word == "restart" and guest.host == destination:
                asleep.setdefault(destination, set()).add(name)
                continue
            there = hosts[destination]
            moved = replace(guest, host=there.name)
            if word == "restart":
                moved = _reborn(fleet, moved, there.build)
            guests[name] = moved
        except (LookupError, ValueError, TypeError) as error:
            raise PlanDocumentError(f"step {number} does not fit the fleet: {error}") from None
    return PlanFleet(tuple(hosts.values()), tuple(guests.values()), fleet.classes)


def _reborn(fleet: PlanFleet, guest: PlanGuest, build: str) -> PlanGuest:
    birth = fleet.class_of(build, guest.kind)
    return guest if birth is None else replace(guest, birth=birth)


def _read(read: Callable[[Mapping[str, Any]], _T], document: Mapping[str, Any]) -> _T:
    try:
        return read(document)
    except KeyError as error:
        raise PlanDocumentError(f"the document has no {error}") from None
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise PlanDocumentError(f"the document is no plan: {error}") from None
