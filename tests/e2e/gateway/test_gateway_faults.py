"""What goes wrong between real QEMUs: the guest must run on, on one side, with nothing lost."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from armferry.gateway import Ending, Limits

from ..often import often

pytestmark = pytest.mark.qemu

OLD, POINT = "10.0.2", "10.0.13"
HALF = 4 << 20
LIMIT = 30.0


def reset(gone: int, piece: bytes) -> Iterator[bytes | None]:
    yield None if gone > HALF else piece


def black_hole(gone: int, piece: bytes) -> Iterator[bytes | None]:
    yield b"" if gone > HALF else piece


def slow(gone: int, piece: bytes) -> Iterator[bytes | None]:
    time.sleep(0.002)
    yield piece


SIDES = ("before", "through")
"""The network between the source and the gateway, or beyond it."""


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("spoil", [reset, black_hole])
def test_link_that_breaks_leaves_the_guest_on_the_source(spoil: Any, side: str, rig: Any) -> None:
    way = rig.way(parameters={"max-bandwidth": 32 << 20})
    # a busy machine may move nothing for a second where nothing has failed
    limits = Limits(stall=1.0) if spoil is black_hole else Limits()
    with (
        rig.machines(OLD, POINT, hold=True) as (source, destination),
        rig.crossing(
            source,
            destination,
            way,
            rig.judge(POINT),
            limits=limits,
            **{side: rig.spoiled(spoil)},
        ) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("failed")
        outcome = crossing.outcome()
        if spoil is black_hole:
            assert (outcome.ending, outcome.reason) == (Ending.FAILED, "no byte has moved for 1 s")
        elif side == "before":
            assert outcome.ending is Ending.CANCELLED
        else:
            assert outcome.ending is Ending.FAILED
            assert "closed the connection" in outcome.reason
        if side == "before":
            assert outcome.before_state
        rig.wait_run_state(source, "running")
        rig.runs_on()


@pytest.mark.parametrize("side", SIDES)
def test_slow_link_is_only_slow(side: str, rig: Any) -> None:
    with (
        rig.machines(OLD, POINT) as (source, destination),
        rig.crossing(
            source, destination, rig.way(), rig.judge(POINT), **{side: rig.spoiled(slow)}
        ) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("completed")
        assert crossing.outcome().ending is Ending.COMPLETED
        rig.runs_on()


class Switch:
    """What happens to the bytes once the test says so; until then they pass."""

    def __init__(self, spoil: Any) -> None:
        self._spoil = spoil
        self.on = threading.Event()

    def __call__(self, gone: int, piece: bytes) -> Iterator[bytes | None]:
        return self._spoil(gone, piece) if self.on.is_set() else iter((piece,))


def slices(_: int, piece: bytes) -> Iterator[bytes | None]:
    return (piece[at : at + 1] for at in range(len(piece)))


@pytest.mark.full
def test_device_state_in_slices_of_one_byte_on_both_sides(rig: Any) -> None:
    way = rig.way(capabilities=("return-path", "pause-before-switchover"))
    before, beyond = Switch(slices), Switch(slices)
    with (
        rig.machines(OLD, POINT) as (source, destination),
        rig.crossing(
            source,
            destination,
            way,
            rig.judge(POINT),
            before=rig.spoiled(before),
            through=rig.spoiled(beyond),
        ) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("pre-switchover")
        before.on.set()
        beyond.on.set()
        source.execute("migrate-continue", {"state": "pre-switchover"})
        crossing.wait_source("completed")
        assert crossing.outcome().ending is Ending.COMPLETED
        rig.wait_run_state(destination, "running")
        rig.runs_on()


def first_bytes(count: int, afterwards: bytes | None) -> Any:
    """Lets so many bytes pass, then nothing, or resets."""
    left = [count]

    def spoil(_: int, piece: bytes) -> Iterator[bytes | None]:
        kept, left[0] = piece[: left[0]], max(0, left[0] - len(piece))
        yield kept
        if not left[0]:
            yield afterwards

    return spoil


@pytest.mark.parametrize("count", often([1, 9_000, 20_000], lambda count: count == 9_000))
def test_destination_killed_while_it_loads_the_device_state(count: int, rig: Any) -> None:
    way = rig.way(capabilities=("return-path", "pause-before-switchover"))
    beyond = Switch(first_bytes(count, b""))
    with (
        rig.machines(OLD, POINT, hold=True) as (source, destination),
        rig.crossing(
            source, destination, way, rig.judge(POINT), through=rig.spoiled(beyond)
        ) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("pre-switchover")
        beyond.on.set()
        source.execute("migrate-continue", {"state": "pre-switchover"})
        while not any(one["event"] == "decided" for one in crossing.events):
            time.sleep(0.01)
        os.kill(destination.pid, signal.SIGKILL)
        crossing.wait_source("failed")
        assert crossing.outcome().ending is Ending.FAILED
        rig.wait_run_state(source, "running")
        rig.runs_on()


@pytest.mark.full
def test_device_state_cut_short_on_its_way_to_the_gateway(rig: Any) -> None:
    """At forty places; each time the same source runs on and tries again."""
    way = rig.way(capabilities=("return-path", "pause-before-switchover"))
    with rig.machines(OLD, POINT, hold=True) as (source, first):
        first.quit()
        for count in range(0, 28_000, 700):
            with rig.destination(POINT, hold=True) as destination:
                cut = Switch(first_bytes(count, None))
                with rig.crossing(
                    source, destination, way, rig.judge(POINT), before=rig.spoiled(cut)
                ) as crossing:
                    crossing.migrate()
                    crossing.wait_source("pre-switchover")
                    cut.on.set()
                    source.execute("migrate-continue", {"state": "pre-switchover"})
                    crossing.wait_source("failed")
                    assert crossing.outcome().before_state
                    rig.wait_run_state(source, "running")
                assert destination.wait() != 0
            rig.runs_on(1)


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
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("listening on ")
            yield process
        finally:
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


@pytest.mark.parametrize("moment", often(range(10), lambda moment: moment < 2))
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
