"""The main job: a running guest, saved by one QEMU, carried on by another that refuses its file.

QEMU 10.0.2 and 10.0.13 are one stable point update apart; each refuses the other's guests. The
guest is the one of `armferry.lab.guest`: it counts on the serial line and notices any loss.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from armferry.hosts.fingerprints.saved_subject import read_state
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.guest import GuestLog
from armferry.lab.qemu_install import InstalledQemu
from armferry.registers import Kind, kind

Named = Callable[[str], InstalledQemu]

pytestmark = pytest.mark.qemu

OLD, NEW = "bookworm-backports", "trixie"  # QEMU 10.0.2 and 10.0.13

REGISTERS_THAT_DIFFER = {
    "DBGDTRTXINT": "0x40200000200e0280",
    "DBGDTRTX": "0x40200000200e0298",
    "DBGDTR_EL0": "0x6030000000139820",
}

# What the other QEMU says, alone, of a guest that this one saved: no register is named.
QEMU_SAYS = {
    OLD: (
        "qemu-system-aarch64: error while loading state for instance 0x0 of device 'cpu'\n"
        "qemu-system-aarch64: load of migration failed: Operation not permitted\n"
    ),
    NEW: (
        "qemu-system-aarch64: Invalid value 275 expecting positive value <= 274\n"
        "qemu-system-aarch64: Failed to load cpu:cpreg_vmstate_array_len\n"
        "qemu-system-aarch64: error while loading state for instance 0x0 of device 'cpu'\n"
        "qemu-system-aarch64: load of migration failed: Invalid argument\n"
    ),
}


def _armferry(*words: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "armferry", *words],
        capture_output=True,
        timeout=60,
        check=False,
        **options,
    )


def _log_at(path: Path, tick: int, limit: float = 30.0) -> GuestLog:
    """The guest's log once it has reached `tick`, or shows anything wrong, or time is up."""
    deadline = time.monotonic() + limit
    while True:
        log = GuestLog.read(path)
        if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
            return log
        time.sleep(0.02)


class Rig:
    """One guest on its way; every QEMU it visits appends to the same serial log."""

    def __init__(self, smp: int, kernel: Path, folder: Path) -> None:
        self.spec = MachineSpec(machine="virt-10.0", smp=smp, kernel=kernel)
        self.folder = folder
        self.serial = folder / "serial"

    def start_and_save(self, qemu: InstalledQemu, name: str) -> Path:
        """Starts the guest, lets it run and saves it while it runs."""
        with QemuProcess(qemu, self.spec, serial=self.serial) as machine:
            _log_at(self.serial, 3)
            assert machine.status() == "running"
            return self._save(machine, name)

    def carry_on(self, qemu: InstalledQemu, stream: Path, name: str) -> Path:
        """Loads `stream`, lets the guest run on and saves it again."""
        before = GuestLog.read(self.serial).last
        with QemuProcess(qemu, self.spec, serial=self.serial, incoming=True) as machine:
            result = machine.load(stream)
            assert result.loaded, result.stderr
            assert machine.status() == "running"
            after = _log_at(self.serial, before + 5)
            assert after.faults() == ()
            assert after.last >= before + 5
            assert after.cpus == self.spec.smp
            return self._save(machine, name)

    def refuses(self, qemu: InstalledQemu, stream: Path) -> str:
        """What `qemu` says when it refuses `stream`."""
        with QemuProcess(qemu, self.spec, paused=True, incoming=True) as machine:
            result = machine.load(stream)
        assert not result.loaded
        return result.stderr

    def resaved(self, qemu: InstalledQemu, stream: Path) -> tuple[Mapping[int, int], ...]:
        """The register lists that `qemu` saves after it has loaded `stream` and run nothing."""
        # the paused destination of a guest that was running would run: -S holds it back
        again = self.folder / "again"
        with QemuProcess(qemu, self.spec, paused=True, incoming=True) as machine:
            result = machine.load(stream)
            assert result.loaded, result.stderr
            assert machine.status() == "paused"
            machine.save(again)
        return tuple(cpu.registers for cpu in read_state(again).cpus)

    def fingerprint(self, qemu: InstalledQemu, name: str) -> Path:
        """The fingerprint of `qemu` for this guest, by the command."""
        path = self.folder / name
        done = _armferry(
            *("fingerprint", "qemu", "--machine", self.spec.machine, "--cpu", self.spec.cpu),
            *("--accel", "tcg", "--smp", str(self.spec.smp), "--qemu", qemu.launcher, "-o", path),
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return path

    def _save(self, machine: QemuProcess, name: str) -> Path:
        path = self.folder / name
        machine.save(path)
        assert machine.status() == "postmigrate"
        return path


def _check(stream: Path, to: Path) -> None:
    """`check` names exactly the registers that differ, on every vCPU, and says how it works."""
    done = _armferry("check", stream, "--to", to, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, b"")
    assert document["verdict"] == "works-with-policy"
    assert document["risk"] == "lossless"
    assert document["obstacles"] == []
    for vcpu in range(document["vcpus"]):
        named = {one["name"]: one["index"] for one in document["registers"] if one["vcpu"] == vcpu}
        assert named == REGISTERS_THAT_DIFFER


def _same_values(
    source: tuple[Mapping[int, int], ...], there: tuple[Mapping[int, int], ...]
) -> None:
    """Every register that both sides have holds the source's value, on every vCPU."""
    assert len(source) == len(there)
    for sent, loaded in zip(source, there, strict=True):
        matched = {i for i in sent.keys() & loaded.keys() if kind(i) is not Kind.RUNNING_COUNTER}
        assert len(matched) > 200
        assert {i: loaded[i] for i in matched} == {i: sent[i] for i in matched}


@pytest.mark.parametrize("smp", [1, 2, pytest.param(8, marks=pytest.mark.full)])
@pytest.mark.parametrize(("here", "there"), [(OLD, NEW), (NEW, OLD)], ids=["there", "back"])
def test_running_guest_crosses_and_returns(
    here: str, there: str, smp: int, qemu_release: Named, guest_kernel: Path, tmp_path: Path
) -> None:
    source, destination = qemu_release(here), qemu_release(there)
    rig = Rig(smp, guest_kernel, tmp_path)
    saved = rig.start_and_save(source, "saved")

    assert rig.refuses(destination, saved) == QEMU_SAYS[here]
    fingerprint = rig.fingerprint(destination, "destination.json")
    _check(saved, fingerprint)

    ferried = tmp_path / "ferried"
    done = _armferry("ferry", saved, ferried, "--to", fingerprint)
    assert (done.returncode, done.stderr) == (0, b"")
    _same_values(
        tuple(cpu.registers for cpu in read_state(saved).cpus), rig.resaved(destination, ferried)
    )
    saved_there = rig.carry_on(destination, ferried, "saved-there")

    # and back: the guest has run on the destination meanwhile
    assert rig.refuses(source, saved_there) == QEMU_SAYS[there]
    home = rig.fingerprint(source, "source.json")
    _check(saved_there, home)
    done = _armferry("ferry", saved_there, "--in-place", "--to", home)
    assert (done.returncode, done.stderr) == (0, b"")
    rig.carry_on(source, saved_there, "saved-home")
    assert GuestLog.read(rig.serial).faults() == ()


def test_three_ways_to_ferry_write_the_same_bytes(
    qemu_release: Named, guest_kernel: Path, tmp_path: Path
) -> None:
    rig = Rig(2, guest_kernel, tmp_path)
    saved = rig.start_and_save(qemu_release(OLD), "saved")
    fingerprint = rig.fingerprint(qemu_release(NEW), "fingerprint.json")
    beside, in_place, out = (tmp_path / name for name in ("beside", "in-place", "out"))
    in_place.write_bytes(saved.read_bytes())

    assert _armferry("ferry", saved, beside, "--to", fingerprint).returncode == 0
    assert _armferry("ferry", in_place, "--in-place", "--to", fingerprint).returncode == 0
    with saved.open("rb") as stdin:
        through = _armferry("ferry", "-", "-", "--to", fingerprint, stdin=stdin)
    with saved.open("rb") as stdin:
        into = _armferry("ferry", "-", out, "--to", fingerprint, stdin=stdin)
    outward = _armferry("ferry", saved, "-", "--to", fingerprint)
    assert (through.returncode, into.returncode, outward.returncode) == (0, 0, 0)

    ferried = beside.read_bytes()
    assert ferried != saved.read_bytes()
    assert in_place.read_bytes() == ferried
    assert through.stdout == ferried
    assert out.read_bytes() == ferried
    assert outward.stdout == ferried


def test_ferrying_twice_changes_nothing_more(
    qemu_release: Named, guest_kernel: Path, tmp_path: Path
) -> None:
    rig = Rig(1, guest_kernel, tmp_path)
    saved = rig.start_and_save(qemu_release(OLD), "saved")
    fingerprint = rig.fingerprint(qemu_release(NEW), "fingerprint.json")
    assert _armferry("ferry", saved, "--in-place", "--to", fingerprint).returncode == 0
    once = saved.read_bytes()
    done = _armferry("ferry", saved, "--in-place", "--to", fingerprint, "--json")
    assert saved.read_bytes() == once
    assert done.returncode == 0
    # the registers that only the destination has are there now; nothing is left to decide
    assert json.loads(done.stdout)["verdict"] == "works"
