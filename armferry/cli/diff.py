"""`armferry diff`: two register lists side by side, no policy and no verdict."""

import argparse
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from armferry.cli import render, words
from armferry.cli.options import add_json
from armferry.cli.render import Cell, Table
from armferry.decide import differences
from armferry.decide.memory import BlockDifference, compare_memory, size_text
from armferry.errors import ArmferryError
from armferry.hosts.fingerprints.open_subject import STANDARD_INPUT, open_subject
from armferry.hosts.fingerprints.subject import Subject
from armferry.registers import Kind, describe, differing_fields, kind

__all__ = ["add_parsers"]

SCHEMA_VERSION = 1


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`diff A B`."""
    parser = commands.add_parser("diff")
    parser.add_argument("a", metavar="A", help="a stream or a fingerprint")
    parser.add_argument("b", metavar="B", help="the other one")
    add_json(parser)
    parser.set_defaults(func=run)


@dataclass(frozen=True, slots=True)
class _Difference:
    vcpu: int
    index: int
    a: int | None
    b: int | None


def run(arguments: argparse.Namespace) -> int:
    """Prints the differences; 0 whether or not there are any."""
    if arguments.a == arguments.b == STANDARD_INPUT:
        raise ArmferryError("standard input can be one of A and B only; name a file for the other")
    a, b = open_subject(arguments.a), open_subject(arguments.b)
    found = tuple(_differences(a, b))
    if arguments.json:
        print(json.dumps(_document(a, b, found), indent=1))
    else:
        _show(a, b, found)
    return 0


def _differences(a: Subject, b: Subject) -> Iterator[_Difference]:
    for vcpu, (left, right) in enumerate(zip(a.lists, b.lists, strict=False)):
        for index in sorted({*left, *right}):
            if left.get(index) != right.get(index):
                yield _Difference(vcpu, index, left.get(index), right.get(index))


def _show(a: Subject, b: Subject, found: tuple[_Difference, ...]) -> None:
    render.facts(
        [
            ("A", f"{a.text}: {words.end(a.fingerprint)}"),
            ("B", f"{b.text}: {words.end(b.fingerprint)}"),
        ]
    )
    groups = (
        ("Only in A", [one for one in found if one.b is None]),
        ("Only in B", [one for one in found if one.a is None]),
        ("Values that differ", [one for one in found if one.a is not None and one.b is not None]),
    )
    for title, group in groups:
        rows = _grouped(group)
        if rows:
            render.heading(f"{title}: {len(rows)}")
            render.table(
                Table(
                    ("register", "index", "vCPU", "A", "B", "fields"),
                    [_row(one, vcpus, a) for one, vcpus in rows],
                )
            )
    blocks = _blocks(a, b)
    if blocks:
        render.heading(f"Guest memory that differs: {len(blocks)}")
        render.table(
            Table(
                ("block", "A", "B", "what it is"),
                [
                    (
                        Cell(one.name),
                        Cell(_size(one.here)),
                        Cell(_size(one.there)),
                        Cell(one.kind.value),
                    )
                    for one in blocks
                ],
            )
        )
    render.line()
    pairs = zip(a.lists, b.lists, strict=False)
    common = sum(len(left.keys() & right.keys()) for left, right in pairs)
    several = ", all vCPUs together" if min(len(a.lists), len(b.lists)) > 1 else ""
    memory = f", {len(blocks)} in guest memory" if blocks else ""
    render.line(f"{common} registers in common, {len(found)} differences{several}{memory}")
    if len(a.lists) != len(b.lists):
        render.line(f"A has {len(a.lists)} vCPUs, B has {len(b.lists)}: the others were left out")
    render.next_step(shlex.join(["armferry", "check", a.text, "--to", b.text]))


def _blocks(a: Subject, b: Subject) -> tuple[BlockDifference, ...]:
    """Blocks of guest memory that differ, where both ends tell of them."""
    left, right = a.fingerprint.memory, b.fingerprint.memory
    return () if left is None or right is None else compare_memory(left, right, whole=True)


def _size(size: int | None) -> str:
    return "-" if size is None else size_text(size)


def _grouped(group: list[_Difference]) -> list[tuple[_Difference, list[int]]]:
    """Differences that are the same on several vCPUs once, with their vCPUs; by index."""
    found: dict[tuple[int, int | None, int | None], tuple[_Difference, list[int]]] = {}
    for one in group:
        found.setdefault((one.index, one.a, one.b), (one, []))[1].append(one.vcpu)
    return sorted(found.values(), key=lambda row: (row[0].index, row[1]))


def _row(one: _Difference, vcpus: list[int], a: Subject) -> tuple[Cell, ...]:
    return (
        Cell(describe(one.index, a.accelerator).name),
        Cell(f"{one.index:#018x}", "faint"),
        Cell(words.vcpus(vcpus)),
        Cell(words.value(one.a)),
        Cell(words.value(one.b)),
        Cell(_fields(one)),
    )


def _fields(one: _Difference) -> str:
    if one.a is None or one.b is None:
        present = one.b if one.a is None else one.a
        return words.fields(one.index, present or 0)
    if kind(one.index) is Kind.RUNNING_COUNTER:
        return "runs on"
    return differences(one.index, one.a, one.b)


def _document(a: Subject, b: Subject, found: tuple[_Difference, ...]) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "a": {"text": a.text, "machine": a.machine, "vcpus": len(a.lists)},
        "b": {"text": b.text, "machine": b.machine, "vcpus": len(b.lists)},
        "differences": [
            {
                "vcpu": one.vcpu,
                "index": f"{one.index:#018x}",
                "name": describe(one.index, a.accelerator).name,
                "kind": str(describe(one.index, a.accelerator).kind),
                "a": None if one.a is None else f"{one.a:#x}",
                "b": None if one.b is None else f"{one.b:#x}",
                "fields": {
                    difference.field.name: [difference.left, difference.right]
                    for difference in differing_fields(one.index, one.a or 0, one.b or 0)
                }
                if one.a is not None and one.b is not None
                else {},
            }
            for one in found
        ],
        "memory": [
            {"block": one.name, "difference": one.problem.value, "a": one.here, "b": one.there}
            for one in _blocks(a, b)
        ],
    }
