"""A distribution's question: does this update break the moves of guests that exist?

An update is two hosts, before and after: another kernel, another QEMU, or both. Both are recorded,
the guest of each is loaded on the other for real, and the register lists are compared. What a
compat level would have to say is planned for a guest that runs, with nothing else allowed: its
registers hold what they held after reset, so what is dropped is lossless, and what changes under
it is told.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from armferry.decide import Answer, Plan, make_plan, plan_compat
from armferry.ends import Move
from armferry.lab.matrix import Cell, Progress, if_running, run_matrix
from armferry.lab.matrix_text import refusals_document
from armferry.lab.recording import Recording
from armferry.policy import Policy, to_toml
from armferry.registers import Accelerator, Kind, explain_value, kind, name

__all__ = ["Direction", "Gate", "gate_document", "gate_lines", "judge_update"]


@dataclass(frozen=True, slots=True)
class Direction:
    """One way between the two hosts.

    `cell` is what really happened with a fresh guest. `bare` is the plan for a running one with
    nothing allowed, `shipped` the plan on top of the shipped levels.
    """

    cell: Cell
    bare: Plan
    shipped: Plan


@dataclass(frozen=True, slots=True)
class Gate:
    """What an update does. `gone`, `new` and `changed` are registers, by index."""

    gone: tuple[int, ...]
    new: tuple[int, ...]
    changed: tuple[int, ...]
    there: Direction
    back: Direction

    @property
    def exit_code(self) -> int:
        """0: every move works; 1: with the shipped levels; 2: only with more than those."""
        ways = (self.there, self.back)
        if any(way.shipped.entries or not way.shipped.works for way in ways):
            return 2
        return 0 if all(way.cell.stock.completed for way in ways) else 1

    @property
    def policy(self) -> Policy:
        """What must be allowed for both ways, when nothing else is."""
        return self.there.bare.policy.union(self.back.bare.policy)

    @property
    def level(self) -> str:
        """The same as a document for `armferry/policy/levels` or /etc/armferry; empty for none."""
        if self.policy == Policy():
            return ""
        return to_toml(self.policy, self.there.cell.source.qemu.machine, Accelerator.KVM)


def judge_update(old: Recording, new: Recording, progress: Progress) -> Gate:
    """Judge the update from `old` to `new`; about a minute. Raises `LabHostFault`."""
    cells = {cell.source.key: cell for cell in run_matrix((old, new), progress)}
    before, after = (one.source().lists[0] for one in (old, new))
    return Gate(
        gone=tuple(sorted(before.keys() - after.keys())),
        new=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(
            index
            for index in sorted(before.keys() & after.keys())
            if before[index] != after[index] and kind(index) is not Kind.RUNNING_COUNTER
        ),
        there=_direction(cells[old.key]),
        back=_direction(cells[new.key]),
    )


def gate_lines(gate: Gate) -> Iterator[str]:
    """The answer for a person."""
    there = gate.there.cell
    before, after = (one.source().lists[0] for one in (there.source, there.destination))
    yield f"{there.source.name} -> {there.destination.name}, machine {there.source.qemu.machine}"
    yield ""
    counts = f"{len(gate.gone)} gone, {len(gate.new)} new, {len(gate.changed)} with other values"
    yield f"Register list: {counts}"
    for index in gate.gone:
        yield f"  gone     {_register(index)} {_value(index, before[index])}"
    for index in gate.new:
        yield f"  new      {_register(index)} {_value(index, after[index])}"
    for index in gate.changed:
        values = f"{_value(index, before[index])} -> {_value(index, after[index])}"
        yield f"  changed  {_register(index)} {values}"
    for words, way in (("Old to new", gate.there), ("New to old", gate.back)):
        yield ""
        yield from _way(words, way)
    yield ""
    if not gate.level:
        yield "No compat level is needed."
        return
    yield "The compat level that both ways need, all of it:"
    yield ""
    yield gate.level.rstrip()
    for way in (gate.there, gate.back):
        if compat := plan_compat(way.bare):
            yield ""
            where = way.cell.destination.spec.kernel.release
            yield f"As compat properties of a QEMU that has them, for {where}:"
            yield compat


def gate_document(gate: Gate) -> dict[str, Any]:
    """The answer for a program."""
    there = gate.there.cell
    before, after = (one.source().lists[0] for one in (there.source, there.destination))

    def rows(indexes: tuple[int, ...]) -> list[dict[str, str | None]]:
        return [
            {
                "index": f"{index:#018x}",
                "name": name(index, Accelerator.KVM),
                "old": _hex(before, index),
                "new": _hex(after, index),
            }
            for index in indexes
        ]

    return {
        "format": "armferry-gate",
        "version": 1,
        "old": there.source.name,
        "new": there.destination.name,
        "machine": there.source.qemu.machine,
        "verdict": ("works", "works-with-policy", "fails")[gate.exit_code],
        "gone": rows(gate.gone),
        "new_registers": rows(gate.new),
        "changed": rows(gate.changed),
        "old_to_new": _way_document(gate.there),
        "new_to_old": _way_document(gate.back),
        "level": gate.level,
    }


def _way_document(way: Direction) -> dict[str, Any]:
    cell, shipped = way.cell, way.shipped
    return {
        "stock": {"loads": cell.stock.completed, "message": cell.message},
        "kernel_refuses": refusals_document(cell.refused),
        "verdict": shipped.verdict.answer.value,
        "risk": str(shipped.verdict.risk),
        "to_be_named": [
            {"name": one.name, "action": one.action, "risk": str(one.risk), "reason": one.reason}
            for one in shipped.entries
        ],
        "obstacles": list(shipped.obstacles),
        "ferried": None if cell.ferried is None else cell.ferried.completed,
        "faults": list(cell.faults),
    }


def _hex(registers: Mapping[int, int], index: int) -> str | None:
    return f"{registers[index]:#x}" if index in registers else None


def _direction(cell: Cell) -> Direction:
    guest, there = cell.source.source(), cell.destination.destination()
    move = Move.between(guest.end, there.end)
    bare = make_plan(if_running(move), Policy())
    return Direction(cell, bare, cell.predicted.running)


def _way(words: str, way: Direction) -> Iterator[str]:
    cell = way.cell
    if cell.stock.completed:
        yield f"{words}: stock QEMU loads a guest."
    else:
        yield f"{words}: stock QEMU refuses a guest:"
        yield from (f"    {line}" for line in cell.message.splitlines())
    refused = [one for one in cell.refused if one.host is not None]
    if refused:
        yield "  The kernel refuses values of registers that it has:"
        for one in refused:
            values = f"{_value(one.index, one.incoming)}, its own is {_value(one.index, one.host)}"
            yield f"    {_register(one.index)} {values}"
    shipped = way.shipped
    if shipped.entries:
        yield f"  With armferry it works once these are named, risk {shipped.verdict.risk}:"
        yield from (f"    {one.name}: {one.action}: {one.reason}" for one in shipped.entries)
    elif shipped.verdict.answer is Answer.WORKS_WITH_POLICY:
        yield f"  With armferry it works by the shipped levels, risk {shipped.verdict.risk}."
    yield from (f"  {obstacle}" for obstacle in shipped.obstacles)
    yield from (f"  not as predicted: {fault}" for fault in cell.faults)


def _register(index: int) -> str:
    return f"{name(index, Accelerator.KVM)} {index:#018x}"


def _value(index: int, value: int | None) -> str:
    if value is None:
        return "absent"
    words = explain_value(index, value)
    return f"{value:#x} ({words})" if words else f"{value:#x}"
