"""Results of births as data for the repository, and as the document that is written from it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from armferry.lab.births import Row

__all__ = ["births_text", "read_rows", "rows_text"]

_HEAD = """# Born as on another host

Written from `tests/e2e/births.json`, which the full run of `tests/e2e/test_boundary_births.py`
writes; that run has all 55 pairs of 11 kernels, and what is not in the tables was not run.

A guest is *born* on the newer kernel, where the KVM boundary presents the older one; it runs and
is saved. It is *taken* by stock QEMU on the older kernel, with nothing of armferry there, runs and
is saved. It comes *back* to the newer kernel, which presents the older one again, and runs. The
guest is bare-metal and notices what a move loses. Kernels are Debian's, on an emulated Neoverse N1.

What is done at the boundary is the same for each QEMU: how many registers are hidden, which are
set, which are carried. Where a step could not be done, its column has the register that prevents
it, by vCPU; `armferry-qemu` refuses such a birth by name before QEMU starts.
"""


def rows_text(rows: Iterable[Row]) -> str:
    """The rows as a JSON document."""
    return json.dumps([asdict(row) for row in rows], indent=1) + "\n"


def read_rows(text: str) -> list[Row]:
    """The rows of such a document."""
    return [_row(row) for row in json.loads(text)]


def _row(document: dict[str, Any]) -> Row:
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in document.items()
    }
    return Row(**values)


def births_text(rows: Sequence[Row]) -> str:
    """The document, newline at its end."""
    lines = [_HEAD]
    for qemu in dict.fromkeys(row.qemu for row in rows):
        of_it = [row for row in rows if row.qemu == qemu]
        working = sum(row.works for row in of_it)
        lines.append(f"## QEMU {qemu}, {of_it[0].machine}\n")
        lines.append(f"{len(of_it)} pairs, of which {working} went all the way.\n")
        lines.append("| newer kernel | presents | hidden | set | carried | born | taken | back |")
        lines.append("|" + "---|" * (len(fields(Row)) - 2))
        lines += map(_line, of_it)
        lines.append("")
    return "\n".join(lines)


def _line(row: Row) -> str:
    cells = [row.newer, row.older, str(len(row.hidden)), ", ".join(row.pinned) or "-"]
    cells += [", ".join(row.carried) or "-", *(one or "yes" for one in (row.born, row.taken))]
    return "| " + " | ".join([*cells, row.back or "yes"]) + " |"
