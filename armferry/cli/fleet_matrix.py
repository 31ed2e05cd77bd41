"""`armferry fleet matrix|why|stranded|drain-check|baseline`: the questions, shown."""

import argparse
import json
import shlex
from typing import Any

from armferry.cli import render
from armferry.cli.baseline import baseline_of
from armferry.cli.fleet_open import open_standing, open_store
from armferry.cli.judgement import EXIT_CODES, Report, document
from armferry.cli.render import Cell as Shown
from armferry.cli.render import Table
from armferry.cli.verdict_text import show
from armferry.decide import judge
from armferry.ends import Move
from armferry.errors import ArmferryError
from armferry.fleet.drain import Placement, drain_check
from armferry.fleet.model import Answer, Cell
from armferry.fleet.questions import By, Matrix, matrix, stranded, stranded_guests
from armferry.fleet.standing import Standing
from armferry.fleet.states import state_end
from armferry.fleet.store.reading import UnknownName
from armferry.hosts.fingerprints.subject import Subject

__all__ = ["cell_json", "run_baseline", "run_drain", "run_matrix", "run_stranded", "run_why"]

SCHEMA_VERSION = 1
_ROLES = {
    Answer.STOCK: "good",
    Answer.ARMFERRY: "good",
    Answer.GUEST: "warn",
    Answer.NEVER: "bad",
}


def run_matrix(arguments: argparse.Namespace) -> int:
    """Prints the matrix."""
    standing = open_standing(arguments)
    found = matrix(standing, By(arguments.by), arguments.kind)
    if arguments.svg is not None:
        from armferry.hosts.files.atomic import write_whole
        from armferry.web.picture import matrix_svg

        write_whole(arguments.svg, matrix_svg(found))
    if arguments.json:
        print(json.dumps(_matrix_json(found), indent=1))
        return 0
    _show_matrix(found)
    if arguments.svg is not None:
        render.line(f"wrote {arguments.svg}")
    return 0


def _show_matrix(found: Matrix) -> None:
    names = list(found.groups)
    rows = []
    for source in names:
        cells = [Shown(f"{source} ({found.groups[source]})")]
        for destination in names:
            group = found.cells.get((source, destination))
            if group is None:
                cells.append(Shown("?", "faint"))
                continue
            mark = "*" if group.cell.risk > 1 else ""
            one_way = ">" if found.one_way(source, destination) else ""
            mixed = "~" if group.mixed else ""
            text = f"{group.cell.answer.letter}{mark}{mixed}{one_way}"
            cells.append(Shown(text, _ROLES[group.cell.answer]))
        rows.append((*cells, Shown("")))
    numbers = [str(number) for number in range(1, len(names) + 1)]
    rows = [(Shown(str(number)), *row) for number, row in enumerate(rows, 1)]
    render.table(Table(("", f"from {found.by.value} (hosts) to", *numbers, ""), rows))
    render.line()
    render.line(
        "S the destination's QEMU alone, A with armferry, G depends on the guest, N never, "
        "? no kind of guest in common"
    )
    render.line(
        "* the guest notices or loses something, ~ the worst of several classes, > no way back"
    )


def _matrix_json(found: Matrix) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "by": found.by.value,
        "kinds": list(found.kinds),
        "groups": [{"name": name, "hosts": hosts} for name, hosts in found.groups.items()],
        "cells": [
            {
                "from": source,
                "to": destination,
                **cell_json(group.cell),
                "hosts": {answer.value: hosts for answer, hosts in group.hosts.items()},
                "one_way": found.one_way(source, destination),
            }
            for (source, destination), group in found.cells.items()
        ],
    }


def cell_json(cell: Cell) -> dict[str, Any]:
    """A cell as a JSON object."""
    return {
        "answer": cell.answer.value,
        "risk": str(cell.risk),
        "verdict": cell.verdict,
        "stock": cell.stock,
        "conditions": [str(one) for one in cell.conditions],
        "lossless_if": [str(one) for one in cell.lossless_if],
        "why": cell.why,
    }


def run_why(arguments: argparse.Namespace) -> int:
    """The whole verdict on a move from A to B; exit code as `armferry check`."""
    standing = open_standing(arguments)
    source, destination, kind = _pair(standing, arguments)
    here, there = standing.store.fingerprints(source), standing.store.fingerprints(destination)
    end = standing.ends(source)[0]
    notes: tuple[str, ...] = ()
    if arguments.guest is not None:
        guest = standing.store.guest(arguments.guest)
        if guest.birth != source and guest.birth in standing.store.fingerprinted:
            end = state_end(standing.ends(guest.birth)[0], end, standing.policy(end))
            notes = (f"the guest was born on class {guest.birth}",)
    policy = standing.policy(end)
    reports = [
        Report(
            Subject(_text(arguments.source, source), here[0], None),
            Subject(_text(arguments.destination, destination), one, None),
            policy,
            judge(Move.between(end, goal), policy),
            notes,
        )
        for one, goal in zip(there, standing.ends(destination), strict=True)
    ]
    best = min(reports, key=lambda one: (EXIT_CODES[one.verdict.answer], one.verdict.risk))
    birth = source if arguments.guest is None else standing.store.guest(arguments.guest).birth
    cell = standing.relation.cell(
        birth if birth in standing.store.fingerprinted else source, source, destination
    )
    standing.relation.keep()
    if arguments.json:
        answer = {"fleet": {"kind": kind, "classes": [source, destination], **cell_json(cell)}}
        print(json.dumps({**document(best), **answer}, indent=1))
    else:
        show(best, verbose=arguments.verbose)
        for condition in cell.conditions:
            render.line(f"works if {condition}", "warn")
        for condition in cell.lossless_if:
            render.line(f"nothing is lost if {condition}", "warn")
    return EXIT_CODES[best.verdict.answer]


def _text(word: str, class_id: str) -> str:
    return word if word == class_id else f"{word} (class {class_id})"


def _pair(standing: Standing, arguments: argparse.Namespace) -> tuple[str, str, str]:
    """The classes of A and B for one kind of guest, and the kind. Raises UnknownName."""
    kind = arguments.kind
    if arguments.guest is not None:
        kind = standing.store.guest(arguments.guest).kind
    here, there = (_classes(standing, word) for word in (arguments.source, arguments.destination))
    common = [one for one in here if one in there and kind in (None, one)]
    if not common:
        what = f"the kind of guest {kind}" if kind else "a kind of guest"
        raise UnknownName(
            f"{arguments.source} and {arguments.destination} have no fingerprint in common for "
            f"{what}: {arguments.source} has {', '.join(here) or 'none'}"
        )
    if len(common) > 1:
        listed = ", ".join(map(shlex.quote, common))
        raise UnknownName(f"name a kind of guest with --kind: {listed}")
    return here[common[0]], there[common[0]], common[0]


def _classes(standing: Standing, word: str) -> dict[str, str]:
    """Kind -> class of a host or of the class itself."""
    for one in standing.classes:
        if one.id == word:
            return {one.kind: one.id}
    return {
        kind: one
        for kind, one in standing.store.host(word).classes.items()
        if one in standing.store.fingerprinted
    }


def run_stranded(arguments: argparse.Namespace) -> int:
    """Guests that have nowhere to go; 2 when there are any."""
    standing = open_standing(arguments)
    states = stranded(standing)
    guests = stranded_guests(standing, states, arguments.most)
    why = {(one.birth, one.present): one.why for one in states}
    hosts = {one.name: one for one in standing.store.hosts(sorted({g.host for g in guests}))}
    count = sum(one.guests for one in states)
    rows = []
    for guest in guests:
        present = hosts[guest.host].class_of(guest.kind) or next(
            one.present for one in states if one.birth == guest.birth
        )
        rows.append((guest, why[guest.birth, present]))
    if arguments.json:
        listed = [
            {"id": g.id, "name": g.name, "host": g.host, "kind": g.kind, "birth": g.birth, "why": w}
            for g, w in rows
        ]
        print(json.dumps({"schema": SCHEMA_VERSION, "stranded": count, "guests": listed}, indent=1))
    else:
        columns = ("guest", "id", "host", "why")
        render.table(
            Table(columns, [(Shown(g.name), Shown(g.id), Shown(g.host), Shown(w)) for g, w in rows])
        )
        if len(rows) < count:
            render.line(f"{len(rows)} of {count} guests; --most N shows more")
        render.line(f"{count} guests have nowhere to go", "bad" if count else "good")
        if rows:
            first = rows[0][0]
            render.next_step(f"armferry fleet why {first.host} DESTINATION --guest {first.id}")
    return 2 if count else 0


def run_drain(arguments: argparse.Namespace) -> int:
    """Whether a host can be emptied: 0, 1 when it hangs on the guests, 2 when it cannot."""
    standing = open_standing(arguments)
    placed = drain_check(standing, arguments.host)
    stuck = [one for one in placed if one.destination is None]
    unsure = [one for one in placed if one.cell is not None and one.cell.conditions]
    if arguments.json:
        rows = [
            {
                "guest": one.guest.id,
                "name": one.guest.name,
                "destination": one.destination,
                "cell": None if one.cell is None else cell_json(one.cell),
                "why": one.why,
            }
            for one in placed
        ]
        print(json.dumps({"schema": SCHEMA_VERSION, "guests": rows}, indent=1))
    else:
        _show_drain(placed, arguments.host)
    return 2 if stuck else 1 if unsure else 0


def _show_drain(placed: tuple[Placement, ...], name: str) -> None:
    rows = []
    for one in placed:
        cell = one.cell
        role = "bad" if one.destination is None or cell is None else _ROLES[cell.answer]
        said = one.why or ("" if cell is None else "; ".join(f"if {c}" for c in cell.conditions))
        answer = "-" if one.destination is None or cell is None else cell.answer.value
        rows.append(
            (
                Shown(one.guest.name or one.guest.id),
                Shown(one.destination or "nowhere", role),
                Shown(answer),
                Shown(said),
            )
        )
    render.table(Table(("guest", "to", "by", ""), rows))
    stuck = sum(one.destination is None for one in placed)
    if not placed:
        render.line(f"{name} has no guests", "good")
    elif stuck:
        render.line(f"{stuck} of {len(placed)} guests of {name} have no place", "bad")
    else:
        render.line(f"every guest of {name} has a place: {len(placed)}", "good")


def run_baseline(arguments: argparse.Namespace) -> int:
    """`armferry baseline` on the classes of the stored hosts."""
    store = open_store(arguments)
    wanted = {row.class_id for row in store.tallies() if arguments.site in (None, row.site)}
    classes = [one for one in store.classes() if one.id in wanted]
    kinds = sorted({one.kind for one in classes if arguments.kind in (None, one.kind)})
    if not kinds:
        raise ArmferryError("no host of that kind and site has a fingerprint; see fleet hosts")
    if len(kinds) > 1:
        raise ArmferryError(f"name a kind of guest: {', '.join(map(shlex.quote, kinds))}")
    subjects = [
        Subject(f"class {one.id} ({' '.join(one.kernels)})", fingerprint, None)
        for one in classes
        if one.kind == kinds[0]
        for fingerprint in store.fingerprints(one.id)
    ]
    again = ["armferry", "fleet", "baseline", "--store", arguments.store, "--kind", kinds[0]]
    if arguments.site is not None:
        again += ["--site", arguments.site]
    return baseline_of(subjects, arguments.output, as_json=arguments.json, again=shlex.join(again))
