"""Saved states with pages at fixed offsets (mapped-ram), ferried beside and in place.

The file is nearly all holes: they must survive, and the running test guest must go on.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.hosts.qmp.process import LoadResult, MachineSpec, QemuProcess
from armferry.lab.guest import GuestLog
from armferry.lab.qemu_install import InstalledQemu

Named = Callable[[str], InstalledQemu]

pytestmark = pytest.mark.qemu

MOVES = [
    ("bookworm-backports", "trixie", "virt-10.0"),
    ("trixie", "bookworm-backports", "virt-10.0"),
    ("trixie-backports", "trixie", "virt-7.2"),
]


def mapped(machine: QemuProcess) -> None:
    """Turns the capability on."""
    capability = {"capability": "mapped-ram", "state": True}
    machine.execute("migrate-set-capabilities", {"capabilities": [capability]})


def log_at(path: Path, tick: int, limit: float = 30.0) -> GuestLog:
    """The guest's log once it has reached `tick`, or shows anything wrong, or time is up."""
    deadline = time.monotonic() + limit
    while True:
        log = GuestLog.read(path)
        if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
            return log
        time.sleep(0.02)


def load(qemu: InstalledQemu, spec: MachineSpec, state: Path) -> LoadResult:
    with QemuProcess(qemu, spec, paused=True, incoming=True) as machine:
        mapped(machine)
        return machine.load_uri(f"file:{state}")


def armferry(*words: str | Path) -> None:
    command = [sys.executable, "-m", "armferry", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("in_place", [False, True], ids=["beside", "in place"])
@pytest.mark.parametrize(("old", "new", "machine"), MOVES)
def test_guest_goes_on(
    old: str,
    new: str,
    machine: str,
    in_place: bool,
    qemu_release: Named,
    guest_kernel: Path,
    tmp_path: Path,
) -> None:
    spec = MachineSpec(machine=machine, memory=512, kernel=guest_kernel)
    state, there, serial = tmp_path / "state", tmp_path / "there", tmp_path / "serial"
    with QemuProcess(qemu_release(old), spec, serial=serial) as source:
        log_at(serial, 2)
        mapped(source)
        source.migrate(f"file:{state}")
    before = GuestLog.read(serial)
    with QemuProcess(qemu_release(new), spec, paused=True) as fresh:
        fresh.save(there)
    assert not load(qemu_release(new), spec, state).loaded
    blocks = state.stat().st_blocks
    assert blocks * 512 < state.stat().st_size / 4

    if in_place:
        armferry("ferry", state, "--in-place", "--to", there)
        ferried = state
    else:
        ferried = tmp_path / "ferried"
        armferry("ferry", state, ferried, "--to", there)
        assert ferried.stat().st_blocks <= blocks + 64
    with QemuProcess(qemu_release(new), spec, serial=serial, incoming=True) as destination:
        mapped(destination)
        result = destination.load_uri(f"file:{ferried}")
        assert result.loaded, result.stderr
        after = log_at(serial, before.last + 3)
    assert after.faults() == ()
    assert after.last >= before.last + 3
