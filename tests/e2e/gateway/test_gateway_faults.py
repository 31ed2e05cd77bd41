"""What goes wrong between real QEMUs: the guest must run on, on one side, with nothing lost."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from armferry.ferry.gateway import Ending, Limits

pytestmark = pytest.mark.qemu

OLD, POINT = "10.0.2", "10.0.13"
HALF = 4 << 20
LIMIT = 30.0


class Link:
    """A network between the gateway and the destination, which the test spoils.

    `spoil` is called with the number of bytes that have gone forward and the next piece; it
    returns what is sent of it, or None to reset the connection.
    """

    def __init__(self, to: str, spoil: Callable[[int, bytes], bytes | None]) -> None:
        self._to = to.removeprefix("unix:")
        self._spoil = spoil
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(f"{self._to}-link")
        self._server.listen()
        self.address = f"unix:{self._to}-link"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            near, _ = self._server.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._to)
            threading.Thread(target=self._back, args=(near, far), daemon=True).start()
            self._forward(near, far)

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        gone = 0
        with contextlib.suppress(OSError):
            while piece := near.recv(65_536):
                kept = self._spoil(gone, piece)
                gone += len(piece)
                if kept is None:
                    break
                far.sendall(kept)
            else:
                far.shutdown(socket.SHUT_WR)
                return
        for connection in (near, far):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _back(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := far.recv(65_536):
                near.sendall(piece)
            near.shutdown(socket.SHUT_WR)


def reset(gone: int, piece: bytes) -> bytes | None:
    return None if gone > HALF else piece


def black_hole(gone: int, piece: bytes) -> bytes | None:
    if gone > HALF:
        time.sleep(5)
        return b""
    return piece


def slow(gone: int, piece: bytes) -> bytes | None:
    time.sleep(0.002)
    return piece


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(reset, "closed the connection"), (black_hole, "no byte has moved for 1 s")],
)
def test_link_that_breaks_leaves_the_guest_on_the_source(
    spoil: Callable[[int, bytes], bytes | None], reason: str, rig: Any
) -> None:
    links: list[Link] = []

    @contextlib.contextmanager
    def through(to: str) -> Iterator[str]:
        links.append(Link(to, spoil))
        yield links[0].address
        links[0].close()

    way = rig.way(parameters={"max-bandwidth": 32 << 20})
    with (
        rig.machines(OLD, POINT, hold=True) as (source, destination),
        rig.crossing(
            source, destination, way, rig.judge(POINT), limits=Limits(stall=1.0), through=through
        ) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("failed")
        outcome = crossing.outcome()
        assert outcome.ending is Ending.FAILED
        assert reason in outcome.reason
        rig.wait_run_state(source, "running")
        rig.runs_on()


def test_slow_link_is_only_slow(rig: Any) -> None:
    @contextlib.contextmanager
    def through(to: str) -> Iterator[str]:
        link = Link(to, slow)
        yield link.address
        link.close()

    with (
        rig.machines(OLD, POINT) as (source, destination),
        rig.crossing(source, destination, rig.way(), rig.judge(POINT), through=through) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("completed")
        assert crossing.outcome().ending is Ending.COMPLETED
        rig.runs_on()


def test_destination_killed_while_it_loads(rig: Any) -> None:
    way = rig.way(parameters={"max-bandwidth": 8 << 20})
    with (
        rig.machines(OLD, POINT, hold=True) as (source, destination),
        rig.crossing(source, destination, way, rig.judge(POINT)) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("active")
        time.sleep(0.2)
        os.kill(destination.pid, signal.SIGKILL)
        crossing.wait_source("failed")
        assert crossing.outcome().ending is Ending.FAILED
        rig.wait_run_state(source, "running")
        rig.runs_on()


@contextlib.contextmanager
def gateway_process(rig: Any, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`armferry gateway` as a process of its own, listening."""
    fingerprint = rig.folder / "destination.json"
    fingerprint.write_text(rig.document(POINT))
    command = [sys.executable, "-m", "armferry", "gateway", "--to", str(fingerprint), *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("listening on ")
        yield process
        process.kill()


def begin(rig: Any, source: Any, destination: Any, bandwidth: int) -> None:
    on = {"capabilities": [{"capability": "return-path", "state": True}]}
    for machine in (source, destination):
        machine.execute("migrate-set-capabilities", on)
    source.execute("migrate-set-parameters", {"max-bandwidth": bandwidth})
    destination.execute("migrate-incoming", {"uri": f"unix:{rig.folder}/out"})
    source.execute("migrate", {"uri": f"unix:{rig.folder}/in"})


def ends(rig: Any) -> tuple[str, ...]:
    return ("--listen", f"unix:{rig.folder}/in", "--connect", f"unix:{rig.folder}/out")


@pytest.mark.parametrize("moment", range(10))
def test_gateway_killed_at_a_random_moment(moment: int, rig: Any) -> None:
    delay = random.Random(moment).uniform(0.0, 0.6)
    with (
        rig.machines(OLD, POINT, hold=True) as (source, destination),
        gateway_process(rig, *ends(rig)) as gateway,
    ):
        begin(rig, source, destination, 32 << 20)
        time.sleep(delay)
        gateway.kill()
        state = rig.wait_status(source, "failed", "completed")
        if state["status"] == "failed":
            rig.wait_run_state(source, "running")
        else:
            destination.cont()  # it was faster than the signal
        rig.runs_on()


def test_command_tells_how_it_ended(rig: Any) -> None:
    """--json, --log and the exit code, of a move that works."""
    log = rig.folder / "log"
    with rig.machines(OLD, POINT) as (source, destination):
        with gateway_process(rig, *ends(rig), "--json", "--log", str(log)) as gateway:
            begin(rig, source, destination, 8 << 30)
            rig.wait_status(source, "completed")
            assert gateway.wait(LIMIT) == 0
        rig.wait_run_state(destination, "running")
        rig.runs_on()
    assert '"event": "decided"' in log.read_text()


def test_recovery_of_a_postcopy_move_goes_through_the_gateway(rig: Any) -> None:
    """The link breaks after the switch to postcopy: both sides pause and go on later."""
    way = rig.way(
        capabilities=("return-path", "postcopy-ram"), parameters={"max-bandwidth": 1 << 20}
    )
    with (
        rig.machines(OLD, POINT) as (source, destination),
        rig.crossing(source, destination, way, rig.judge(POINT), keep=True) as crossing,
    ):
        source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 1 << 20})
        crossing.migrate()
        crossing.wait_source("active")
        time.sleep(0.3)
        source.execute("migrate-start-postcopy")
        crossing.wait_source("postcopy-active")
        rig.wait_status(destination, "postcopy-active")
        for move in crossing.gateway.moves:
            move.fail(Ending.FAILED, "the network failed")
        crossing.wait_source("postcopy-paused")
        rig.wait_status(destination, "postcopy-paused")
        again = Path(crossing.outward.removeprefix("unix:"))
        again.unlink(missing_ok=True)
        destination.execute("migrate-recover", {"uri": crossing.outward})
        source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 0})
        source.execute("migrate", {"uri": crossing.inward, "resume": True})
        crossing.wait_source("completed")
        rig.runs_on()
    assert [one.mode for one in crossing.outcomes] == ["postcopy", "recovery"]
