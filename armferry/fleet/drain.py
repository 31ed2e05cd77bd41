"""Can a host be emptied now: each of its guests placed on a host that takes it and has room."""

from collections.abc import Mapping
from dataclasses import dataclass

from armferry.fleet.model import Cell, Guest, Host
from armferry.fleet.standing import Standing

__all__ = ["Placement", "drain_check"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a guest can go: `destination` is None where no host takes it or has room, and `why`
    says which; `cell` is that of the destination, or of the best class where there is none.
    """

    guest: Guest
    destination: str | None
    cell: Cell | None
    why: str = ""


def drain_check(standing: Standing, name: str) -> tuple[Placement, ...]:
    """A place for each guest of the host, the largest first. Raises UnknownName.

    Each takes the host that suits it best and, of several, the one with most room: a check for one
    host; the order of many is for a plan.
    """
    store = standing.store
    store.host(name)
    used = store.used()
    hosts = [one for one in store.hosts() if one.name != name]
    room = {one.name: one.memory - used.get(one.name, 0) for one in hosts}
    by_class: dict[str, list[Host]] = {}
    for one in hosts:
        for class_id in one.classes.values():
            by_class.setdefault(class_id, []).append(one)
    present = store.host(name).classes
    guests = sorted(store.guests(host_name=name), key=lambda one: (-one.memory, one.id))
    placed = []
    for guest in guests:
        found = _place(standing, guest, present.get(guest.kind), by_class, room)
        if found.destination is not None:
            room[found.destination] -= guest.memory
        placed.append(found)
    standing.relation.keep()
    return tuple(placed)


def _place(
    standing: Standing,
    guest: Guest,
    present: str | None,
    by_class: Mapping[str, list[Host]],
    room: Mapping[str, int],
) -> Placement:
    if present is None:
        return Placement(guest, None, None, f"its host has no fingerprint for {guest.kind}")
    known = standing.store.fingerprinted
    birth = guest.birth if guest.birth in known else present
    choices = []
    best: Cell | None = None
    for one in standing.by_kind.get(guest.kind, ()):
        hosts = [
            host for host in by_class.get(one.id, ()) if not guest.pins or host.name in guest.pins
        ]
        if not hosts or one.id not in known:
            continue
        cell = standing.relation.cell(birth, present, one.id)
        if best is None or cell.rank < best.rank:
            best = cell
        if cell.possible:
            roomiest = max(hosts, key=lambda host: (room[host.name], host.name))
            choices.append((cell, roomiest.name))
    fitting = [one for one in choices if room[one[1]] >= guest.memory]
    if fitting:
        cell, destination = min(fitting, key=lambda one: (one[0].rank, -room[one[1]]))
        return Placement(guest, destination, cell)
    if choices:
        return Placement(guest, None, best, "no host that takes it has room")
    if best is not None:
        return Placement(guest, None, best, best.why)
    pinned = "that it is pinned to " if guest.pins else ""
    return Placement(guest, None, None, f"no other host {pinned}has such guests")
