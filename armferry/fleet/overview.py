"""All that one page says of a fleet: numbers, matrix, why, who is stranded, who is silent."""

from collections.abc import Iterator
from dataclasses import dataclass

from armferry.decide import RegisterOutcome, judge, make_plan, plan_toml
from armferry.ends import Move
from armferry.fleet.model import Answer, Guest, HostClass
from armferry.fleet.questions import (
    By,
    GroupCell,
    Matrix,
    StrandedState,
    Summary,
    matrix,
    stranded,
    stranded_guests,
    summary,
)
from armferry.fleet.standing import Standing

__all__ = ["Explained", "Overview", "overview"]

_MOST_GUESTS, _MOST_SILENT, _MOST_ROWS, _MOST_EXPLAINED = 500, 200, 12, 200
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Explained:
    """Why a cell is what it is, for the classes that decide it. `rows` are registers: name, class,
    value on the source, value on the destination, why; `more` how many are left out. `policy` is
    what would have to be allowed, as TOML, empty where nothing is needed or nothing helps.
    """

    source: str
    destination: str
    group: GroupCell
    obstacles: tuple[str, ...]
    rows: tuple[tuple[str, str, str, str, str], ...]
    more: int
    policy: str


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows. `when` is in seconds since 1970."""

    when: float
    summary: Summary
    matrix: Matrix
    explained: tuple[Explained, ...]
    states: tuple[StrandedState, ...]
    stranded: tuple[tuple[Guest, str], ...]
    silent: tuple[tuple[str, float], ...]
    classes: tuple[HostClass, ...]


def overview(standing: Standing, now: float) -> Overview:
    """Everything, at the time `now`."""
    found = matrix(standing, By.KERNEL)
    states = stranded(standing)
    reasons = {(one.birth, standing.store.kind_of(one.present)): one.why for one in states}
    guests = stranded_guests(standing, states, _MOST_GUESTS)
    return Overview(
        now,
        summary(standing, now),
        found,
        tuple(_explained(standing, found)),
        states,
        tuple((guest, reasons.get((guest.birth, guest.kind), "")) for guest in guests),
        standing.store.silent(now - _DAY, _MOST_SILENT),
        standing.classes,
    )


def _explained(standing: Standing, found: Matrix) -> Iterator[Explained]:
    worst_first = sorted(found.cells.items(), key=lambda item: item[1].cell.rank, reverse=True)
    wanted = [
        pair
        for pair, group in worst_first
        if group.cell.answer is not Answer.STOCK or group.cell.risk or group.cell.lossless_if
    ]
    for source, destination in sorted(wanted[:_MOST_EXPLAINED], key=list(found.cells).index):
        yield _one(standing, source, destination, found.cells[source, destination])


def _one(standing: Standing, source: str, destination: str, group: GroupCell) -> Explained:
    here = standing.ends(group.source_class)[0]
    there = standing.ends(group.destination_class)[0]
    policy = standing.policy(here)
    move = Move.between(here, there)
    verdict = judge(move, policy)
    outcomes = sorted(
        {event.outcome for event in verdict.events}, key=lambda one: (not one.refused, one.index)
    )
    plan = make_plan(move, policy) if group.cell.answer is Answer.NEVER else None
    return Explained(
        source,
        destination,
        group,
        verdict.obstacles,
        tuple(_row(one) for one in outcomes[:_MOST_ROWS]),
        max(0, len(outcomes) - _MOST_ROWS),
        plan_toml(plan) if plan is not None and plan.works else "",
    )


def _row(outcome: RegisterOutcome) -> tuple[str, str, str, str, str]:
    return (
        outcome.name,
        outcome.register_class.value,
        _hex(outcome.source),
        _hex(outcome.destination),
        outcome.why,
    )


def _hex(value: int | None) -> str:
    return "-" if value is None else f"{value:#x}"
