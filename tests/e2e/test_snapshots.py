"""Snapshots inside qcow2 images: refused by the other QEMU, ferried where they are, running on.

Every ordered pair of the rig's releases that has a machine type in common. The guest is the one of
`armferry.lab.guest`: it counts on the serial line and notices any loss.
"""

import itertools
import random
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.cli.main import main
from armferry.hosts.files.in_place import FileInPlace
from armferry.hosts.files.journal import journal_path
from armferry.hosts.files.saved_file import opened_image
from armferry.hosts.fingerprints.fingerprint import dump
from armferry.hosts.fingerprints.probe import fingerprint_of_qemu
from armferry.hosts.qmp.process import MachineSpec, QemuProcess, QemuProcessError
from armferry.lab.guest import GuestLog
from armferry.lab.qemu_install import InstalledQemu

from ..hosts.test_rewrite_in_place import calls_of, crash_at

Named = Callable[[str], InstalledQemu]

pytestmark = pytest.mark.qemu

OLDEST, NEWEST = "bullseye", "trixie-backports"
SUITES = (OLDEST, "bookworm", "bookworm-backports", "trixie", NEWEST)
MACHINES = {"virt-5.2": SUITES, "virt-7.2": SUITES[1:], "virt-10.0": SUITES[2:]}
NEWEST_COMMON = {
    frozenset(pair): machine
    for machine, suites in MACHINES.items()
    for pair in itertools.combinations(suites, 2)
}
"""Two suites -> the newest machine type that both have."""
_DISK_DEVICE = "virtio-blk-pci,drive=disk,romfile=,queue-size=1024"
"""With the size of a queue: 10.0.13 has 1024 where it says 256, and 11.1.3 refuses that."""
REFUSED = ("while loading VM state", "of device 'cpu'", "vmstate_load_state: Assertion")
"""What QEMU says of a state that it does not load, by release; one aborts."""
_NOT_MARKED = re.compile(r"^ERROR OFLAG_COPIED .* refcount=1$")
"""A cluster with one user that is not marked so: QEMU copies it where it could have written."""
_LEAKS_ALONE = 3
"""Exit code of qemu-img check: clusters are counted as in use and are not, no other error."""
PAIRS = [
    pytest.param(
        *pair,
        marks=() if pair in {(SUITES[2], SUITES[3]), (SUITES[3], SUITES[2])} else pytest.mark.full,
    )
    for pair in itertools.permutations(SUITES, 2)
]


class Guest:
    """The test guest with a disk; every QEMU that it visits appends to the same serial log."""

    def __init__(self, qemu: Named, kernel: Path, folder: Path, machine: str) -> None:
        self.qemu = qemu
        self.kernel = kernel
        self.folder = folder
        self.machine = machine
        self.disk = folder / "disk.qcow2"
        self.variables = folder / "variables.qcow2"
        """An image for the UEFI variables; used once it is there, before the disk, as by UTM."""
        self.serial = folder / "serial"

    def create(self, suite: str, *options: str) -> None:
        """Makes the disk with the qemu-img of `suite`."""
        self.run_tool(suite, "create", "-q", "-f", "qcow2", *options, self.disk, "16M")

    def create_variables(self, suite: str) -> None:
        """Makes the image of the UEFI variables, as large as the machine's flash."""
        self.run_tool(suite, "create", "-q", "-f", "qcow2", self.variables, "64M")

    def start(self, suite: str | Path, *words: str) -> QemuProcess:
        """Starts the QEMU of a suite, or a program, with more `words`."""
        drive = f"file={self.disk},if=none,format=qcow2,id=disk"
        flash = f"file={self.variables},if=pflash,format=qcow2,unit=1"
        before = ("-drive", flash) if self.variables.exists() else ()
        extra = (*before, "-drive", drive, "-device", _DISK_DEVICE, *words)
        spec = MachineSpec(self.machine, kernel=self.kernel, extra=extra)
        program = suite if isinstance(suite, Path) else self.qemu(suite)
        return QemuProcess(program, spec, serial=self.serial)

    def save(self, suite: str, *names: str) -> None:
        """Lets the guest run, and takes a snapshot of each name while it does."""
        with self.start(suite) as machine:
            for number, name in enumerate(names):
                self.log_at(3 + 2 * number)
                said = machine.execute("human-monitor-command", {"command-line": f"savevm {name}"})
                assert said.strip() == ""
            machine.quit()

    def log_at(self, tick: int, limit: float = 60.0) -> GuestLog:
        """The log once it has reached `tick`, or shows anything wrong, or time is up."""
        deadline = time.monotonic() + limit
        while True:
            log = GuestLog.read(self.serial)
            if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
                return log
            time.sleep(0.02)

    def runs_on(self, suite: str, name: str) -> None:
        """The guest goes on from the snapshot `name` and misses nothing."""
        before = GuestLog.read(self.serial)
        self.serial.unlink()
        with self.start(suite, "-loadvm", name) as machine:
            log = self.log_at(before.last + 4)
            assert log.losses == ()
            assert log.last >= before.last + 4
            assert machine.status() == "running"
            machine.quit()

    def refused(self, suite: str, name: str) -> None:
        """The QEMU of `suite` does not load the snapshot, and ends."""
        with pytest.raises(QemuProcessError) as fault, self.start(suite, "-loadvm", name):
            pass
        assert any(words in fault.value.stderr for words in REFUSED)

    def checked(self, *suites: str) -> None:
        """What the oldest and the newest qemu-img find wrong with the images: nothing."""
        for image in filter(Path.exists, (self.disk, self.variables)):
            for suite in suites or (OLDEST, NEWEST):
                found = self.run_tool(suite, "check", image)
                assert "No errors were found on the image." in found

    def nothing_broken(self) -> None:
        """The oldest and the newest qemu-img find nothing that costs more than room or a copy."""
        for suite in (OLDEST, NEWEST):
            command = [str(self.qemu(suite).image_tool), "check", str(self.disk)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            errors = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
            assert [line for line in errors if not _NOT_MARKED.search(line)] == []
            assert done.returncode in ((2,) if errors else (0, _LEAKS_ALONE))

    def run_tool(self, suite: str, *words: object) -> str:
        """What the qemu-img of `suite` prints."""
        command = [str(word) for word in (self.qemu(suite).image_tool, *words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def guest(qemu_release: Named, guest_kernel: Path, tmp_path: Path) -> Callable[[str], Guest]:
    """A function from a machine type to a guest that has not been started yet."""
    return lambda machine: Guest(qemu_release, guest_kernel, tmp_path, machine)


@pytest.fixture
def wrapped(qemu_release: Named, tmp_path: Path) -> Callable[[str], Path]:
    """A function from a suite to a program that is its QEMU, wrapped."""

    def named(suite: str) -> Path:
        program = tmp_path / f"armferry-qemu-{suite}"
        qemu = shlex.quote(str(qemu_release(suite).launcher))
        words = shlex.join([sys.executable, "-m", "armferry.wrapper.start"])
        program.write_text(f'#!/bin/sh\nARMFERRY_QEMU={qemu} exec {words} "$@"\n')
        program.chmod(0o755)
        return program

    return named


@pytest.fixture
def destination(qemu_release: Named, tmp_path: Path) -> Callable[[str, str], Path]:
    """A function from a suite and a machine type to a fingerprint of that QEMU."""

    def probed(suite: str, machine: str) -> Path:
        path = tmp_path / f"{suite}.json"
        found = fingerprint_of_qemu(qemu_release(suite).launcher, MachineSpec(machine))
        path.write_text(dump(found))
        return path

    return probed


def ferried(source: str, to: Path, *words: str) -> None:
    """The state rewritten, with the smallest policy that makes it work where one is needed."""
    move = [source, "--to", str(to)]
    if main(["ferry", *move, *words]) == 0:
        return
    policy = to.with_suffix(".toml")
    assert main(["plan", *move, "-o", str(policy)]) in (0, 1)
    assert main(["ferry", *move, *words, "--policy", str(policy)]) == 0


@pytest.mark.parametrize(("source", "there"), PAIRS)
def test_a_snapshot_that_was_refused_runs(
    source: str, there: str, guest: Callable[[str], Guest], destination: Callable[[str, str], Path]
) -> None:
    machine = NEWEST_COMMON[frozenset((source, there))]
    moved = guest(machine)
    moved.create(OLDEST)
    moved.save(source, "stays", "goes")
    moved.refused(there, "goes")
    ferried(f"{moved.disk}#goes", destination(there, machine), "--in-place")
    moved.checked()
    moved.runs_on(there, "goes")
    moved.checked()
    moved.runs_on(source, "stays")


def test_wrapped_qemu_carries_the_snapshot_it_is_started_from(
    guest: Callable[[str], Guest], wrapped: Callable[[str], Path]
) -> None:
    moved = guest("virt-10.0")
    moved.create(OLDEST)
    moved.save("bookworm-backports", "goes")
    moved.refused("trixie", "goes")
    before = GuestLog.read(moved.serial)
    moved.serial.unlink()
    with moved.start(wrapped("trixie"), "-loadvm", "goes") as machine:
        log = moved.log_at(before.last + 4)
        assert log.losses == ()
        assert log.last >= before.last + 4
        assert (
            f"armferry: -loadvm goes: the state in {moved.disk} was rewritten for this QEMU, risk "
            "lossless: DBGDTRTX, DBGDTRTXINT, DBGDTR_EL0\n"
        ) in machine.stderr
        said = machine.execute("human-monitor-command", {"command-line": "loadvm goes"})
        assert said == ""
        assert (
            "armferry: the snapshot goes is loaded by QEMU alone; should it refuse the state, end "
            "QEMU and run: armferry ferry IMAGE#goes --in-place --to DEST, or start it with "
            "-loadvm goes\n"
        ) in machine.stderr
        machine.quit()
    moved.checked()


IMAGES = {
    "clusters of 512 bytes": ("cluster_size=512",),
    "clusters of 4 KiB": ("cluster_size=4k",),
    "clusters of 2 MiB": ("cluster_size=2M",),
    "refcounts of 4 bits": ("refcount_bits=4",),
    "refcounts of 8 bits": ("refcount_bits=8,cluster_size=1k",),
    "refcounts of 64 bits": ("refcount_bits=64",),
    "version 2": ("compat=0.10",),
    "extended L2": ("extended_l2=on",),
    "extended L2, clusters of 16 KiB": ("extended_l2=on,cluster_size=16k",),
    "zstd": ("compression_type=zstd",),
    "lazy refcounts": ("lazy_refcounts=on",),
    "preallocated": ("preallocation=metadata",),
    "a backing file": ("backing",),
    "a bitmap": ("bitmap",),
    "compressed clusters": ("compressed",),
    "a snapshot of the disk": ("snapshot",),
    "a large disk": ("large",),
}
"""What qemu-img is asked for, or what is done with the image it makes."""


def _make(moved: Guest, *options: str) -> Path:
    """An image with content, made by the newest qemu-img; the content as a plain file."""
    plain, base = moved.folder / "plain", moved.folder / "base.qcow2"
    content = random.Random(7).randbytes(1 << 20) + bytes(1 << 20) + b"text " * 100_000
    size = (64 << 30) if "large" in options else 16 << 20
    with plain.open("wb") as file:
        file.write(content)
        file.truncate(size)
    named = [one for one in options if "=" in one]
    words = [*(["-o", ",".join(named)] if named else []), *["-c"] * ("compressed" in options)]
    first = base if "backing" in options else moved.disk
    moved.run_tool(NEWEST, "convert", "-O", "qcow2", *words, plain, first)
    if "backing" in options:
        moved.run_tool(NEWEST, "create", "-f", "qcow2", "-b", base, "-F", "qcow2", moved.disk)
    if "bitmap" in options:
        moved.run_tool(NEWEST, "bitmap", "--add", "--disable", moved.disk, "changes")
    if "snapshot" in options:
        moved.run_tool(NEWEST, "snapshot", "-c", "disk alone", moved.disk)
    return plain


@pytest.mark.full
@pytest.mark.parametrize("options", IMAGES.values(), ids=list(IMAGES))
def test_every_kind_of_image_that_qemu_makes(
    options: tuple[str, ...], guest: Callable[[str], Guest], destination: Callable[[str, str], Path]
) -> None:
    """Rewritten after a failed resume, which shares the state's clusters; the disk as it was."""
    moved = guest("virt-10.0")
    plain = _make(moved, *options)
    moved.save("trixie", "stays", "goes")
    if "bitmap" not in options:  # no QEMU goes back to a snapshot while there is one
        moved.refused("bookworm-backports", "goes")
    # Debian's 5.2 was built without zstd
    tools = (NEWEST,) if options == IMAGES["zstd"] else (OLDEST, NEWEST)
    ferried(f"{moved.disk}#goes", destination("bookworm-backports", "virt-10.0"), "--in-place")
    moved.checked(*tools)
    moved.run_tool(NEWEST, "compare", "-f", "qcow2", "-F", "raw", moved.disk, plain)
    if "bitmap" in options:
        assert '"name": "changes"' in moved.run_tool(NEWEST, "info", "--output=json", moved.disk)
        moved.run_tool(NEWEST, "bitmap", "--remove", moved.disk, "changes")
    moved.runs_on("bookworm-backports", "goes")
    moved.checked(*tools)
    moved.runs_on("trixie", "stays")


@pytest.mark.full
@pytest.mark.parametrize("kind", ["clusters of 512 bytes", "refcounts of 8 bits", "extended L2"])
def test_killed_at_any_call_qemus_own_check_finds_nothing_broken(
    kind: str, guest: Callable[[str], Guest], destination: Callable[[str, str], Path]
) -> None:
    """What is left has no cluster in use that is counted as free; undone or finished, no error."""
    moved = guest("virt-10.0")
    moved.create(NEWEST, "-o", ",".join(IMAGES[kind]))
    moved.save("trixie", "stays", "goes")
    moved.refused("bookworm-backports", "goes")
    to = destination("bookworm-backports", moved.machine)
    rewrite = ["ferry", f"{moved.disk}#goes", "--in-place", "--to", str(to)]
    old = moved.disk.read_bytes()
    calls = calls_of(lambda: main(rewrite))
    new = moved.disk.read_bytes()
    moved.checked()
    settled = set()
    for call in range(calls):
        moved.disk.write_bytes(old)
        crash_at(call, lambda: main(rewrite))
        left, journal = moved.disk.read_bytes(), journal_path(moved.disk)
        if left not in (old, new):
            moved.nothing_broken()
        if not journal.exists():
            assert left in (old, new)
            continue
        kept = journal.read_bytes()
        for way, result in (("--undo", old), ("--finish", new)):
            moved.disk.write_bytes(left)
            journal.write_bytes(kept)
            journal.chmod(0o600)
            # a journal that was not whole yet was never acted upon
            assert main(["ferry", str(moved.disk), way]) == 0
            assert moved.disk.read_bytes() in (result, old)
            settled.add((way, moved.disk.read_bytes() == result))
            journal.unlink(missing_ok=True)
    assert old != new
    assert {("--undo", True), ("--finish", True)} <= settled
    moved.disk.write_bytes(old)
    moved.checked()


@pytest.mark.parametrize("source", ["bookworm-backports", "trixie"])
def test_the_state_in_the_image_of_the_uefi_variables(
    source: str,
    guest: Callable[[str], Guest],
    destination: Callable[[str, str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As UTM has it: QEMU keeps the state in its first image, the disk has a snapshot without."""
    there = {"bookworm-backports": "trixie", "trixie": "bookworm-backports"}[source]
    moved = guest("virt-10.0")
    moved.create(OLDEST)
    moved.create_variables(OLDEST)
    moved.save(source, "goes")
    moved.refused(there, "goes")
    to = destination(there, moved.machine)
    disk = moved.disk.read_bytes()
    assert main(["ferry", f"{moved.disk}#goes", "--in-place", "--to", str(to)]) == 3
    assert "the snapshot 'goes' holds a disk and no saved state" in capsys.readouterr().err
    ferried(f"{moved.variables}#goes", to, "--in-place")
    assert moved.disk.read_bytes() == disk
    moved.checked()
    moved.runs_on(there, "goes")
    moved.checked()


def _locked_bytes(image: Path) -> set[int]:
    """The bytes of a file on which locks are held that belong to open files."""
    found: set[int] = set()
    number = f":{image.stat().st_ino} "
    for line in Path("/proc/locks").read_text().splitlines():
        if " OFDLCK " in line and number in line:
            first, last = line.split()[-2:]
            found |= set(range(int(first), int(last) + 1))
    return found


def test_neither_has_the_image_while_the_other_does(
    guest: Callable[[str], Guest],
    destination: Callable[[str, str], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """QEMU's own locks, both ways, with the oldest and the newest release."""
    moved = guest("virt-5.2")
    moved.create(OLDEST)
    moved.save(OLDEST, "goes")
    to = str(destination(NEWEST, moved.machine))
    state, before = f"{moved.disk}#goes", moved.disk.read_bytes()
    for suite in (OLDEST, NEWEST):
        with moved.start(suite, "-S"):
            assert (
                {100, 101, 201, 203}
                <= _locked_bytes(moved.disk)
                <= {*range(100, 105), *range(200, 205)}
            )
            for words in (
                ["inspect", state],
                ["check", state, "--to", to],
                ["ferry", state, "--in-place", "--to", to],
                ["ferry", state, str(moved.folder / "out"), "--to", to],
            ):
                assert main(words) == 3
                assert f"{moved.disk}: in use by a QEMU; shut the guest down" in (
                    capsys.readouterr().err
                )
        assert moved.disk.read_bytes() == before
    with FileInPlace(moved.disk) as file:
        opened_image(file, change=True)
        for suite in (OLDEST, NEWEST):
            with pytest.raises(QemuProcessError) as fault, moved.start(suite, "-S"):
                pass
            assert "Is another process using the image" in fault.value.stderr
            with pytest.raises(AssertionError, match="lock"):
                moved.run_tool(suite, "check", moved.disk)
    moved.checked()
