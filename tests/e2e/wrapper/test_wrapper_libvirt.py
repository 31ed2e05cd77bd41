"""The wrapper as `<emulator>` of two real libvirtd whose QEMUs refuse each other's guests."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.lab.guest import GuestLog
from armferry.lab.libvirt_host import Domain, LibvirtHost, VirshError

pytestmark = pytest.mark.qemu

OLD, NEW = "bookworm-backports", "trixie"
BOTH_WAYS = pytest.mark.parametrize(("here", "there"), [(OLD, NEW), (NEW, OLD)])
WRAPPER = "/shared/armferry-qemu"
PROGRAM = "#!/usr/bin/python3\nfrom armferry.wrapper.start import main\nraise SystemExit(main())\n"

HIDDEN = 0x6030000000139820  # DBGDTR_EL0

Named = Callable[[str], LibvirtHost]


@pytest.fixture
def wrapper(libvirt_shared: Path) -> str:
    """The program, as both hosts see it."""
    program = libvirt_shared / "armferry-qemu"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return WRAPPER


@pytest.fixture
def clean(libvirt_host: Named, libvirt_shared: Path) -> Iterator[None]:
    """Leaves no guest on either host."""
    yield
    for suite in (OLD, NEW):
        libvirt_host(suite).forget(Domain())
    (libvirt_shared / "serial").unlink(missing_ok=True)


def _log_at(shared: Path, tick: int, limit: float = 60.0) -> GuestLog:
    deadline = time.monotonic() + limit
    while True:
        log = GuestLog.read(shared / "serial")
        if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
            return log
        time.sleep(0.02)


def _goes_on(shared: Path, before: GuestLog) -> None:
    after = _log_at(shared, before.last + 4)
    assert after.faults() == ()
    assert after.last >= before.last + 4


@pytest.mark.parametrize("how", [("raw",), ("zstd",), ("sparse",), ("sparse", "--bypass-cache")])
@BOTH_WAYS
@pytest.mark.usefixtures("clean")
def test_saved_here_restored_there(
    here: str,
    there: str,
    how: tuple[str, ...],
    wrapper: str,
    libvirt_host: Named,
    libvirt_shared: Path,
) -> None:
    libvirt_host(here).define(Domain(emulator=wrapper))
    libvirt_host(here).virsh("start", "carried")
    _log_at(libvirt_shared, 3)
    words = ("--image-format", *how)
    libvirt_host(here).virsh("save", "carried", "/shared/image", *words)
    before = GuestLog.read(libvirt_shared / "serial")
    libvirt_host(there).virsh("restore", "/shared/image", *how[1:])
    _goes_on(libvirt_shared, before)


@pytest.mark.parametrize("how", ["raw", "sparse"])
@pytest.mark.usefixtures("clean")
def test_hidden_registers_are_in_no_save_image(
    how: str, wrapper: str, libvirt_host: Named, libvirt_shared: Path
) -> None:
    host, image = libvirt_host(NEW), libvirt_shared / "image"
    lists = []
    for hidden in ((), ("-global", f"arm-cpu.x-mig-hidden-regs={HIDDEN:#x}")):
        (libvirt_shared / "serial").unlink(missing_ok=True)
        host.define(Domain(emulator=wrapper, arguments=hidden))
        host.virsh("start", "carried")
        _log_at(libvirt_shared, 3)
        host.virsh("save", "carried", "/shared/image", "--image-format", how)
        subject = open_subject(str(image))
        assert subject.image is not None
        assert subject.image.header.complete
        lists.append(set(subject.lists[0]))
    assert lists[0] - lists[1] == {HIDDEN}
    before = GuestLog.read(libvirt_shared / "serial")
    host.virsh("restore", "/shared/image")
    _goes_on(libvirt_shared, before)


@BOTH_WAYS
@pytest.mark.usefixtures("clean")
def test_live_migration_without_further_options(
    here: str, there: str, wrapper: str, libvirt_host: Named, libvirt_shared: Path
) -> None:
    source, destination = libvirt_host(here), libvirt_host(there)
    words = ("migrate", "--live", "carried", destination.uri, "tcp://127.0.0.1")

    source.define(Domain())
    source.virsh("start", "carried")
    _log_at(libvirt_shared, 3)
    with pytest.raises(VirshError):
        source.virsh(*words)
    assert source.virsh("domstate", "carried") == "running"
    source.forget(Domain())
    (libvirt_shared / "serial").unlink()

    source.define(Domain(emulator=wrapper))
    source.virsh("start", "carried")
    before = _log_at(libvirt_shared, 3)
    source.virsh(*words)
    assert destination.virsh("domstate", "carried") == "running"
    _goes_on(libvirt_shared, before)
