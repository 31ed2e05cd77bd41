"""libvirt's snapshots with memory: gone back to by a libvirtd whose QEMU refuses them.

Both are libvirt 11.3, with QEMU 10.0.2 and 10.0.13; after an upgrade it would be one host.
"""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.cli.main import main
from armferry.hosts.fingerprints.fingerprint import dump
from armferry.hosts.fingerprints.probe import fingerprint_of_qemu
from armferry.hosts.qmp.process import MachineSpec
from armferry.lab.guest import GuestLog
from armferry.lab.libvirt_host import Domain, LibvirtHost, VirshError
from armferry.lab.qemu_install import InstalledQemu

pytestmark = pytest.mark.qemu

OLD, NEW = "bookworm-backports", "trixie"  # QEMU 10.0.2 and 10.0.13
DISK = """
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/shared/disk.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>"""


def _log_at(serial: Path, tick: int, limit: float = 60.0) -> GuestLog:
    deadline = time.monotonic() + limit
    while True:
        log = GuestLog.read(serial)
        if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
            return log
        time.sleep(0.02)


def _start(host: LibvirtHost, domain: Domain, disk: Path, tool: str) -> None:
    subprocess.run([tool, "create", "-q", "-f", "qcow2", str(disk), "16M"], check=True)
    host.define(domain)
    host.virsh("start", "carried")


def _ferry(state: str, there: InstalledQemu, folder: Path) -> None:
    """Rewrites a state in place, for what a QEMU would accept."""
    to = folder / "there.json"
    found = fingerprint_of_qemu(there.launcher, MachineSpec("virt-10.0", "cortex-a57"))
    to.write_text(dump(found))
    assert main(["ferry", state, "--in-place", "--to", str(to)]) == 0


@pytest.mark.parametrize(("here", "there"), [(OLD, NEW), (NEW, OLD)])
def test_a_snapshot_is_reverted_to_by_a_host_that_refused_it(
    here: str,
    there: str,
    libvirt_host: Callable[[str], LibvirtHost],
    libvirt_shared: Path,
    qemu_release: Callable[[str], InstalledQemu],
    tmp_path: Path,
) -> None:
    source, destination = libvirt_host(here), libvirt_host(there)
    serial, disk = libvirt_shared / "serial", libvirt_shared / "disk.qcow2"
    domain = Domain(devices=DISK)
    tool = str(qemu_release(OLD).image_tool)
    try:
        _start(source, domain, disk, tool)
        _log_at(serial, 3)
        source.virsh("snapshot-create-as", "carried", "before-upgrade")
        about = libvirt_shared / "snapshot.xml"
        about.write_text(source.virsh("snapshot-dumpxml", "carried", "before-upgrade"))
        source.virsh("destroy", "carried")
        destination.define(domain)
        destination.virsh("snapshot-create", "carried", "--redefine", "/shared/snapshot.xml")
        with pytest.raises(VirshError) as refused:
            destination.virsh("snapshot-revert", "carried", "before-upgrade")
        assert "while loading VM state" in str(refused.value)

        _ferry(f"{disk}#before-upgrade", qemu_release(there), tmp_path)
        before = GuestLog.read(serial)
        serial.unlink()
        destination.virsh("snapshot-revert", "carried", "before-upgrade")
        assert destination.virsh("domstate", "carried") == "running"
        after = _log_at(serial, before.last + 4)
        assert after.losses == ()
        assert after.last >= before.last + 4
        checked = subprocess.run(
            [tool, "snapshot", "-l", "-U", str(disk)], capture_output=True, text=True, check=True
        )
        assert "before-upgrade" in checked.stdout
    finally:
        source.forget(domain)
        destination.forget(domain)
        disk.unlink(missing_ok=True)
        serial.unlink(missing_ok=True)


@pytest.mark.parametrize(("here", "there"), [(OLD, NEW), (NEW, OLD)])
def test_the_memory_of_an_external_snapshot_is_restored(
    here: str,
    there: str,
    libvirt_host: Callable[[str], LibvirtHost],
    libvirt_shared: Path,
    qemu_release: Callable[[str], InstalledQemu],
    tmp_path: Path,
) -> None:
    """Its file is a save image; the disk is the one of the snapshot's moment, under the overlay."""
    source, destination = libvirt_host(here), libvirt_host(there)
    serial, disk = libvirt_shared / "serial", libvirt_shared / "disk.qcow2"
    memory, overlay = libvirt_shared / "memory", libvirt_shared / "overlay.qcow2"
    domain = Domain(devices=DISK)
    tool = str(qemu_release(OLD).image_tool)
    try:
        _start(source, domain, disk, tool)
        _log_at(serial, 3)
        source.virsh(
            "snapshot-create-as", "carried", "outside", "--memspec", "file=/shared/memory",
            "--diskspec", "vda,snapshot=external,file=/shared/overlay.qcow2",
        )  # fmt: skip
        taken = GuestLog.read(serial)
        _log_at(serial, taken.last + 3)
        source.virsh("destroy", "carried")
        with pytest.raises(VirshError):
            destination.virsh("restore", "/shared/memory")

        _ferry(str(memory), qemu_release(there), tmp_path)
        serial.unlink()
        destination.virsh("restore", "/shared/memory")
        assert destination.virsh("domstate", "carried") == "running"
        after = _log_at(serial, taken.last + 4)
        assert after.losses == ()
        assert after.last >= taken.last + 4
        assert "/shared/disk.qcow2" in destination.virsh("domblklist", "carried")
    finally:
        source.forget(domain)
        destination.forget(domain)
        for path in (disk, memory, overlay, serial):
            path.unlink(missing_ok=True)
