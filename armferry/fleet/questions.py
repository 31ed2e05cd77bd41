"""What an operator asks of a fleet: the matrix, who is stranded, who could not come back."""

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from armferry.facts import release_key, series_of
from armferry.fleet.model import Answer, Cell, Guest, HostClass
from armferry.fleet.standing import Standing

__all__ = [
    "By",
    "GroupCell",
    "Matrix",
    "StrandedState",
    "Summary",
    "destinations",
    "matrix",
    "stranded",
    "stranded_guests",
    "summary",
    "without_return",
]

_DAY = 86400.0
_MOST_HOSTS = 200  # rows of a matrix by host


class By(enum.StrEnum):
    """What the rows and columns of a matrix are."""

    KERNEL = "kernel"
    CLASS = "class"
    HOST = "host"
    SITE = "site"


@dataclass(frozen=True, slots=True)
class GroupCell:
    """From one group of hosts to another: `cell` is the worst of what guests of any class there
    find, each on the host that suits it best; `hosts` how many of the sources have which answer.
    """

    cell: Cell
    hosts: Mapping[Answer, int]
    source_class: str
    destination_class: str

    @property
    def mixed(self) -> bool:
        """Whether it differs from class to class."""
        return len(self.hosts) > 1


@dataclass(frozen=True)
class Matrix:
    """`groups` with how many hosts each has, in order; a pair that is not among `cells` has no
    kind of guest in common.
    """

    by: By
    groups: Mapping[str, int]
    cells: Mapping[tuple[str, str], GroupCell]
    kinds: tuple[str, ...]

    def one_way(self, source: str, destination: str) -> bool:
        """Whether some guest can go there and none that is there can go here."""
        to, back = self.cells.get((source, destination)), self.cells.get((destination, source))
        return to is not None and to.cell.possible and (back is None or not back.cell.possible)


@dataclass(frozen=True, slots=True)
class StrandedState:
    """Guests that have nowhere to go: how many are in this state, and what stands in the way."""

    birth: str
    present: str
    guests: int
    why: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The fleet in numbers. `no_return` guests could not go back to where they were born;
    `one_way_ahead` could not come back from the newest kernel.
    """

    hosts: int
    heard: int
    guests: int
    classes: int
    stranded: int
    no_return: int
    one_way_ahead: int
    newest: str
    kernels: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.heard:,} of {self.hosts:,} hosts heard today; "
            f"{self.stranded:,} {_guests(self.stranded, 'has', 'have')} nowhere to go; "
            f"{self.no_return:,} could not come back"
        )


def _guests(count: int, one: str, many: str) -> str:
    return f"guest {one}" if count == 1 else f"guests {many}"


def matrix(standing: Standing, by: By, kind: str | None = None) -> Matrix:
    """The matrix of all kinds of guests, or of one. Guests are taken to be born where they are."""
    sizes: dict[str, int] = {}
    groups: dict[str, dict[str, dict[str, int]]] = {}  # group -> kind -> class -> hosts
    for group, one, hosts in _grouped(standing, by):
        if kind is None or one.kind == kind:
            of_kind = groups.setdefault(group, {}).setdefault(one.kind, {})
            of_kind[one.id] = of_kind.get(one.id, 0) + hosts
    for group, kinds in groups.items():
        sizes[group] = max(sum(classes.values()) for classes in kinds.values())
    order = sorted(
        groups, key=lambda name: (release_key(name), name) if by is By.KERNEL else ((), name)
    )
    cells = {}
    for source in order:
        for destination in order:
            found = _group_cell(standing, groups[source], groups[destination])
            if found is not None:
                cells[source, destination] = found
    standing.relation.keep()
    kinds_seen = sorted({kind for group in groups.values() for kind in group})
    return Matrix(by, {name: sizes[name] for name in order}, cells, tuple(kinds_seen))


def _grouped(standing: Standing, by: By) -> Iterator[tuple[str, HostClass, int]]:
    classes = {one.id: one for one in standing.classes}
    if by is By.HOST:
        for host in standing.store.hosts()[:_MOST_HOSTS]:
            for class_id in host.classes.values():
                yield host.name, classes[class_id], 1
        return
    for row in standing.store.tallies():
        one = classes[row.class_id]
        names = {By.KERNEL: row.kernel, By.CLASS: row.class_id, By.SITE: row.site or "-"}
        yield names[by], one, row.hosts


def _group_cell(
    standing: Standing,
    sources: Mapping[str, Mapping[str, int]],
    destinations: Mapping[str, Mapping[str, int]],
) -> GroupCell | None:
    worst: tuple[Cell, str, str] | None = None
    counts: dict[Answer, int] = {}
    for kind in sources.keys() & destinations.keys():
        for source, hosts in sources[kind].items():
            best, place = _best(standing, source, source, destinations[kind])
            counts[best.answer] = counts.get(best.answer, 0) + hosts
            if worst is None or best.rank > worst[0].rank:
                worst = best, source, place
    return None if worst is None else GroupCell(worst[0], counts, worst[1], worst[2])


def _best(standing: Standing, birth: str, present: str, places: Iterable[str]) -> tuple[Cell, str]:
    """The best cell of any of these destinations, and which it is; its own class first."""
    ordered = sorted(places, key=lambda one: (one != present, one))
    best: tuple[Cell, str] | None = None
    for place in ordered:
        found = standing.relation.cell(birth, present, place)
        if best is None or found.rank < best[0].rank:
            best = found, place
        if found.answer is Answer.STOCK and not found.risk:
            break
    assert best is not None
    return best


def destinations(standing: Standing, birth: str, present: str) -> Iterator[tuple[HostClass, Cell]]:
    """Every class that hosts of which could take a guest in this state, and the cell."""
    kind = standing.store.kind_of(present)
    for one in standing.by_kind.get(kind, ()):
        if _is_known(standing, one.id) and (one.id != present or one.hosts > 1):
            yield one, standing.relation.cell(birth, present, one.id)


def stranded(standing: Standing) -> tuple[StrandedState, ...]:
    """The states from which no host can take a guest, most guests first.

    A guest that is pinned to hosts which cannot take it is not counted here.
    """
    found = []
    for (birth, present), guests in standing.store.states().items():
        why = _nowhere(standing, birth, present)
        if why is not None:
            found.append(StrandedState(birth, present, guests, why))
    standing.relation.keep()
    return tuple(sorted(found, key=lambda one: (-one.guests, one.present, one.birth)))


def _nowhere(standing: Standing, birth: str, present: str) -> str | None:
    """Why a guest in this state has nowhere to go; None where it has."""
    if not _is_known(standing, present):
        return f"its host has no fingerprint for {standing.store.kind_of(present)}"
    own = next((one for one in standing.classes if one.id == present), None)
    if (
        own is not None
        and own.hosts > 1
        and standing.relation.cell(birth, present, present).possible
    ):
        return None
    best: Cell | None = None
    for _, cell in destinations(standing, birth, present):
        if cell.possible:
            return None
        if best is None or cell.rank < best.rank:
            best = cell
    return "no other host has such guests" if best is None else best.why


def _is_known(standing: Standing, class_id: str) -> bool:
    return class_id in standing.store.fingerprinted


def stranded_guests(
    standing: Standing, states: Sequence[StrandedState], most: int
) -> tuple[Guest, ...]:
    """Guests of these states, at most so many."""
    if not states:
        return ()
    return standing.store.guests(states=[(one.birth, one.present) for one in states], most=most)


def without_return(standing: Standing) -> tuple[int, int]:
    """How many guests could not go back to where they were born, and how many could not come back
    from the newest kernel of the fleet, if they went there.
    """
    newest = _newest(standing)
    lost = ahead = 0
    for (birth, present), guests in standing.store.states().items():
        if not (_is_known(standing, birth) and _is_known(standing, present)):
            continue
        cell = standing.relation.cell
        if birth != present and not cell(birth, present, birth).possible:
            lost += guests
        kind = standing.store.kind_of(present)
        goals = [
            one
            for one in standing.by_kind.get(kind, ())
            if one.id != present and newest in map(series_of, one.kernels)
        ]
        reached = [one for one in goals if cell(birth, present, one.id).possible]
        if reached and not any(cell(birth, one.id, present).possible for one in reached):
            ahead += guests
    standing.relation.keep()
    return lost, ahead


def _newest(standing: Standing) -> str:
    kernels = [series_of(kernel) for one in standing.classes for kernel in one.kernels]
    return max(kernels, key=release_key, default="")


def summary(standing: Standing, now: float) -> Summary:
    """The fleet in numbers at the time `now`, in seconds since 1970."""
    hosts, heard = standing.store.heard(now - _DAY)
    lost, ahead = without_return(standing)
    kernels: dict[str, int] = {}
    of_kind: dict[tuple[str, str], int] = {}
    for row in standing.store.tallies():
        kind = standing.store.kind_of(row.class_id)
        of_kind[row.kernel, kind] = of_kind.get((row.kernel, kind), 0) + row.hosts
    for (kernel, _), count in of_kind.items():
        kernels[kernel] = max(kernels.get(kernel, 0), count)
    return Summary(
        hosts,
        heard,
        sum(standing.store.states().values()),
        len(standing.classes),
        sum(one.guests for one in stranded(standing)),
        lost,
        ahead,
        _newest(standing),
        dict(sorted(kernels.items(), key=lambda one: release_key(one[0]))),
    )
