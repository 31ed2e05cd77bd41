"""The network fails after the switch to postcopy: both sides pause and go on through a gateway."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armferry.gateway import Ending

pytestmark = pytest.mark.qemu

OLD, POINT = "10.0.2", "10.0.13"
LIMIT = 30.0
SLOW = {"max-bandwidth": 1 << 20}
POSTCOPY = ("return-path", "postcopy-ram")
Begin = Callable[[], None]


def switch(rig: Any, source: Any, destination: Any, begin: Begin) -> None:
    """The move has switched to postcopy and goes slowly."""
    source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 1 << 20})
    begin()
    rig.wait_status(source, "active")
    time.sleep(0.3)
    source.execute("migrate-start-postcopy")
    rig.wait_status(source, "postcopy-active")
    rig.wait_status(destination, "postcopy-active")


def recover(rig: Any, source: Any, destination: Any, inward: str, outward: str) -> None:
    """What an operator does once both sides have paused."""
    rig.wait_status(source, "postcopy-paused")
    rig.wait_status(destination, "postcopy-paused")
    Path(outward.removeprefix("unix:")).unlink(missing_ok=True)
    destination.execute("migrate-recover", {"uri": outward})
    source.execute("migrate-set-parameters", {"max-postcopy-bandwidth": 0})
    source.execute("migrate", {"uri": inward, "resume": True})
    rig.wait_status(source, "completed")
    rig.wait_run_state(destination, "running")
    rig.runs_on()


@pytest.mark.parametrize("way", ["postcopy", "postcopy-preempt"])
def test_recovery_through_the_same_gateway(way: str, rig: Any) -> None:
    preempt = way == "postcopy-preempt"
    how = rig.way((*POSTCOPY, *["postcopy-preempt"] * preempt), SLOW)
    with (
        rig.machines(OLD, POINT) as (source, destination),
        rig.crossing(source, destination, how, rig.judge(POINT), keep=True) as crossing,
    ):
        switch(rig, source, destination, crossing.migrate)
        for move in crossing.gateway.transfers:
            move.fail(Ending.FAILED, "the network failed")
        recover(rig, source, destination, crossing.inward, crossing.outward)
    assert [one.mode for one in crossing.outcomes] == ["postcopy", "recovery"]
    assert crossing.outcomes[1].ending is Ending.COMPLETED
    assert [one.channels for one in crossing.outcomes] == [1 + preempt, 1 + preempt]


def test_recovery_through_another_gateway_once_the_first_was_killed(rig: Any) -> None:
    """Nothing of the move is kept in the gateway."""
    fingerprint = rig.folder / "destination.json"
    fingerprint.write_text(rig.document(POINT))
    inward, outward = f"unix:{rig.folder}/in", f"unix:{rig.folder}/out"
    words = [sys.executable, "-m", "armferry", "gateway", "--to", str(fingerprint)]
    words += ["--listen", inward, "--connect", outward]

    def gateway() -> "subprocess.Popen[str]":
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("listening on ")
        return process

    with rig.machines(OLD, POINT) as (source, destination), gateway() as first:
        capabilities = [{"capability": name, "state": True} for name in POSTCOPY]
        for machine in (source, destination):
            machine.execute("migrate-set-capabilities", {"capabilities": capabilities})
            machine.execute("migrate-set-parameters", SLOW)
        destination.execute("migrate-incoming", {"uri": outward})
        switch(
            rig,
            source,
            destination,
            lambda: source.execute("migrate", {"uri": inward}),
        )
        first.kill()
        first.wait(LIMIT)
        with gateway() as second:
            recover(rig, source, destination, inward, outward)
            assert second.wait(LIMIT) == 0
