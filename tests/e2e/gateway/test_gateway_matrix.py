"""Every pair of releases that refuse each other, both ways, in every way of travelling.

Each move is first tried without armferry: the destination's QEMU must refuse it and the source's
guest run on. Then the same two releases carry the guest through the gateway.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armferry.gateway import Ending, connecting_context, listening_context
from armferry.policy import from_options

from ..often import often

pytestmark = pytest.mark.qemu

OLD, POINT, NEW = "10.0.2", "10.0.13", "11.1.3"
PAIRS = {
    (OLD, POINT): (),
    (POINT, OLD): (),
    (POINT, NEW): ("ID_AA64ISAR0_EL1",),
    (NEW, POINT): (),
}
"""What must be named for the move, as every register that a guest has seen and would miss."""

LIMIT = 10.0
SLOW = {"max-bandwidth": 1 << 20}
WAYS: dict[str, dict[str, Any]] = {
    "precopy": {"capabilities": ()},
    "return path": {"transport": "tcp"},
    "multifd 4": {
        "capabilities": ("return-path", "multifd"),
        "parameters": {"multifd-channels": 4},
    },
    "postcopy": {"capabilities": ("return-path", "postcopy-ram"), "parameters": SLOW},
    "postcopy-preempt": {
        "capabilities": ("return-path", "postcopy-ram", "postcopy-preempt"),
        "parameters": SLOW,
    },
    "tls": {"transport": "tcp"},
}


@pytest.mark.parametrize(
    ("old", "new", "way"),
    often(
        [(*pair, way) for pair in PAIRS for way in WAYS],
        lambda case: case[:2] == (OLD, POINT) or case[2] == "return path",
    ),
)
def test_refused_without_and_carried_with(
    old: str, new: str, way: str, rig: Any, credentials: Callable[[str], Path]
) -> None:
    how = rig.way(**WAYS[way])
    inner, outer = credentials("one"), credentials("two")
    with rig.machines(old, new, hold=True) as (source, destination):
        if alone(rig, source, destination, how, inner if way == "tls" else None):
            rig.wait_run_state(source, "running")
            rig.runs_on(2)
    rig.serial.unlink()
    contexts: dict[str, Any] = {}
    with rig.machines(old, new) as (source, destination):
        if way == "tls":
            rig.with_credentials(source, inner, "client")
            rig.with_credentials(destination, outer, "server")
            contexts = {
                "context": listening_context(inner),
                "connecting": connecting_context(outer),
            }
        policy = from_options(safe_missing=PAIRS[old, new])
        with rig.crossing(source, destination, how, rig.judge(new, policy), **contexts) as crossing:
            crossing.migrate()
            if "postcopy" in way:
                switch(rig, source)
            crossing.wait_source("completed", "failed")
            outcome = crossing.outcome()
            expected = Ending.DELIVERED if way == "precopy" else Ending.COMPLETED
            assert outcome.ending is expected, outcome.reason
            assert outcome.mode == ("postcopy" if "postcopy" in way else "precopy")
            assert outcome.channels == {"multifd 4": 5, "postcopy-preempt": 2}.get(way, 1)
            rig.wait_run_state(destination, "running")
            rig.runs_on()


def switch(rig: Any, source: Any) -> None:
    rig.wait_status(source, "active")
    time.sleep(0.3)
    source.execute("migrate-start-postcopy")


def refusal(destination: Any) -> None:
    """Waits until QEMU has ended without the guest; ends it where it only says that it refuses.

    After the switch to postcopy QEMU 10.0 may hang there.
    """
    deadline = time.monotonic() + LIMIT
    while destination.exit_status is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if destination.exit_status is None:
        assert "load of migration failed" in destination.stderr
        os.kill(destination.pid, signal.SIGKILL)
    assert destination.wait() != 0


def alone(rig: Any, source: Any, destination: Any, how: Any, folder: Path | None) -> bool:
    """The same move with nothing between; the destination must end without the guest.

    Whether the source has it still: once QEMU 10.0 has switched to postcopy, nobody has.
    """
    if folder is not None:
        rig.with_credentials(source, folder, "client")
        rig.with_credentials(destination, folder, "server")
    on = {"capabilities": [{"capability": name, "state": True} for name in how.capabilities]}
    for machine in (source, destination):
        machine.execute("migrate-set-capabilities", on)
        machine.execute("migrate-set-parameters", {"max-bandwidth": 8 << 30, **how.parameters})
    uri = f"unix:{rig.folder}/direct"
    destination.execute("migrate-incoming", {"uri": uri})
    source.execute("migrate", {"uri": uri})
    if "postcopy-ram" in how.capabilities:
        switch(rig, source)
    refusal(destination)
    # without a return path QEMU may call it complete: `cont` takes the guest back
    state = rig.wait_status(source, "failed", "completed", "postcopy-paused")
    if source.status() == "postmigrate":
        source.cont()
    return bool(state["status"] != "postcopy-paused")
