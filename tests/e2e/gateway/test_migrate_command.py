"""`armferry migrate` with real QEMUs and their QMP sockets."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from armferry.hosts.monitor import CommandRefused, Monitor, MonitorFault

pytestmark = pytest.mark.qemu

OLD, POINT, NEW = "10.0.2", "10.0.13", "11.1.3"
LIMIT = 60.0


@contextlib.contextmanager
def two(rig: Any, old: str, new: str, *, hold: bool = False) -> Iterator[tuple[Any, Any]]:
    """A source and a destination that can also be reached at QMP sockets of their own."""
    spec = rig.spec()

    def with_monitor(name: str) -> Any:
        return replace(spec, extra=("-qmp", f"unix:{rig.folder}/{name},server=on,wait=off"))

    with (
        rig.source(old, with_monitor("source.qmp")) as source,
        rig.destination(new, with_monitor("destination.qmp"), hold=hold) as destination,
    ):
        rig.runs_on(2)
        yield source, destination


def command(rig: Any, new: str, *words: str) -> list[str]:
    return [
        *(sys.executable, "-m", "armferry", "migrate"),
        *("--source", f"unix:{rig.folder}/source.qmp"),
        *("--destination", f"unix:{rig.folder}/destination.qmp"),
        *("--qemu", str(rig.qemu_release(new).launcher), *words),
    ]


@pytest.mark.parametrize(
    ("words", "mode", "channels"),
    [
        ((), "precopy", 1),
        (("--multifd", "2"), "precopy", 3),
        (("--postcopy-after", "0.3", "--bandwidth", "1000000"), "postcopy", 1),
    ],
)
def test_the_whole_move(words: tuple[str, ...], mode: str, channels: int, rig: Any) -> None:
    with two(rig, OLD, POINT) as (source, destination):
        done = subprocess.run(
            command(rig, POINT, "--json", *words), capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["outcome"], told["mode"], told["channels"]) == ("completed", mode, channels)
        assert destination.status() == "running"
        assert source.status() == "postmigrate"
        rig.runs_on()


def test_refusal_before_anything_was_begun(rig: Any) -> None:
    fingerprint = rig.folder / "source.json"
    fingerprint.write_text(rig.document(POINT))
    with two(rig, POINT, NEW) as (source, destination):
        done = subprocess.run(
            command(rig, NEW, "--source-fingerprint", str(fingerprint)),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("armferry: the move is refused: ID_AA64ISAR0_EL1: ")
        assert done.stderr.endswith("; nothing was begun\n")
        assert source.status() == "running"
        assert destination.status() == "inmigrate"
        rig.runs_on()


def test_refusal_on_the_way(rig: Any) -> None:
    with two(rig, POINT, NEW):
        done = subprocess.run(command(rig, NEW), capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 2
        assert done.stderr.startswith("armferry: the move is refused: ID_AA64ISAR0_EL1: ")
        assert done.stderr.endswith("; the guest is on the source (running)\n")
        rig.runs_on()


def test_interrupt_cancels_cleanly(rig: Any) -> None:
    with two(rig, OLD, POINT, hold=True) as (source, _):
        words = command(rig, POINT, "--bandwidth", "1000000")
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as moving:
            rig.wait_status(source, "active")
            moving.send_signal(signal.SIGINT)
            _, said = moving.communicate(timeout=LIMIT)
        assert said == "armferry: cancelled: the guest stays on the source\n"
        assert source.execute("query-migrate")["status"] == "cancelled"
        assert source.status() == "running"
        rig.runs_on()


def test_destination_that_waits_for_nobody(rig: Any) -> None:
    with two(rig, OLD, POINT):
        words = command(rig, POINT)
        words[words.index("--destination") + 1] = f"unix:{rig.folder}/source.qmp"
        words[words.index("--source") + 1] = f"unix:{rig.folder}/destination.qmp"
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 4
        assert done.stderr == (
            f"armferry: unix:{rig.folder}/source.qmp: this QEMU does not wait for a guest (it is "
            "running); start it with -incoming defer\n"
        )


def test_monitor_tells_what_is_wrong(rig: Any) -> None:
    with pytest.raises(MonitorFault) as fault:
        Monitor(f"unix:{rig.folder}/nobody")
    assert str(fault.value).startswith(f"unix:{rig.folder}/nobody: no QMP monitor answers: ")
    with two(rig, OLD, POINT), Monitor(f"unix:{rig.folder}/source.qmp") as monitor:
        assert monitor.execute("query-status")["status"] == "running"
        with pytest.raises(CommandRefused) as refused:
            monitor.execute("no-such-command")
        assert str(refused.value) == (
            f"unix:{rig.folder}/source.qmp: no-such-command was refused: The command "
            "no-such-command has not been found"
        )
