"""`armferry migrate` with real QEMUs and their QMP sockets."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from armferry.hosts.qmp.client import CommandRefused, Monitor, MonitorFault

pytestmark = pytest.mark.qemu

OLD, POINT, NEW = "10.0.2", "10.0.13", "11.1.3"
LIMIT = 60.0
SCREENS = Path(__file__).parent / "screens"


@contextlib.contextmanager
def two(
    rig: Any, old: str, new: str, *, hold: bool = False, spec: Any = None, runs: bool = True
) -> Iterator[tuple[Any, Any]]:
    """A source and a destination that can also be reached at QMP sockets of their own."""
    spec = spec or rig.spec()

    def with_monitor(name: str) -> Any:
        return replace(spec, extra=("-qmp", f"unix:{rig.folder}/{name},server=on,wait=off"))

    with (
        rig.source(old, with_monitor("source.qmp")) as source,
        rig.destination(new, with_monitor("destination.qmp"), hold=hold) as destination,
    ):
        if runs:
            rig.runs_on(2)
        yield source, destination


def command(rig: Any, new: str, *words: str) -> list[str]:
    return [
        *(sys.executable, "-m", "armferry", "migrate"),
        *("--source", f"unix:{rig.folder}/source.qmp"),
        *("--destination", f"unix:{rig.folder}/destination.qmp"),
        *("--qemu", str(rig.qemu_release(new).launcher), *words),
    ]


POSTCOPY = ("--postcopy-after", "0.3", "--bandwidth", "1000000")


def known(rig: Any) -> tuple[str, str]:
    """What lets the move be decided before it begins."""
    return "--source-qemu", str(rig.qemu_release(OLD).launcher)


@pytest.mark.parametrize(
    ("words", "mode", "channels"),
    [
        ((), "precopy", 1),
        (("--multifd", "2"), "precopy", 3),
        (POSTCOPY, "postcopy", 1),
    ],
)
def test_the_whole_move(words: tuple[str, ...], mode: str, channels: int, rig: Any) -> None:
    with two(rig, OLD, POINT) as (source, destination):
        done = subprocess.run(
            command(rig, POINT, "--json", *words, *known(rig)),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert (done.returncode, done.stderr) == (0, "")
        told = json.loads(done.stdout)
        assert (told["outcome"], told["mode"], told["channels"]) == ("completed", mode, channels)
        assert destination.status() == "running"
        assert source.status() == "postmigrate"
        rig.runs_on()


@pytest.mark.parametrize(
    ("machine", "cpu"),
    [
        ("virt-10.0,virtualization=on", "max"),
        ("virt-10.0", "max,pmu=off"),
        ("virt-10.0,mte=on,gic-version=3,its=off", "max,sve-max-vq=2,pauth=off"),
    ],
)
def test_two_of_a_kind_whatever_their_properties(machine: str, cpu: str, rig: Any) -> None:
    """The QEMU that is probed has the properties of the one that runs, or none would fit."""
    spec = rig.spec(machine=machine, cpu=cpu)
    runs = "virtualization" not in machine  # the test guest does not start at EL2
    with two(rig, POINT, POINT, spec=spec, runs=runs) as (_, destination):
        words = command(rig, POINT, "--json", "--source-qemu", program(rig, POINT))
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)
        assert (done.returncode, done.stderr) == (0, "")
        told = json.loads(done.stdout)
        assert told["outcome"] == "completed"
        assert told["verdict"]["verdict"] == "works"
        assert destination.status() == "running"
        if runs:
            rig.runs_on()


def program(rig: Any, release: str) -> str:
    return str(rig.qemu_release(release).launcher)


@pytest.mark.parametrize("option", ["--qemu", "--source-qemu"])
def test_a_program_of_another_version_is_not_probed_for_the_running_one(
    option: str, rig: Any
) -> None:
    with two(rig, OLD, POINT) as (source, destination):
        words = [*command(rig, POINT), option, program(rig, NEW)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)
        running = (POINT, "destination") if option == "--qemu" else (OLD, "source")
        assert done.returncode == 4
        assert done.stderr == (
            f"armferry: {option}: {program(rig, NEW)} is QEMU 11.1.3 and the running one is "
            f"{running[0]}: name the program of that one (running at "
            f"unix:{rig.folder}/{running[1]}.qmp)\n"
        )
        assert (source.status(), destination.status()) == ("running", "inmigrate")


DECIDED_FIRST: dict[str, Callable[[Any], tuple[str, str]]] = {
    "a fingerprint": lambda rig: ("--source-fingerprint", str(rig.folder / "source.json")),
    "its QEMU": lambda rig: ("--source-qemu", str(rig.qemu_release(OLD).launcher)),
}


def settings(machine: Any) -> tuple[Any, Any]:
    """Everything that a move may have set."""
    return (
        machine.execute("query-migrate-capabilities"),
        machine.execute("query-migrate-parameters"),
    )


@pytest.mark.parametrize("known", DECIDED_FIRST)
def test_refusal_before_anything_was_begun(known: str, rig: Any) -> None:
    (rig.folder / "source.json").write_text(rig.document(OLD))
    with two(rig, OLD, POINT) as (source, destination):
        before = settings(source), settings(destination)
        words = command(rig, POINT, "--no-builtin", *DECIDED_FIRST[known](rig))
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 2
        assert done.stderr.startswith("armferry: the move is refused: DBGDTRTX: ")
        assert done.stderr.endswith("; nothing was begun\n")
        assert source.status() == "running"
        assert destination.status() == "inmigrate"
        assert (settings(source), settings(destination)) == before
        rig.runs_on()


NIC = ("-device", "virtio-net-pci,romfile=")


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        (
            {},
            {"memory": 128},
            (
                "memory block mach-virt.ram (the board's memory) has 64 MiB here, 128 MiB on the "
                "destination: start the destination with -m 64M"
            ),
        ),
        (
            {},
            {"machine": "virt-9.2"},
            "the guest's machine type is virt-10.0, the destination was asked about virt-9.2: ",
        ),
        (
            {"extra": NIC},
            {"extra": ("-device", "virtio-rng-pci", *NIC)},
            (
                "the guest has the PCI device 1af4:1000 at 01.0, the destination the PCI device "
                "1af4:1005; nothing was begun"
            ),
        ),
        ({"smp": 2}, {"smp": 1}, "the guest has 2 vCPUs, the destination 1"),
    ],
    ids=["memory", "machine", "device", "vcpus"],
)
def test_refusal_of_what_stands_around_the_registers(
    here: dict[str, Any], there: dict[str, Any], said: str, rig: Any
) -> None:
    """Both QEMUs run and say what they have: nothing is set, nothing is sent."""

    def spec(changes: dict[str, Any], name: str) -> Any:
        made = rig.spec(**changes)
        return replace(
            made,
            extra=(*made.extra, "-qmp", f"unix:{rig.folder}/{name}.qmp,server=on,wait=off"),
        )

    with (
        rig.source(POINT, spec(here, "source")) as source,
        rig.destination(POINT, spec(there, "destination")) as destination,
    ):
        before = settings(source), settings(destination)
        done = subprocess.run(command(rig, POINT), capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(f"armferry: the move is refused: {said}"), done.stderr
        assert done.stderr.endswith("; nothing was begun\n")
        assert (settings(source), settings(destination)) == before
        assert (source.status(), destination.status()) == ("running", "inmigrate")


def test_refusal_on_the_way(rig: Any) -> None:
    with two(rig, OLD, POINT) as (source, destination):
        before = settings(source)
        done = subprocess.run(
            command(rig, POINT, "--no-builtin", "--json", "--bandwidth", "200000000"),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 2
        assert json.loads(done.stdout)["outcome"] == "refused"
        note, said = done.stderr.splitlines()
        assert note == NOT_KNOWN
        assert said.startswith("armferry: the move is refused: DBGDTRTX: ")
        assert said.endswith("; the guest is on the source (running)")
        assert settings(source) == before
        assert destination.wait() != 0
        rig.runs_on()


NOT_KNOWN = (
    "note: the source's registers are not known before it sends them, so it is decided on the "
    "way; --source-qemu or --source-fingerprint decides before the move begins"
)


def test_interrupt_cancels_cleanly(rig: Any) -> None:
    with two(rig, OLD, POINT, hold=True) as (source, destination):
        before = settings(source)
        words = command(rig, POINT, "--bandwidth", "1000000", "--multifd", "2")
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as moving:
            rig.wait_status(source, "active")
            assert settings(source) != before
            moving.send_signal(signal.SIGINT)
            _, said = moving.communicate(timeout=LIMIT)
        assert moving.returncode == 4
        assert said == f"{NOT_KNOWN}\narmferry: cancelled: the guest stays on the source\n"
        assert source.execute("query-migrate")["status"] == "cancelled"
        assert source.status() == "running"
        assert settings(source) == before
        destination.wait()  # by itself, or asked to: with channels missing it would wait for ever
        rig.runs_on()


def test_interrupt_after_the_switch_to_postcopy_comes_too_late(rig: Any) -> None:
    """Cancelling would lose the guest on both sides."""
    with two(rig, OLD, POINT) as (source, destination):
        source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 1 << 20})
        words = command(rig, POINT, *POSTCOPY, *known(rig))
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as moving:
            rig.wait_status(source, "postcopy-active")
            moving.send_signal(signal.SIGINT)
            assert moving.stderr is not None
            assert moving.stderr.readline().startswith("note: too late to cancel: ")
            source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 0})
            assert moving.wait(LIMIT) == 0
        assert destination.status() == "running"
        rig.runs_on()


def test_network_that_fails_after_the_switch_to_postcopy_is_told(rig: Any) -> None:
    with two(rig, OLD, POINT) as (source, destination):
        source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 1 << 20})
        words = command(rig, POINT, *POSTCOPY, *known(rig))
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as moving:
            rig.wait_status(source, "postcopy-active")
            rig.wait_status(destination, "postcopy-active")
            destination.execute("migrate-pause")
            _, said = moving.communicate(timeout=LIMIT)
        assert moving.returncode == 4
        assert "the network failed after the switch to postcopy" in said
        rig.wait_status(destination, "postcopy-paused")
        (rig.folder / "destination.json").write_text(rig.document(POINT))
        ends = ("--listen", f"unix:{rig.folder}/in", "--connect", f"unix:{rig.folder}/out")
        again = [sys.executable, "-m", "armferry", "gateway", *ends]
        again += ["--to", f"{rig.folder}/destination.json"]
        with subprocess.Popen(again, stderr=subprocess.PIPE, text=True) as gateway:
            assert gateway.stderr is not None
            assert gateway.stderr.readline().startswith("listening on ")
            destination.execute("migrate-recover", {"uri": f"unix:{rig.folder}/out"})
            source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 0})
            source.execute("migrate", {"uri": f"unix:{rig.folder}/in", "resume": True})
            rig.wait_status(source, "completed")
            assert gateway.wait(LIMIT) == 0
        rig.runs_on()


def test_pause_before_switchover_is_ended_by_the_move_itself(rig: Any) -> None:
    with two(rig, OLD, POINT) as (_, destination):
        words = command(rig, POINT, "--capability", "pause-before-switchover")
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stderr
        assert destination.status() == "running"
        rig.runs_on()


def test_destination_that_is_to_wait_is_told_of(rig: Any) -> None:
    with two(rig, OLD, POINT, hold=True) as (_, destination):
        done = subprocess.run(command(rig, POINT), capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stderr
        assert re.match("the guest waits on unix:.*destination.qmp for `cont`: ", done.stdout)
        assert destination.status() == "paused"
        destination.cont()
        rig.runs_on()


def test_progress_is_shown_on_a_terminal(rig: Any) -> None:
    with two(rig, OLD, POINT) as (source, _):
        ours, theirs = os.openpty()
        words = command(rig, POINT, "--bandwidth", "2000000")
        with subprocess.Popen(words, stderr=theirs, stdout=subprocess.PIPE, text=True) as moving:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # Linux ends a terminal with EIO
                while piece := os.read(ours, 4_096):
                    shown += piece
                    if shown.count(b"active: ") == 4:  # enough was seen: let it arrive
                        source.execute("migrate-set-parameters", {"max-bandwidth": 8 << 30})
            said, _ = moving.communicate(timeout=LIMIT)
        os.close(ours)
        assert moving.returncode == 0, shown
        lines = shown.decode().split("\r\033[K")
        form = (
            r"active: \d+ MB sent, \d+ MB left, \d+ MB/s, \d+ dirty pages/s, "
            r"expected downtime \d+ ms"
        )
        assert sum(bool(re.fullmatch(form, line)) for line in lines) >= 3, lines
        assert lines[-1] == "", "the line is taken away"
        ending = (
            r"the guest runs on unix:\S+: \d+\.\d MB in \d+\.\d s, downtime \d+ ms \(precopy\); "
            r"\d+ register differences?, risk lossless\n(note: .*\n)*"
        )
        assert re.fullmatch(ending, said), said
        rig.runs_on()


@pytest.mark.parametrize("columns", [80, 120])
def test_screen_of_a_move(columns: int, rig: Any) -> None:
    """What stays on the screen; `…` stands for numbers of this move."""
    with two(rig, OLD, POINT):
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        words = command(rig, POINT)
        ends = [one.replace(f"unix:{rig.folder}/", "unix:") for one in words]
        with subprocess.Popen(
            ends,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=rig.folder,
            env={**kept, "TERM": "xterm", "NO_COLOR": "1"},
        ) as moving:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # Linux ends a terminal with EIO
                while piece := os.read(ours, 4_096):
                    shown += piece
            os.close(ours)
            assert moving.wait(timeout=LIMIT) == 0, shown
        rig.runs_on()
    stays = re.sub(r"\r\033\[K[^\r]*(?=\r\033\[K)|\r\033\[K", "", shown.decode())
    expected = (SCREENS / f"migrate-{columns}.txt").read_text(encoding="utf-8")
    pattern = ".*?".join(map(re.escape, expected.split("…")))
    assert re.fullmatch(pattern, stays.replace("\r\n", "\n"), re.S), stays


def test_what_cannot_be_honoured_is_refused_by_name(rig: Any) -> None:
    with two(rig, OLD, POINT) as (source, destination):
        source.execute("migrate-set-capabilities", {"capabilities": [DIRTY_BITMAPS]})
        before = settings(source), settings(destination)
        for words, code, told in (
            (("--capability", "x-colo"), 3, "--capability x-colo cannot be honoured: COLO keeps "),
            (("--postcopy-after", "1"), 4, "dirty-bitmaps is on"),
            ((), 4, "source.qmp: the capability dirty-bitmaps is on: bitmaps of disks travel in "),
        ):
            done = subprocess.run(
                command(rig, POINT, *words), capture_output=True, text=True, timeout=LIMIT
            )
            assert done.returncode == code
            assert told in done.stderr
            assert (settings(source), settings(destination)) == before
        rig.runs_on()


def test_postcopy_must_be_decided_before_it_begins(rig: Any) -> None:
    with two(rig, OLD, POINT) as (source, destination):
        done = subprocess.run(
            command(rig, POINT, *POSTCOPY), capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 3
        assert done.stderr == (
            "armferry: after the switch to postcopy a source cannot go on by itself, so such a "
            "move must be decided before it begins: give --source-qemu or --source-fingerprint\n"
        )
        assert (source.status(), destination.status()) == ("running", "inmigrate")


DIRTY_BITMAPS = {"capability": "dirty-bitmaps", "state": True}


def test_tls_that_is_not_ended_here_is_refused_by_name(rig: Any, credentials: Any) -> None:
    with two(rig, OLD, POINT) as (source, destination):
        rig.with_credentials(source, credentials("one"), "client")
        for end in ("source", "destination"):
            done = subprocess.run(
                command(rig, POINT), capture_output=True, text=True, timeout=LIMIT
            )
            assert done.returncode == 4
            assert f"{end}.qmp: its migrations use TLS (tls-creds is tls), " in done.stderr
            assert destination.status() == "inmigrate"
            source.execute("migrate-set-parameters", {"tls-creds": ""})
            if end == "source":
                rig.with_credentials(destination, credentials("two"), "server")
        rig.runs_on()


def test_tls_on_both_sides(rig: Any, credentials: Any) -> None:
    with two(rig, OLD, POINT) as (source, destination):
        rig.with_credentials(source, credentials("one"), "client")
        rig.with_credentials(destination, credentials("two"), "server")
        words = ["--tls-listen", credentials("one"), "--tls-connect", credentials("two")]
        words += ["--tls-hostname", "localhost", "--multifd", "2"]
        done = subprocess.run(
            command(rig, POINT, *map(str, words)), capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 0, done.stderr
        assert destination.status() == "running"
        rig.runs_on()


def test_destination_that_waits_for_nobody(rig: Any) -> None:
    with two(rig, OLD, POINT):
        words = command(rig, OLD)
        words[words.index("--destination") + 1] = f"unix:{rig.folder}/source.qmp"
        words[words.index("--source") + 1] = f"unix:{rig.folder}/destination.qmp"
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 4
        assert done.stderr == (
            f"armferry: unix:{rig.folder}/source.qmp: this QEMU does not wait for a guest (it is "
            "running); start it with -incoming defer\n"
        )


NOT_TOLD = {
    ("--listen", "tcp::0"): "a QEMU is to connect there, so name the address at which it ",
    ("--connect", "tcp:127.0.0.1:0"): "name the port that QEMU is to listen on",
    ("--connect", "exec:cat"): "both QEMUs must be able to open it: tcp: or unix:",
    ("--listen", "fd:3"): "both QEMUs must be able to open it: tcp: or unix:",
}


def test_addresses_that_a_qemu_cannot_be_told(rig: Any) -> None:
    (rig.folder / "destination.json").write_text(rig.document(POINT))
    with two(rig, OLD, POINT) as (source, destination):
        for words, told in NOT_TOLD.items():
            given = command(rig, POINT, "--to", f"{rig.folder}/destination.json", *words)
            done = subprocess.run(given, capture_output=True, text=True, timeout=LIMIT)
            assert done.returncode == 3
            assert done.stderr.startswith(f"armferry: {' '.join(words)}: {told}")
        assert destination.status() == "inmigrate"
        assert source.execute("query-migrate") == {}


def test_over_tcp(rig: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with two(rig, OLD, POINT) as (_, destination):
        words = ("--listen", "tcp:127.0.0.1:0", "--connect", f"tcp:127.0.0.1:{port}")
        done = subprocess.run(
            command(rig, POINT, *words), capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 0, done.stderr
        assert destination.status() == "running"
        rig.runs_on()


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
