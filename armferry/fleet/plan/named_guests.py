"""Guests of a plan that need a word of their own: who cannot come back, who is restarted, and why.

Each group of such guests is named with its cures, the cheapest first: a policy entry, the KVM
boundary, waiting for a host, a restart.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from armferry.fleet.plan.model import (
    Limits,
    Move,
    PlanFleet,
    PlanGuest,
    Restart,
    Solution,
    Ways,
)

__all__ = ["named_guests"]

_NAMES = 50


@dataclass(frozen=True, slots=True)
class _Case:
    what: str
    kind: str
    birth: str
    source: str
    destination: str


def named_guests(
    fleet: PlanFleet,
    ways: Ways,
    limits: Limits,
    solution: Solution,
    exempt: Iterable[str] = (),
    entries: Ways | None = None,
) -> list[dict[str, Any]]:
    """The groups, the largest first.

    `exempt` are the guests that had nowhere to go before the plan; `entries` are the ways with
    policy entries that are not allowed yet, where those are known.
    """
    groups: dict[_Case, list[str]] = {}
    for case, name in _cases(fleet, ways, solution):
        groups.setdefault(case, []).append(name)
    guests = {guest.name: guest for guest in fleet.guests}
    for name in exempt:
        guest = guests[name]
        build = fleet.by_name[guest.host].build
        case = _Case("nowhere", guest.kind, guest.birth, build, "")
        groups.setdefault(case, []).append(name)
    return [
        {
            "what": case.what,
            "birth": case.birth,
            "from": case.source,
            "to": case.destination,
            "guests": len(names),
            "names": names[:_NAMES],
            "cures": list(_cures(fleet, ways, limits, case, entries)),
        }
        for case, names in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def _cases(fleet: PlanFleet, ways: Ways, solution: Solution) -> Iterator[tuple[_Case, str]]:
    """The moves that cannot be undone, and the restarts, in the order of the plan."""
    build = {host.name: host.build for host in fleet.hosts}
    guests: dict[str, PlanGuest] = {guest.name: guest for guest in fleet.guests}
    for wave in solution.waves:
        after = {name: fleet.by_name[name].target or build[name] for name in wave.upgrades}
        for step in wave.steps:
            guest = guests[step.guest]
            source, destination = build[step.source], build[step.destination]
            if isinstance(step, Move):
                here = fleet.class_of(source, guest.kind)
                there = fleet.class_of(destination, guest.kind)
                back = ways(guest.birth, there or "", here or "")
                if not back.open_to(guest.known):
                    yield (
                        _Case("one-way", guest.kind, guest.birth, source, destination),
                        guest.name,
                    )
                continue
            if isinstance(step, Restart) and step.source == step.destination:
                destination = after.get(step.source, source)
            yield _Case("restart", guest.kind, guest.birth, source, destination), guest.name
            birth = fleet.class_of(destination, guest.kind)
            if birth is not None:
                guests[guest.name] = replace(guest, birth=birth)
        build |= after


def _cures(
    fleet: PlanFleet, ways: Ways, limits: Limits, case: _Case, entries: Ways | None
) -> Iterator[str]:
    here = fleet.class_of(case.source, case.kind)
    targets = {host.target for host in fleet.hosts if host.target is not None}
    ends = [case.destination] if case.destination else sorted(targets)
    for end in ends:
        there = fleet.class_of(end, case.kind)
        if here is None or there is None:
            continue
        start, goal = (there, here) if case.what == "one-way" else (here, there)
        open_now = ways(case.birth, start, goal)
        if case.what == "restart" and open_now.allowed:
            if limits.keep_way_back and not ways(case.birth, there, here).allowed:
                yield "give up --keep-way-back: it could move, and not come back"
            else:
                yield (
                    "wait for a host: it could move to "
                    f"{end}, and no such host has room for it then"
                )
            continue
        if entries is not None:
            way = entries(case.birth, start, goal)
            if way.allowed and way.entries:
                yield f"policy entries: {'; '.join(sorted(way.entries))}"
        if ways(here, there, here).allowed and case.birth != here:
            yield (
                f"the KVM boundary: started once as born on {case.source} with armferry-qemu, it "
                "goes both ways (docs/born-as.md)"
            )
    if case.what == "one-way":
        yield "a restart, should it have to come back"
    elif case.what == "nowhere":
        yield "a restart on a host that suits it"
    else:
        yield "the restart that is planned"
