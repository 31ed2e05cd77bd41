"""Stays of a guest in a lab host, many in one boot: born or come, run for a while, saved again.

Outside, `stay` gives a booted host a list of them; inside, the module is a program
(`python3 -m armferry.lab.stays`) that starts one QEMU after the other, with the KVM boundary's
library before those that have a table. Python starts once for all of them: under emulation that
takes longer than a QEMU does.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from armferry.lab.nested import KERNEL, SERIAL, STREAM, NestedQemu, Outcome, inside

if TYPE_CHECKING:
    from armferry.lab.host import LabHost

__all__ = ["Stay", "Stayed", "stay"]

_JOB = Path("/job")
_OUT = Path("/out")
_LIMIT = 300.0


@dataclass(frozen=True, slots=True)
class Stay:
    """One stay: `table` is the boundary's (empty: stock QEMU, nothing preloaded), `came` the
    stream the guest comes by (empty: it is born here), `log` what it has printed so far."""

    machine: str
    table: bytes = b""
    came: bytes = b""
    log: bytes = b""
    ticks: int = 2


@dataclass(frozen=True, slots=True)
class Stayed:
    """What came of it: `stream` is empty unless the guest could be saved; `trace` is that of
    the boundary."""

    outcome: Outcome
    stream: bytes
    log: bytes
    trace: tuple[str, ...]


def stay(host: "LabHost", guest: bytes, stays: Iterable[Stay]) -> list[Stayed]:
    """All stays, one after the other, of the test guest `guest`. Raises LabHostFault."""
    from armferry.lab.host import Job

    wanted = list(stays)
    files = {"guest": guest}
    for number, one in enumerate(wanted):
        parts = {"table": one.table, "came": one.came, "log": one.log}
        files |= {f"{number}.{what}": content for what, content in parts.items() if content}
    files["stays.json"] = json.dumps([(one.machine, one.ticks) for one in wanted]).encode()
    done = host.do(
        Job(("python3", "-m", "armferry.lab.stays"), files), time_limit=_LIMIT * len(wanted)
    )
    if done.completed.exit_code != 0:
        words = done.completed.stderr.decode("utf-8", "replace").strip()
        raise host.fault(f"could not hold {len(wanted)} stays: {words or 'its time was up'}")
    return [_read(done.out, number) for number in range(len(wanted))]


def _read(out: Mapping[str, bytes], number: int) -> Stayed:
    said = json.loads(out[f"{number}.json"])
    return Stayed(
        Outcome(**said["outcome"]),
        out.get(f"{number}.stream", b""),
        out.get(f"{number}.log", b""),
        tuple(said["trace"]),
    )


def _main() -> None:
    os.makedirs(os.path.dirname(KERNEL), exist_ok=True)
    shutil.copy(_JOB / "guest", KERNEL)
    for number, (machine, ticks) in enumerate(json.loads((_JOB / "stays.json").read_text())):
        outcome, lines = _hold(number, machine, ticks)
        document = {"outcome": asdict(outcome), "trace": lines}
        (_OUT / f"{number}.json").write_text(json.dumps(document))
        if outcome.completed and os.path.exists(STREAM):
            shutil.move(STREAM, _OUT / f"{number}.stream")
        if os.path.exists(SERIAL):
            shutil.move(SERIAL, _OUT / f"{number}.log")


def _hold(number: int, machine: str, ticks: int) -> tuple[Outcome, list[str]]:
    for path, what in ((SERIAL, "log"), (STREAM, "came")):
        Path(path).unlink(missing_ok=True)
        if (source := _JOB / f"{number}.{what}").exists():
            shutil.copy(source, path)
    log = ("-chardev", f"file,id=log,path={SERIAL},append=on", "-serial", "chardev:log")
    qemu = NestedQemu(machine, extra=("-kernel", KERNEL, *log))
    request: dict[str, Any] = {
        "arguments": qemu.arguments(),
        "incoming": os.path.exists(STREAM),
        "outgoing": True,
        "ticks": ticks,
    }
    table = _JOB / f"{number}.table"
    if not table.exists():
        return inside(request), []
    from armferry.boundary import Event, Preload, events_of, library, lines_of

    own = library()
    assert own is not None, "lab hosts have it"
    preload = Preload.of(table.read_bytes(), own)
    with preload.reports as reports:
        outcome = inside(request, preload)
        preload.close_for_qemu()
        events: list[Event] = []
        while message := reports.recv(1 << 16):
            events += events_of(message)
    return outcome, lines_of(events)


if __name__ == "__main__":
    _main()
