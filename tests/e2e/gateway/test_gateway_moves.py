"""The running test guest through the gateway, in every way that QEMU knows."""

import time
from typing import Any

import pytest

from armferry.gateway import Ending
from armferry.hosts.qmp.process import QemuProcessError
from armferry.policy import from_options

pytestmark = pytest.mark.qemu

OLD, POINT, NEW = "10.0.2", "10.0.13", "11.1.3"

PATIENT = {"multifd-channels": 2, "downtime-limit": 10_000}
"""Compression is slow and the guest is not: without patience it would never converge."""

WAYS: dict[str, dict[str, Any]] = {
    "precopy": {"capabilities": ()},
    "return path": {},
    "tcp": {"transport": "tcp"},
    "tcp over ipv6": {"transport": "tcp6"},
    "multifd 4": {
        "capabilities": ("return-path", "multifd"),
        "parameters": {"multifd-channels": 4},
        "transport": "tcp",
    },
    "multifd zstd": {
        "capabilities": ("return-path", "multifd"),
        "parameters": {**PATIENT, "multifd-compression": "zstd"},
    },
    "multifd zlib": {
        "capabilities": ("return-path", "multifd"),
        "parameters": {**PATIENT, "multifd-compression": "zlib"},
    },
    "xbzrle": {"capabilities": ("return-path", "xbzrle")},
    "auto-converge": {"capabilities": ("return-path", "auto-converge")},
    "switchover-ack": {"capabilities": ("return-path", "switchover-ack")},
}
PAIRS = {
    (OLD, POINT): (),
    (POINT, OLD): (),
    (POINT, NEW): ("ID_AA64ISAR0_EL1",),
    (NEW, POINT): (),
}


@pytest.mark.parametrize("way", WAYS)
def test_guest_goes_on_without_noticing(way: str, rig: Any) -> None:
    with (
        rig.machines(OLD, POINT) as (source, destination),
        rig.crossing(source, destination, rig.way(**WAYS[way]), rig.judge(POINT)) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("completed")
        outcome = crossing.outcome()
        assert outcome.ending is (Ending.DELIVERED if way == "precopy" else Ending.COMPLETED)
        rig.wait_run_state(destination, "running")
        assert source.status() == "postmigrate"
        rig.runs_on()


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_moves_that_stock_refuses(old: str, new: str, rig: Any) -> None:
    with rig.machines(old, new) as (source, destination):
        uri = f"unix:{rig.folder}/direct"
        destination.execute("migrate-incoming", {"uri": uri})
        source.execute("migrate-set-capabilities", RETURN_PATH)
        with pytest.raises(QemuProcessError):
            source.migrate(uri)
        rig.wait_run_state(source, "running")
    (rig.folder / "serial").unlink()
    policy = from_options(safe_missing=PAIRS[old, new])
    with (
        rig.machines(old, new) as (source, destination),
        rig.crossing(source, destination, rig.way(), rig.judge(new, policy)) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("completed")
        assert crossing.outcome().ending is Ending.COMPLETED
        rig.wait_run_state(destination, "running")
        rig.runs_on()


RETURN_PATH = {"capabilities": [{"capability": "return-path", "state": True}]}


@pytest.mark.parametrize(("way", "old"), [("postcopy", OLD), ("preempt", OLD), ("postcopy", NEW)])
def test_switch_to_postcopy(way: str, old: str, rig: Any) -> None:
    """From the newest release a subsection must be left out, though no description names it."""
    capabilities = ["return-path", "postcopy-ram"]
    capabilities += ["postcopy-preempt"] * (way == "preempt")
    slow = rig.way(capabilities=tuple(capabilities), parameters={"max-bandwidth": 1 << 20})
    with (
        rig.machines(old, POINT) as (source, destination),
        rig.crossing(source, destination, slow, rig.judge(POINT)) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("active")
        time.sleep(0.3)
        source.execute("migrate-start-postcopy")
        crossing.wait_source("completed")
        outcome = crossing.outcome()
        assert (outcome.ending, outcome.mode) == (Ending.COMPLETED, "postcopy")
        assert outcome.channels == (2 if way == "preempt" else 1)
        rig.runs_on()


def test_pause_before_switchover(rig: Any) -> None:
    way = rig.way(capabilities=("return-path", "pause-before-switchover"))
    with (
        rig.machines(OLD, POINT) as (source, destination),
        rig.crossing(source, destination, way, rig.judge(POINT)) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("pre-switchover")
        time.sleep(0.2)
        source.execute("migrate-continue", {"state": "pre-switchover"})
        crossing.wait_source("completed")
        assert crossing.outcome().ending is Ending.COMPLETED
        rig.runs_on()


def test_background_snapshot_leaves_the_source_running(rig: Any) -> None:
    way = rig.way(capabilities=("background-snapshot",))
    with (
        rig.machines(OLD, POINT) as (source, destination),
        rig.crossing(source, destination, way, rig.judge(POINT)) as crossing,
    ):
        destination.execute(
            "migrate-set-capabilities",
            {"capabilities": [{"capability": "background-snapshot", "state": False}]},
        )
        crossing.migrate()
        crossing.wait_source("completed")
        assert crossing.outcome().ending is Ending.DELIVERED
        assert source.status() == "running"
        rig.wait_status(destination, "completed")


def test_refusal_leaves_the_guest_on_the_source(rig: Any) -> None:
    with (
        rig.machines(OLD, POINT) as (source, destination),
        rig.crossing(source, destination, rig.way(), rig.judge(POINT, builtin=False)) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("failed")
        outcome = crossing.outcome()
        assert outcome.ending is Ending.REFUSED
        assert outcome.before_state
        assert outcome.reason.startswith(
            "the move is refused: DBGDTRTX: the destination does not know it and no rule allows "
            "dropping it"
        )
        assert outcome.reason.endswith(" (vCPU 0, 1)")
        assert outcome.document()["verdict"]["verdict"] == "fails"
        rig.wait_run_state(source, "running")
        assert destination.wait() != 0
        rig.runs_on()


def test_refusal_without_return_path_is_undone_with_cont(rig: Any) -> None:
    """QEMU itself calls such a move complete as soon as its last byte is in the socket."""
    with (
        rig.machines(OLD, POINT) as (source, destination),
        rig.crossing(
            source, destination, rig.way(capabilities=()), rig.judge(POINT, builtin=False)
        ) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("failed", "completed")
        assert crossing.outcome().ending is Ending.REFUSED
        if source.status() == "postmigrate":
            source.cont()
        rig.wait_run_state(source, "running")
        rig.runs_on()


@pytest.mark.parametrize("status", ["setup", "active", "pre-switchover", "device"])
def test_cancel_and_try_again(status: str, rig: Any) -> None:
    """Cancelled as soon as the source reports the status; the next attempt succeeds."""
    way = rig.way(capabilities=("return-path", "pause-before-switchover"))
    with rig.machines(OLD, POINT, hold=True) as (source, destination):
        with rig.crossing(source, destination, way, rig.judge(POINT), keep=True) as crossing:
            crossing.migrate()
            if status in ("pre-switchover", "device"):
                crossing.wait_source("pre-switchover")
            if status == "device":
                source.execute("migrate-continue", {"state": "pre-switchover"})
            source.execute("migrate_cancel")
            state = crossing.wait_source("cancelled", "completed", "failed")
        if state["status"] == "completed":
            assert status == "device"  # it came too late: the guest is on the other side
            destination.cont()
            rig.runs_on()
            return
        rig.wait_run_state(source, "running")
        rig.runs_on()
        destination.quit()
        off = {"capability": "pause-before-switchover", "state": False}
        source.execute("migrate-set-capabilities", {"capabilities": [off]})
        with (
            rig.destination(POINT) as second,
            rig.crossing(source, second, rig.way(), rig.judge(POINT)) as crossing,
        ):
            crossing.migrate()
            crossing.wait_source("completed")
            assert crossing.outcome().ending is Ending.COMPLETED
            rig.wait_run_state(second, "running")
            rig.runs_on()


def test_two_moves_one_after_the_other_through_one_gateway(rig: Any) -> None:
    """The first is cancelled by its source; the same gateway carries the second."""
    slow = rig.way(parameters={"max-bandwidth": 1 << 20})
    with rig.machines(OLD, POINT, hold=True) as (source, first):
        with rig.crossing(source, first, slow, rig.judge(POINT), keep=True) as crossing:
            crossing.migrate()
            crossing.wait_source("active")
            source.execute("migrate_cancel")
            crossing.wait_source("cancelled")
            rig.runs_on()
            first.quit()
            with rig.destination(POINT) as second:
                second.execute("migrate-set-capabilities", RETURN_PATH)
                second.execute("migrate-incoming", {"uri": crossing.outward})
                source.execute("migrate-set-parameters", {"max-bandwidth": 8 << 30})
                crossing.migrate()
                crossing.wait_source("completed")
                rig.wait_run_state(second, "running")
                rig.runs_on()
        assert [one.ending for one in crossing.outcomes] == [Ending.CANCELLED, Ending.COMPLETED]


def test_colo_is_refused_by_name_before_the_guest_is_paused(rig: Any) -> None:
    way = rig.way(("return-path", "x-colo"), {"max-bandwidth": 1 << 20})
    with (
        rig.machines(OLD, POINT, hold=True) as (source, destination),
        rig.crossing(source, destination, way, rig.judge(POINT)) as crossing,
    ):
        crossing.migrate()
        crossing.wait_source("failed", "cancelled")
        outcome = crossing.outcome()
        assert "the stream uses COLO" in outcome.reason
        assert "turn x-colo off" in outcome.reason
        assert outcome.before_state
        rig.wait_run_state(source, "running")
        rig.runs_on()
