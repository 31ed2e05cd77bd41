"""A move cancelled at every status that QEMU reports for one: the guest runs on, nothing lost."""

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from armferry.gateway import Ending
from armferry.hosts.qmp.process import QemuProcessError
from armferry.stream.events import RamBlock

pytestmark = pytest.mark.qemu

OLD, POINT = "10.0.2", "10.0.13"
PAUSING = ("return-path", "pause-before-switchover")


def again(rig: Any, source: Any) -> None:
    """The next attempt succeeds."""
    off = [{"capability": name, "state": False} for name in ("pause-before-switchover", "multifd")]
    source.execute("migrate-set-capabilities", {"capabilities": off})
    source.execute("migrate-set-parameters", {"tls-creds": ""})
    with (
        rig.destination(POINT) as second,
        rig.crossing(source, second, rig.way(), rig.judge(POINT)) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("completed")
        assert crossing.outcome().ending is Ending.COMPLETED
        rig.wait_run_state(second, "running")
        rig.runs_on()


def test_setup(rig: Any) -> None:
    """Nobody takes the connection: where a gateway hangs, or its machine is overrun."""
    busy = str(rig.folder / "busy")
    with (
        rig.machines(OLD, POINT, hold=True) as (source, destination),
        contextlib.ExitStack() as stack,
    ):
        destination.quit()
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(busy)
        server.listen(0)
        with contextlib.suppress(BlockingIOError):  # the queue is full
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(busy)
        source.execute("migrate", {"uri": f"unix:{busy}"})
        time.sleep(0.2)
        assert source.execute("query-migrate")["status"] == "setup"
        source.execute("migrate_cancel")
        server.close()
        rig.wait_status(source, "cancelled", "failed")
        rig.wait_run_state(source, "running")
        rig.runs_on()
        again(rig, source)


@pytest.mark.parametrize("channels", [0, 4])
@pytest.mark.parametrize("times", [1, 2], ids=["active", "cancelling"])
def test_active_and_cancelling(times: int, channels: int, rig: Any) -> None:
    """Cancelled once, and again while the first is being done; with multifd channels too."""
    capabilities = ("return-path", *["multifd"] * bool(channels))
    parameters = {"max-bandwidth": 1 << 20}
    if channels:
        parameters["multifd-channels"] = channels
    with rig.machines(OLD, POINT, hold=True) as (source, destination):
        with rig.crossing(
            source, destination, rig.way(capabilities, parameters), rig.judge(POINT)
        ) as crossing:
            crossing.migrate()
            crossing.wait_source("active")
            for _ in range(times):
                source.execute("migrate_cancel")
            # QEMU shuts its return path down before it says that it cancels, and a writer
            # between the two calls it failed
            crossing.wait_source("cancelled", "failed")
            outcome = crossing.outcome()
        assert (outcome.ending, outcome.before_state) == (Ending.CANCELLED, True)
        rig.wait_run_state(source, "running")
        rig.runs_on()
        again(rig, source)


def test_pre_switchover(rig: Any) -> None:
    with rig.machines(OLD, POINT, hold=True) as (source, destination):
        with rig.crossing(source, destination, rig.way(PAUSING), rig.judge(POINT)) as crossing:
            crossing.migrate()
            crossing.wait_source("pre-switchover")
            source.execute("migrate_cancel")
            crossing.wait_source("cancelled")
            assert crossing.outcome().ending is Ending.CANCELLED
        rig.wait_run_state(source, "running")
        rig.runs_on()
        again(rig, source)


class Thoughtful:
    """A judge that takes its time."""

    def __init__(self, judge: Any) -> None:
        self._judge = judge
        self.deciding, self.go_on = threading.Event(), threading.Event()

    def begin(self, machine: str, blocks: tuple[RamBlock, ...]) -> None:
        pass

    def prepare(self, machine: str) -> None:
        self._judge.prepare(machine)

    def __call__(self, machine: str, sections: Any) -> Any:
        self.deciding.set()
        assert self.go_on.wait(60)
        return self._judge(machine, sections)


def test_device(rig: Any) -> None:
    """The gateway has the whole state and has not decided: the destination never gets it."""
    judge = Thoughtful(rig.judge(POINT))
    with rig.machines(OLD, POINT, hold=True) as (source, destination):
        with rig.crossing(source, destination, rig.way(PAUSING), judge) as crossing:
            crossing.migrate()
            crossing.wait_source("pre-switchover")
            source.execute("migrate-continue", {"state": "pre-switchover"})
            assert judge.deciding.wait(60)
            crossing.wait_source("device")
            source.execute("migrate_cancel")
            crossing.wait_source("cancelled", "failed")
            rig.wait_run_state(source, "running")
            judge.go_on.set()
            outcome = crossing.outcome()
            assert (outcome.ending, outcome.before_state) == (Ending.CANCELLED, True)
        assert destination.wait() != 0
        rig.runs_on()
        again(rig, source)


def switched(rig: Any, source: Any, destination: Any, crossing: Any) -> None:
    """The move has switched to postcopy and goes slowly."""
    source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 1 << 20})
    crossing.migrate()
    crossing.wait_source("active")
    time.sleep(0.3)
    source.execute("migrate-start-postcopy")
    crossing.wait_source("postcopy-active")
    rig.wait_status(destination, "postcopy-active")


@pytest.mark.parametrize("status", ["postcopy-active", "postcopy-paused"])
def test_postcopy(status: str, rig: Any) -> None:
    """QEMU refuses: neither side has the whole guest. The move goes on as if not asked."""
    way = rig.way(("return-path", "postcopy-ram"), {"max-bandwidth": 1 << 20})
    with (
        rig.machines(OLD, POINT) as (source, destination),
        rig.crossing(source, destination, way, rig.judge(POINT), keep=True) as crossing,
    ):
        switched(rig, source, destination, crossing)
        if status == "postcopy-paused":
            source.execute("migrate-pause")
            crossing.wait_source("postcopy-paused")
            rig.wait_status(destination, "postcopy-paused")
        with pytest.raises(QemuProcessError, match="Postcopy migration in progress, cannot cancel"):
            source.execute("migrate_cancel")
        source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 0})
        if status == "postcopy-paused":
            Path(crossing.outward.removeprefix("unix:")).unlink(missing_ok=True)
            destination.execute("migrate-recover", {"uri": crossing.outward})
            source.execute("migrate", {"uri": crossing.inward, "resume": True})
        crossing.wait_source("completed")
        rig.runs_on()
