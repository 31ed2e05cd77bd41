"""A guest of a real libvirtd, saved there, restored by another one whose QEMU refuses its image.

Both are libvirt 11.3, with QEMU 10.0.2 and 10.0.13. The guest is the one of `armferry.lab.guest`:
it counts on a serial line that both hosts append to and notices any loss.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.lab.guest import GuestLog
from armferry.lab.libvirt_host import Domain, LibvirtHost, VirshError
from armferry.lab.qemu_install import InstalledQemu
from armferry.stream.save_image import Compression

pytestmark = pytest.mark.qemu

OLD, NEW = "bookworm-backports", "trixie"  # QEMU 10.0.2 and 10.0.13

# What the other host says, alone, of an image that this one saved: no register is named.
LIBVIRT_SAYS = {OLD: "Invalid argument", NEW: "Operation not permitted"}


@dataclass
class Journey:
    """One guest between two hosts."""

    source: LibvirtHost
    destination: LibvirtHost
    shared: Path
    fingerprint: Path
    domain: Domain = field(default_factory=Domain)

    @property
    def serial(self) -> Path:
        return self.shared / "serial"

    def log_at(self, tick: int, limit: float = 30.0) -> GuestLog:
        """The log once it has reached `tick`, or shows anything wrong, or time is up."""
        deadline = time.monotonic() + limit
        while True:
            log = GuestLog.read(self.serial)
            if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
                return log
            time.sleep(0.02)

    def start(self) -> None:
        self.source.define(self.domain)
        self.source.virsh("start", self.domain.name)
        self.log_at(3)

    def ferry(self, *words: str | Path) -> str:
        command: list[str] = [sys.executable, "-m", "armferry", "ferry", *map(str, words)]
        command += ["--to", str(self.fingerprint)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def runs_on(self, before: GuestLog) -> None:
        """The guest counts on where it was saved and misses nothing."""
        after = self.log_at(before.last + 4)
        assert after.faults() == ()
        assert after.last >= before.last + 4
        assert after.ticks[-1].rounds > before.ticks[-1].rounds
        assert self.destination.virsh("domstate", self.domain.name) == "running"


@pytest.fixture
def journey(
    libvirt_host: Callable[[str], LibvirtHost],
    libvirt_shared: Path,
    qemu_release: Callable[[str], InstalledQemu],
    tmp_path: Path,
) -> Iterator[Callable[[str, str], Journey]]:
    """A function from two suites to a journey between their hosts."""
    made: list[Journey] = []

    def between(source: str, destination: str) -> Journey:
        fingerprint = tmp_path / "destination.json"
        _fingerprint(qemu_release(destination), fingerprint)
        made.append(
            Journey(libvirt_host(source), libvirt_host(destination), libvirt_shared, fingerprint)
        )
        return made[-1]

    yield between
    for one in made:
        for host in (one.source, one.destination):
            host.forget(one.domain)
        one.serial.unlink(missing_ok=True)


def _fingerprint(qemu: InstalledQemu, path: Path) -> None:
    command = [sys.executable, "-m", "armferry", "fingerprint", "qemu", "-o", str(path)]
    command += ["--machine", "virt-10.0", "--cpu", "cortex-a57", "--qemu", str(qemu.launcher)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


CASES = [
    pytest.param(
        source,
        destination,
        compression,
        marks=() if (source, compression) in {(OLD, "raw"), (NEW, "zstd")} else pytest.mark.full,
    )
    for source, destination in ((OLD, NEW), (NEW, OLD))
    for compression in (one.word for one in Compression)
]


@pytest.mark.parametrize(("source", "destination", "compression"), CASES)
def test_saved_guest_is_restored_by_a_host_that_refused_it(
    source: str, destination: str, compression: str, journey: Callable[[str, str], Journey]
) -> None:
    here = journey(source, destination)
    image = here.shared / "image"
    here.start()
    here.source.virsh("save", "carried", "/shared/image", "--image-format", compression)
    before = GuestLog.read(here.serial)
    original = open_subject(str(image))

    with pytest.raises(VirshError) as refused:
        here.destination.virsh("restore", "/shared/image")
    assert LIBVIRT_SAYS[destination] in str(refused.value)

    said = here.ferry(image, "--in-place")
    beside = ", written beside and renamed" if not _seekable(compression) else ""
    assert f"{image}: rewritten; a libvirt save image, {compression}{beside}\n" in said
    ferried = open_subject(str(image))
    assert ferried.image == original.image
    assert ferried.image is not None
    assert ferried.image.header.complete
    here.destination.virsh("restore", "/shared/image")
    here.runs_on(before)


def _seekable(compression: str) -> bool:
    return Compression[compression.upper()].seekable


def test_managed_save_is_started_by_a_host_that_refused_it(
    journey: Callable[[str, str], Journey],
) -> None:
    """As after an upgrade of QEMU: libvirt finds the image where the older one left it."""
    here = journey(NEW, OLD)
    here.start()
    here.source.virsh("managedsave", "carried")
    before = GuestLog.read(here.serial)
    theirs = here.destination.managed_image(here.domain)
    theirs.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(here.source.managed_image(here.domain), theirs)
    here.destination.define(here.domain)

    with pytest.raises(VirshError) as refused:
        here.destination.virsh("start", "carried")
    assert LIBVIRT_SAYS[OLD] in str(refused.value)

    here.ferry(theirs, "--in-place")
    here.destination.virsh("start", "carried")
    here.runs_on(before)
    assert not theirs.exists()


def test_image_goes_through_pipes_and_stays_an_image(
    journey: Callable[[str, str], Journey],
) -> None:
    here = journey(OLD, NEW)
    image, ferried = here.shared / "image", here.shared / "ferried"
    here.start()
    here.source.virsh("save", "carried", "/shared/image", "--image-format", "gzip")
    before = GuestLog.read(here.serial)
    command = [sys.executable, "-m", "armferry", "ferry", "-", "-", "--to", str(here.fingerprint)]
    with image.open("rb") as source, ferried.open("wb") as target:
        subprocess.run(
            ["sh", "-c", 'cat | "$@" | cat', "sh", *command],
            stdin=source,
            stdout=target,
            check=True,
            timeout=60,
        )
    here.destination.virsh("restore", "/shared/ferried")
    here.runs_on(before)


@pytest.mark.full
def test_libvirt_throws_an_incomplete_managed_save_away(
    journey: Callable[[str, str], Journey],
) -> None:
    """Why a rewrite in place never marks the image as incomplete."""
    here = journey(OLD, NEW)
    here.start()
    here.source.virsh("managedsave", "carried")
    image = here.source.managed_image(here.domain)
    with image.open("r+b") as file:
        file.write(b"LibvirtQemudPart")
    here.source.virsh("start", "carried")
    assert not image.exists()


@pytest.mark.full
def test_libvirt_throws_a_managed_save_away_that_a_hook_stopped(
    journey: Callable[[str, str], Journey],
) -> None:
    """Why armferry's hook never stops the restore of a managed save."""
    here = journey(OLD, NEW)
    host = here.source
    here.start()
    host.virsh("managedsave", "carried")
    hook = host.hooks / "qemu.d" / "stops"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text('#!/bin/sh\n[ "$2" != restore ]\n')
    hook.chmod(0o755)
    host.reload()
    time.sleep(0.5)
    try:
        host.virsh("start", "carried")  # and libvirt calls it a success
        assert host.virsh("domstate", "carried") == "shut off"
        assert not host.managed_image(here.domain).exists()
    finally:
        hook.unlink()
        host.reload()
