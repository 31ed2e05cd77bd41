"""docs/kvm-matrix.md, of the data file that a run of the matrices left.

Knows the rows that `matrix_text.matrix_rows` makes; refuses to know hosts, streams and policies.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["matrix_document", "rows_text"]

_FEW = 3

Rows = Mapping[str, Any]


def rows_text(rows: Mapping[str, Rows]) -> str:
    """The data file: for each matrix, by its title, its messages and a line for each move."""
    parts = []
    for title, one in rows.items():
        moves = ",\n  ".join(json.dumps(move) for move in one["moves"])
        head = json.dumps({key: one[key] for key in one if key != "moves"})
        parts.append(f' {json.dumps(title)}: {head[:-1]}, "moves": [\n  {moves}\n ]}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def matrix_document(rows: Mapping[str, Rows], pictures: Mapping[str, str]) -> Iterator[str]:
    """The document, line by line; `pictures` has the file of each matrix's heat map."""
    yield "# Every pair of real kernels, under KVM"
    yield ""
    yield "Written by `tests/e2e/test_kvm_matrix.py` (`make test-full`), which boots the kernels;"
    yield "every single move is in [kvm-matrix.json](kvm-matrix.json)."
    yield ""
    yield (
        "A guest that never ran, saved by one host and loaded on another, as it is and ferried, "
        "each host a Debian kernel on an emulated CPU with a QEMU under its KVM. What such a move "
        "would cost a guest that runs is the risk; *named* is what the user must then allow."
    )
    for title, one in rows.items():
        moves: Sequence[Mapping[str, Any]] = one["moves"]
        yield ""
        yield f"## {title}"
        yield ""
        yield _tally(moves)
        yield ""
        yield f"![rows from, columns to]({pictures[title]})"
        yield ""
        yield "| from kernel | to kernel | stock QEMU loads | risk if it runs | named |"
        yield "|---|---|---|---|---|"
        yield from _kernel_pairs(moves)
        yield ""
        yield "What stock QEMU prints, and how often:"
        yield ""
        counts = Counter(move["stock"]["message"] for move in moves if not move["stock"]["loads"])
        for number, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
            yield "once:" if count == 1 else f"{count} times:"
            yield ""
            yield "```"
            yield one["messages"][number]
            yield "```"
            yield ""


def _tally(moves: Sequence[Mapping[str, Any]]) -> str:
    stock = sum(move["stock"]["loads"] for move in moves)
    ferried = sum(bool(move["ferried"]) for move in moves)
    wrong = sum(bool(move["faults"]) for move in moves)
    risks = Counter(move["running"]["risk"] for move in moves)
    shown = ", ".join(f"{risk} {count}" for risk, count in sorted(risks.items()))
    return (
        f"Of {len(moves)} moves, stock QEMU loads {stock}; ferried by armferry, {ferried} load. "
        f"For a guest that runs: {shown}. What was predicted and what happened part in {wrong}."
    )


def _kernel_pairs(moves: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each ordered pair of kernels, whatever the QEMUs."""
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for move in moves:
        key = move["source"].split(" ")[0], move["destination"].split(" ")[0]
        pairs.setdefault(key, []).append(move)
    for (source, there), some in pairs.items():
        loads = sum(move["stock"]["loads"] for move in some)
        risks = ", ".join(sorted({move["running"]["risk"] for move in some}))
        named = list(dict.fromkeys(one for move in some for one in move["running"]["named"]))
        more = f" and {len(named) - _FEW} more" if len(named) > _FEW else ""
        words = ", ".join(named[:_FEW]) + more or "-"
        yield f"| {source} | {there} | {loads} of {len(some)} | {risks} | {words} |"
