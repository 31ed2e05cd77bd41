"""A matrix as text: a document of tables, and JSON.

Knows how a cell is put in a word or two; refuses to know how it came about.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from armferry.decide import Plan, Risk, verdict_document
from armferry.hosts.fingerprints.kvm import Refusal
from armferry.lab.matrix import Cell
from armferry.registers import Accelerator, name

__all__ = ["matrix_json", "matrix_lines", "matrix_rows", "refusals_document", "tally"]


def tally(cells: Sequence[Cell]) -> str:
    """What the matrix shows, in a sentence or two."""
    stock = sum(cell.stock.completed for cell in cells)
    ferried = sum(cell.ferried is not None and cell.ferried.completed for cell in cells)
    needy = sum(bool(cell.predicted.plan.entries) for cell in cells)
    running = sum(bool(cell.predicted.running.entries) for cell in cells)
    wrong = sum(bool(cell.faults) for cell in cells)
    return (
        f"Of {len(cells)} moves, stock QEMU loads {stock}; ferried by armferry, {ferried} load, "
        f"{len(cells) - needy} of them with the shipped levels alone. For a guest that runs, "
        f"{running} need more to be named. What was predicted and what happened part in {wrong}."
    )


def matrix_lines(cells: Sequence[Cell]) -> Iterator[str]:
    """A section of a document: the tally, a table of every move, what QEMU printed."""
    yield tally(cells)
    yield ""
    yield "| from | to | stock QEMU | shipped levels | ferried | if it runs | must then be named |"
    yield "|---|---|---|---|---|---|---|"
    for cell in cells:
        predicted = cell.predicted
        yield (
            f"| {cell.source.name} | {cell.destination.name} | {_stock(cell)} | "
            f"{predicted.unaided.answer}{_entries(predicted.plan, ' and ')} | {_ferried(cell)} | "
            f"{predicted.running.verdict.risk} | {_entries(predicted.running) or '-'} |"
        )
    yield ""
    yield "What stock QEMU prints, and how often:"
    yield ""
    messages = Counter(cell.message for cell in cells if not cell.stock.completed)
    for message, count in sorted(messages.items(), key=lambda item: (-item[1], item[0])):
        yield "once:" if count == 1 else f"{count} times:"
        yield ""
        yield "```"
        yield message
        yield "```"
        yield ""


def matrix_json(cells: Sequence[Cell]) -> dict[str, Any]:
    """The whole matrix for a program."""
    return {"format": "armferry-matrix", "version": 1, "moves": [_move(cell) for cell in cells]}


def matrix_rows(cells: Sequence[Cell]) -> dict[str, Any]:
    """The whole matrix, short: a row for each move, each message of stock QEMU once."""
    messages = list(dict.fromkeys(cell.message for cell in cells))
    return {
        "format": "armferry-matrix-rows",
        "version": 1,
        "messages": messages,
        "moves": [
            {
                "source": cell.source.name,
                "destination": cell.destination.name,
                "machine": cell.source.qemu.machine,
                "stock": {
                    "loads": cell.stock.completed,
                    "message": messages.index(cell.message),
                    "culprits": _culprits(cell),
                },
                "verdict": cell.predicted.unaided.answer.value,
                "running": {
                    "risk": str(cell.predicted.running.verdict.risk),
                    "named": [f"{e.name}: {e.action}" for e in cell.predicted.running.entries],
                },
                "ferried": None if cell.ferried is None else cell.ferried.completed,
                "faults": list(cell.faults),
            }
            for cell in cells
        ],
    }


def refusals_document(refused: Sequence[Refusal]) -> list[dict[str, Any]]:
    """What a kernel refused, register by register."""
    return [
        {
            "index": f"{refusal.index:#018x}",
            "name": name(refusal.index, Accelerator.KVM),
            "errno": refusal.errno,
            "incoming": f"{refusal.incoming:#x}",
            "host": None if refusal.host is None else f"{refusal.host:#x}",
        }
        for refusal in refused
    ]


def _move(cell: Cell) -> dict[str, Any]:
    ferried = cell.ferried
    return {
        "source": cell.source.name,
        "destination": cell.destination.name,
        "machine": cell.source.qemu.machine,
        "stock": {
            "loads": cell.stock.completed,
            "message": cell.message,
            "predicted": verdict_document(cell.predicted.unaided)["stock"],
        },
        "kernel_refuses": refusals_document(cell.refused),
        "verdict": cell.predicted.unaided.answer.value,
        "risk": str(cell.predicted.verdict.risk),
        "policy": [
            {"name": entry.name, "action": entry.action, "reason": entry.reason}
            for entry in cell.predicted.plan.entries
        ],
        "running": {
            "risk": str(cell.predicted.running.verdict.risk),
            "policy": [
                {"name": entry.name, "action": entry.action, "reason": entry.reason}
                for entry in cell.predicted.running.entries
            ],
        },
        "ferried": None if ferried is None else ferried.completed,
        "faults": list(cell.faults),
    }


def _entries(plan: Plan, before: str = "") -> str:
    needed = ", ".join(f"{entry.name}: {entry.action}" for entry in plan.entries)
    return f"{before}{needed}" if needed else ""


def _stock(cell: Cell) -> str:
    if cell.stock.completed:
        return "loads"
    culprits = _culprits(cell)
    more = "" if len(culprits) <= 3 else f" and {len(culprits) - 3} more"
    return f"refuses {', '.join(culprits[:3])}{more}" if culprits else "refuses"


def _culprits(cell: Cell) -> list[str]:
    """The registers that stand in stock QEMU's way, by name."""
    stock = cell.predicted.unaided.stock
    return [] if stock is None else [name(i, Accelerator.KVM) for i in stock.culprits]


def _ferried(cell: Cell) -> str:
    if cell.faults:
        return "; ".join(cell.faults)
    same = cell.predicted.verdict.risk is Risk.NONE
    return "loads as it is" if same else "loads"
