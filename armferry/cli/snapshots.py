"""The snapshots of a qcow2 image, listed: which hold a saved state, of what machine and when."""

import json
import shlex
from typing import Any

from armferry.cli import render
from armferry.cli.render import Cell, Table
from armferry.hosts.files.qcow2.format import Snapshot
from armferry.hosts.files.qcow2.image import Image
from armferry.hosts.files.saved_file import machine_of

__all__ = ["print_snapshots", "snapshot_words"]

SCHEMA_VERSION = 1
_NANOSECONDS = 1_000_000_000


def print_snapshots(file: str, image: Image, *, as_json: bool) -> None:
    """Every snapshot of `image`, which is in `file`, with the machine type of its state."""
    found = [(one, machine_of(image, one) if one.state_size else "") for one in image.snapshots]
    if as_json:
        snapshots = [_document(one, machine) for one, machine in found]
        print(
            json.dumps({"schema": SCHEMA_VERSION, "file": file, "snapshots": snapshots}, indent=1)
        )
        return
    render.facts([("file", file), ("holds", f"qcow2 image, {len(found)} snapshots")])
    render.heading("Snapshots")
    columns = ("name", "id", "taken", "bytes of saved state", "machine")
    render.table(Table(columns, [_row(one, machine) for one, machine in found]))
    if image.states:
        last = image.states[-1]
        alone = sum(one.name == last.name for one in image.snapshots) == 1
        name = shlex.quote(f"{file}#{last.name if alone else last.id}")
        render.next_step(f"armferry inspect {name}")
    else:
        render.line(
            "no snapshot here holds a saved state; QEMU keeps the state of a machine in one of its "
            "images, often in that of the UEFI variables: look at the others"
        )


def snapshot_words(snapshot: Snapshot) -> str:
    """A snapshot in a line: its name, when it was taken, the time its guest had run."""
    ran = snapshot.clock / _NANOSECONDS
    return f"snapshot {snapshot.name!r} of a qcow2 image, taken {snapshot.taken}, ran {ran:.0f} s"


def _row(snapshot: Snapshot, machine: str) -> tuple[Cell, ...]:
    return (
        Cell(_printable(snapshot.name)),
        Cell(_printable(snapshot.id)),
        Cell(snapshot.taken),
        Cell(f"{snapshot.state_size:,}" if snapshot.state_size else "none: a disk alone"),
        Cell(machine or "-"),
    )


def _document(snapshot: Snapshot, machine: str) -> dict[str, Any]:
    return {
        "id": _printable(snapshot.id),
        "name": _printable(snapshot.name),
        "date": snapshot.taken,
        "state_bytes": snapshot.state_size,
        "machine": machine,
    }


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
