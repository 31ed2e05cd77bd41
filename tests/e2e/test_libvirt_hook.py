"""The hook in two real libvirtds: it stops what cannot work before anything is sent."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from armferry.lab.guest import GuestLog
from armferry.lab.libvirt_host import Domain, LibvirtHost, VirshError

pytestmark = pytest.mark.qemu

OLD, NEW = "bookworm-backports", "trixie"  # QEMU 10.0.2 and 10.0.13

REASON = (
    "QEMU 10.0.13 would refuse registers DBGDTRTX; armferry can carry it: armferry ferry for an "
    "image, armferry gateway live"
)


def _armferry(host: LibvirtHost, *words: str) -> str:
    done = host.run("python3", "-m", "armferry", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def hooked(
    libvirt_host: Callable[[str], LibvirtHost], libvirt_shared: Path
) -> Iterator[tuple[LibvirtHost, LibvirtHost]]:
    """The old host with a running guest, and the new one with hook and both fingerprints."""
    old, new = libvirt_host(OLD), libvirt_host(NEW)
    domain = Domain()
    old.define(domain)
    old.virsh("start", domain.name)
    _log_at(libvirt_shared, 2)
    kind = "virt-10.0,gic-version=2 cortex-a57 tcg, /usr/bin/qemu-system-aarch64"
    assert f"{kind}: 274 registers, new\n" in _armferry(old, "host", "fingerprint")
    shutil.copytree(old.state / "host", new.state / "hosts" / "old")
    assert "275 registers, new" in _armferry(new, "host", "fingerprint")
    _armferry(new, "hook", "install")
    new.reload()
    yield old, new
    _armferry(new, "hook", "remove")
    new.reload()
    for host in (old, new):
        host.forget(domain)
        for path in host.state.iterdir():  # the folder itself is mounted
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (libvirt_shared / "serial").unlink()


def _log_at(shared: Path, tick: int, limit: float = 30.0) -> GuestLog:
    deadline = time.monotonic() + limit
    while True:
        log = GuestLog.read(shared / "serial")
        if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
            return log
        time.sleep(0.02)


def test_migration_is_stopped_with_the_source_running(
    hooked: tuple[LibvirtHost, LibvirtHost], libvirt_shared: Path
) -> None:
    old, new = hooked
    with pytest.raises(VirshError) as stopped:
        old.virsh(
            *("migrate", "--live", "carried", new.uri),
            *("--migrateuri", f"tcp://127.0.0.1:{new.port}"),
        )
    assert f"armferry: carried cannot come here from old: {REASON}" in str(stopped.value)
    assert old.virsh("domstate", "carried") == "running"
    assert new.virsh("list", "--all", "--name") == ""
    before = GuestLog.read(libvirt_shared / "serial")
    after = _log_at(libvirt_shared, before.last + 3)
    assert after.faults() == ()
    assert after.last >= before.last + 3


@pytest.mark.parametrize("compression", ["raw", "sparse"])
def test_restore_is_stopped_until_the_image_is_ferried(
    compression: str, hooked: tuple[LibvirtHost, LibvirtHost], libvirt_shared: Path
) -> None:
    old, new = hooked
    old.virsh("save", "carried", "/shared/image", "--image-format", compression)
    before = GuestLog.read(libvirt_shared / "serial")
    with pytest.raises(VirshError) as stopped:
        new.virsh("restore", "/shared/image")
    assert f"armferry: carried cannot be restored here: {REASON}" in str(stopped.value)

    own = json.loads((new.state / "host" / "index.json").read_text())["fingerprints"][0]["file"]
    _armferry(new, "ferry", "/shared/image", "--in-place", "--to", f"/var/lib/armferry/host/{own}")
    new.virsh("restore", "/shared/image")
    after = _log_at(libvirt_shared, before.last + 3)
    assert after.faults() == ()
    assert after.last >= before.last + 3


def test_managed_save_is_never_stopped_and_so_never_lost(
    hooked: tuple[LibvirtHost, LibvirtHost],
) -> None:
    """libvirt deletes the image of a managed save whose restore a hook has stopped."""
    old, new = hooked
    old.virsh("managedsave", "carried")
    theirs = new.managed_image(Domain())
    theirs.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(old.managed_image(Domain()), theirs)
    new.define(Domain())
    with pytest.raises(VirshError) as refused:
        new.virsh("start", "carried")
    assert "load of migration failed: Operation not permitted" in str(refused.value)
    assert theirs.read_bytes() == old.managed_image(Domain()).read_bytes()


def test_compressed_image_is_left_to_qemu(hooked: tuple[LibvirtHost, LibvirtHost]) -> None:
    old, new = hooked
    old.virsh("save", "carried", "/shared/image", "--image-format", "zstd")
    with pytest.raises(VirshError) as refused:
        new.virsh("restore", "/shared/image")
    assert "load of migration failed: Operation not permitted" in str(refused.value)


def test_hook_is_quick(hooked: tuple[LibvirtHost, LibvirtHost], libvirt_shared: Path) -> None:
    _, new = hooked
    (libvirt_shared / "domain.xml").write_text(Domain().xml)
    answers = []
    for _ in range(5):
        words = ["hook", "test", "/shared/domain.xml", "--json"]
        done = new.run("python3", "-m", "armferry", *words)
        assert done.returncode == 2, done.stderr
        answers.append(json.loads(done.stdout))
    assert answers[0]["said"] == f"armferry: carried cannot come here from old: {REASON}"
    # processor time: the tests share the machine with other busy programs
    assert min(answer["processor_ms"] for answer in answers) < 50
    other = new.run(
        "python3", "-m", "armferry", "hook", "test", "/shared/domain.xml", "--operation", "start"
    )
    assert other.returncode == 0
    assert other.stdout.startswith("start: may begin, decided in ")
