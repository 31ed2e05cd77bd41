"""A QEMU under the KVM of a lab host: saved and loaded, from outside.

This file runs at both ends. Outside, `save` and `load` ask a booted `LabHost`; inside, the module
is a program (`python3 -m armferry.lab.nested REQUEST`) that starts one QEMU, speaks QMP with it
and prints the outcome as JSON. A machine that is given the test
guest may run before it is saved and after it is loaded, counted in the guest's own ticks. Standard
library only, and little of it, since every import costs time under emulation.

QMP: docs/interop/qmp-spec.rst and qapi/migration.json of QEMU.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from armferry.hosts.qmp.client import (
    UNLIMITED,
    CommandRefused,
    MonitorFault,
    MonitorSilent,
    QmpClient,
)
from armferry.lab.patience import patient

if TYPE_CHECKING:
    from armferry.boundary import Preload
    from armferry.lab.host import LabHost

__all__ = [
    "KERNEL",
    "SERIAL",
    "STREAM",
    "NestedQemu",
    "Outcome",
    "guest_log",
    "inside",
    "load",
    "save",
    "with_guest",
]

STREAM = "/tmp/stream"  # noqa: S108 - all three in a guest of our own, which nobody shares
KERNEL = "/guest/kernel.elf"
SERIAL = "/tmp/serial"  # noqa: S108
_TICK_LIMIT = 60.0
_POLL = 0.02
_ENDED = ("completed", "failed", "cancelled")
_TIME_LIMIT = 110.0  # seconds, less than the whole program has


@dataclass(frozen=True, slots=True)
class NestedQemu:
    """What to start in a lab host. `cpu_options` follow `-cpu host`, comma included."""

    machine: str
    cpu_options: str = ""
    memory: int = 64
    extra: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """QEMU's words: no device but the machine's own, vCPUs stopped."""
        return [
            *("qemu-system-aarch64", "-nodefaults", "-no-user-config", "-display", "none", "-S"),
            *("-machine", f"{self.machine},accel=kvm,gic-version=3"),
            *("-cpu", f"host{self.cpu_options}", "-m", str(self.memory)),
            *self.extra,
        ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a save or a load ended.

    `status` is QEMU's own word for the migration, or `exited`; `reason` is what QMP said of it.
    """

    status: str
    reason: str
    exit_code: int | None
    stderr: str

    @property
    def completed(self) -> bool:
        return self.status == "completed"


def save(host: "LabHost", qemu: NestedQemu, *, ticks: int = 0) -> tuple[Outcome, bytes]:
    """The stream of a machine once its guest has run for `ticks`; about 3 s for one that has not.

    Raises `LabHostFault`.
    """
    host.run(["rm", "-f", STREAM])
    outcome = _ask(host, qemu, {"incoming": False, "outgoing": True, "ticks": ticks})
    return outcome, host.get(STREAM) if outcome.completed else b""


def load(
    host: "LabHost", qemu: NestedQemu, stream: bytes, *, ticks: int = 0
) -> tuple[Outcome, bytes]:
    """What QEMU makes of `stream`; a refusal is an outcome.

    Once loaded the guest runs for `ticks` and is saved again, which is the second answer; without
    ticks there is none. Raises `LabHostFault`.
    """
    host.put(STREAM, stream)
    outcome = _ask(host, qemu, {"incoming": True, "outgoing": bool(ticks), "ticks": ticks})
    return outcome, host.get(STREAM) if outcome.completed and ticks else b""


def with_guest(host: "LabHost", machine: str, guest: bytes) -> NestedQemu:
    """A machine with the test guest in it, its kernel put in `host`. Raises `LabHostFault`."""
    host.put(KERNEL, guest)
    host.run(["rm", "-f", SERIAL])
    log = ("-chardev", f"file,id=log,path={SERIAL},append=on", "-serial", "chardev:log")
    return NestedQemu(machine, extra=("-kernel", KERNEL, *log))


def guest_log(host: "LabHost") -> bytes:
    """What the test guest has printed in `host` so far. Raises `LabHostFault`."""
    return host.get(SERIAL)


def _ask(host: "LabHost", qemu: NestedQemu, what: Mapping[str, object]) -> Outcome:
    request = json.dumps({"arguments": qemu.arguments(), **what})
    done = host.run(["python3", "-m", "armferry.lab.nested", request], time_limit=patient(120.0))
    if done.exit_code != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise host.fault(f"could not drive QEMU: {words or 'its time was up'}")
    return Outcome(**json.loads(done.stdout))


def inside(request: Mapping[str, Any], preload: "Preload | None" = None) -> Outcome:
    """Does one request, in the host; with the KVM boundary's library where there is one."""
    incoming, outgoing, ticks = request["incoming"], request["outgoing"], request["ticks"]
    arguments = [*request["arguments"], *(("-incoming", "defer") if incoming else ())]
    ours, theirs = socket.socketpair()
    arguments += ["-chardev", f"socket,id=lab,fd={theirs.fileno()}", "-qmp", "chardev:lab"]
    with open("/tmp/stderr", "w+b") as stderr:  # noqa: S108
        fds = () if preload is None else (preload.table, preload.writing)
        with theirs:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=None if preload is None else preload.environment(os.environ),
                pass_fds=(theirs.fileno(), *fds),
            )
        status, reason = "exited", ""
        try:
            qmp = QmpClient(ours, "QEMU", limit=_TIME_LIMIT)
            if incoming:
                qmp.execute("migrate-incoming", {"uri": f"exec:cat {STREAM}"})
                status, reason = _migrated(qmp)
            if ticks and (status == "completed" or not incoming):
                qmp.execute("cont")
                _await_ticks(ticks)
            if outgoing and (status == "completed" or not incoming):
                qmp.execute("migrate-set-parameters", {"max-bandwidth": UNLIMITED})
                qmp.execute("migrate", {"uri": f"exec:cat > {STREAM}"})
                status, reason = _migrated(qmp)
            qmp.execute("quit")
        except CommandRefused as refused:
            status, reason = "failed", refused.reason
            process.kill()
        except MonitorSilent:
            process.kill()
            raise
        except MonitorFault:
            pass  # QEMU has ended by itself; its standard error says why
        exit_code = process.wait()
        stderr.seek(0)
        words = stderr.read().decode("utf-8", "replace")
    return Outcome(status, reason, exit_code, words)


def _await_ticks(ticks: int) -> None:
    """Wait until the guest has told that many more ticks, or its time is up."""
    before = _ticks()
    deadline = time.monotonic() + _TICK_LIMIT
    while _ticks() < before + ticks and time.monotonic() < deadline:
        time.sleep(_POLL)


def _ticks() -> int:
    with open(SERIAL, "rb") as log:
        return log.read().count(b"\ntick ")


def _migrated(qmp: QmpClient) -> tuple[str, str]:
    """QEMU's word for how the migration ended, and what it says of it."""
    while (state := qmp.execute("query-migrate")).get("status") not in _ENDED:
        time.sleep(_POLL)
    return state["status"], state.get("error-desc", "")


if __name__ == "__main__":
    print(json.dumps(asdict(inside(json.loads(sys.argv[1])))))
