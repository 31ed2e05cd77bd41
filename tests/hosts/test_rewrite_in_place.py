"""A rewrite in place, stopped everywhere it can be: the old file, the new one, or a way back.

The same for a plain file and for the state inside a qcow2 image, which is whole at every moment
even without its journal.
"""

import errno
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from armferry.hosts.files.descriptor import UnreadableFile
from armferry.hosts.files.in_place import (
    FileInPlace,
    ForeignJournal,
    StoppedRewrite,
    UndoneRewrite,
    finish,
    undo,
)
from armferry.hosts.files.journal import (
    InterruptedRewrite,
    JournalFault,
    journal_path,
    read_journal,
)
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.files.qcow2.image import Image
from armferry.hosts.files.qcow2.locks import ImageInUse, lock_image
from armferry.hosts.files.qcow2.state import SnapshotState
from armferry.hosts.files.saved_file import opened_image
from armferry.rewriting.snapshot import rewrite_snapshot
from armferry.stream import NewTail

from .qcow2.conftest import Bytes, Kind, count, make

HEAD = bytes(range(256)) * 64
SHORT, LONG = b"a short end" * 100, b"the longer end of the two" * 200
STATE = random.Random(5).randbytes(5_120)
TAIL = NewTail(len(STATE) - 700, b"the new end of the state" * 100)
SECTOR = 512
CALLS = ("open", "pwrite", "ftruncate", "fsync", "unlink")

Way = Callable[[Path], bool]


class Crash(BaseException):
    """The program stops here; nothing of it runs on."""


class Calls:
    """Counts the calls that change the disk, and lets those in `at` go wrong half done."""

    def __init__(
        self, patch: pytest.MonkeyPatch, at: Container[int], failure: BaseException
    ) -> None:
        self.count = 0
        self._at = at
        self._failure = failure
        for name in CALLS:
            patch.setattr(os, name, self._wrapped(getattr(os, name), name))

    def _wrapped(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            number, self.count = self.count, self.count + 1
            if number in self._at:
                if name == "pwrite":
                    descriptor, data, offset = arguments
                    # what lies within a sector is written or not, anything else may be torn
                    if offset // SECTOR != (offset + len(data) - 1) // SECTOR:
                        real(descriptor, data[: len(data) // 2], offset)
                raise self._failure
            return real(*arguments, **options)

        return call


@dataclass(frozen=True)
class Plain:
    """A file with another end."""

    ends: tuple[bytes, bytes]

    def old(self) -> bytes:
        return HEAD + self.ends[0]

    def rewrite(self, path: Path) -> None:
        with FileInPlace(path) as file:
            file.rewrite(NewTail(len(HEAD), self.ends[1]), file.size)

    def check_half(self, content: bytes) -> None:
        """Nothing is promised of a file that has a journal but its head."""
        assert content.startswith(HEAD)


@dataclass(frozen=True)
class InImage:
    """A qcow2 image with two snapshots, the state of one of them changed."""

    kind: Kind

    def old(self) -> bytes:
        return make(self.kind, {"mine": STATE, "other": STATE[::-1]})

    def rewrite(self, path: Path) -> None:
        with FileInPlace(path) as file:
            image = opened_image(file, change=True)
            assert image is not None
            rewrite_snapshot(file, image, image.find("mine"), TAIL)

    def check_half(self, content: bytes) -> None:
        """Without any help: the old state or the new one, the other snapshot, nothing lost."""
        assert state(content, "mine") in (STATE, STATE[: TAIL.offset] + TAIL.data)
        assert state(content, "other") == STATE[::-1]
        assert count(content).broken == set()


def state(image: bytes, name: str) -> bytes:
    opened = Image(Bytes(image))
    found = SnapshotState(opened, opened.find(name))
    return found.read(0, found.size)


CASES: dict[str, Plain | InImage] = {
    "grows": Plain((SHORT, LONG)),
    "shrinks": Plain((LONG, SHORT)),
    "512 bytes, resumed": InImage(Kind(cluster_bits=9, resumed=True)),
    "4-bit refcounts, resumed": InImage(Kind(cluster_bits=10, refcount_order=2, resumed=True)),
    "full refcount table": InImage(Kind(cluster_bits=9, refcount_order=6, full=True)),
    "compressed": InImage(Kind(cluster_bits=12, compressed=True)),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
BOTH_WAYS = pytest.mark.parametrize("way", [undo, finish])


def calls_of(work: Callable[[], object]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch, (), Crash())
        work()
    return calls.count


def crash_at(call: int, work: Callable[[], object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Calls(patch, (call,), Crash())
        with pytest.raises(Crash):
            work()


@dataclass
class Subject:
    """A case in a file: what it was, what it becomes, and by how many calls."""

    case: Plain | InImage
    path: Path
    old: bytes
    new: bytes
    calls: int

    def crashes(self) -> Iterator[int]:
        """Stopped at every call, one after the other, each time from the old file on."""
        for call in range(self.calls):
            self.path.write_bytes(self.old)
            crash_at(call, lambda: self.case.rewrite(self.path))
            yield call

    def alone(self) -> bool:
        return sorted(self.path.parent.iterdir()) == [self.path]


def subject(case: Plain | InImage, folder: Path) -> Subject:
    path, old = folder / "file", case.old()
    path.write_bytes(old)
    calls = calls_of(lambda: case.rewrite(path))
    return Subject(case, path, old, path.read_bytes(), calls)


@EVERY_CASE
@BOTH_WAYS
def test_killed_at_every_call(case: Plain | InImage, way: Way, tmp_path: Path) -> None:
    one = subject(case, tmp_path)
    assert one.calls > 8
    seen = set()
    for _ in one.crashes():
        left = one.path.read_bytes()
        case.check_half(left)
        if read_journal(one.path) is None:
            # never begun, or over: the file is whole and can be read
            with FileWindow(one.path) as window:
                assert window.read(0, window.size) == left
            assert not way(one.path)
            assert one.path.read_bytes() in (one.old, one.new)
            seen.add("old" if left == one.old else "new")
        else:
            with pytest.raises(InterruptedRewrite):
                FileWindow(one.path)
            assert way(one.path)
            assert one.path.read_bytes() == (one.old if way is undo else one.new)
            seen.add("journal")
        assert one.alone()
    assert seen == {"old", "journal", "new"}


@EVERY_CASE
@BOTH_WAYS
def test_killed_while_settling(case: Plain | InImage, way: Way, tmp_path: Path) -> None:
    """Undoing and finishing can be interrupted as well, and done again."""
    one = subject(case, tmp_path)
    interrupted = []
    for _ in one.crashes():
        if read_journal(one.path) is not None:
            interrupted.append((one.path.read_bytes(), journal_path(one.path).read_bytes()))
        journal_path(one.path).unlink(missing_ok=True)
    half, journal = interrupted[len(interrupted) // 2]

    def again() -> None:
        one.path.write_bytes(half)
        journal_path(one.path).write_bytes(journal)
        journal_path(one.path).chmod(0o600)

    again()
    for call in range(calls_of(lambda: way(one.path))):
        again()
        crash_at(call, lambda: way(one.path))
        way(one.path)
        assert one.path.read_bytes() == (one.old if way is undo else one.new)
        assert one.alone()


@EVERY_CASE
@pytest.mark.parametrize("lasts", [False, True])
def test_full_disk_at_every_call(case: Plain | InImage, lasts: bool, tmp_path: Path) -> None:
    """One call that goes wrong is undone; where every later one does too, a journal is left."""
    one = subject(case, tmp_path)
    said = set()
    for call in range(one.calls):
        one.path.write_bytes(one.old)
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with pytest.MonkeyPatch.context() as patch:
            Calls(patch, range(call, call + (10_000 if lasts else 1)), full)
            with pytest.raises(
                (UnreadableFile, JournalFault, StoppedRewrite, UndoneRewrite)
            ) as fault:
                case.rewrite(one.path)
        words = str(fault.value).replace(str(tmp_path), "FOLDER")
        said.add((getattr(fault.value, "exit_code", 0), words))
        if fault.type is UndoneRewrite:
            assert one.path.read_bytes() == one.old
        case.check_half(one.path.read_bytes())
        undo(one.path)  # also a journal that was never finished, or of a rewrite that is over
        assert one.path.read_bytes() in (one.old, one.new)
        assert one.alone()
    reason, journal = "No space left on device", "FOLDER/file.armferry-journal"
    stopped = f"FOLDER/file: the rewrite in place stopped: {reason}"
    undoing = "armferry ferry FOLDER/file --undo puts the file back as it was"
    kept = f"{stopped}; the journal {journal} is kept: {undoing}"
    assert said == {
        (3, f"FOLDER/file: cannot be changed: {reason}"),
        (4, f"{journal}: the journal cannot be written: {reason}; FOLDER/file is unchanged"),
        (4, kept if lasts else f"{stopped}; the file is as it was"),
        (4, f"{journal}: the journal cannot be removed: {reason}; remove it, FOLDER/file is whole"),
    }


@pytest.mark.parametrize("case", [CASES["grows"], CASES["512 bytes, resumed"]], ids=type)
def test_killed_at_any_moment(case: Plain | InImage, tmp_path: Path) -> None:
    one = subject(case, tmp_path)
    chance = random.Random(19)
    for number in range(40):
        one.path.write_bytes(one.old)
        child = multiprocessing.get_context("fork").Process(target=case.rewrite, args=(one.path,))
        child.start()
        time.sleep(0.001 + number % 20 * 0.0005)
        child.kill()
        child.join()
        way = chance.choice((undo, finish))
        case.check_half(one.path.read_bytes())
        way(one.path)
        assert one.path.read_bytes() in (one.old, one.new)
        assert one.alone()


def test_an_interruption_by_a_real_kill_leaves_a_journal(tmp_path: Path) -> None:
    """Killed where the file is half written: in the first write to it."""
    one = subject(CASES["grows"], tmp_path)
    one.path.write_bytes(one.old)
    pid = os.fork()
    if not pid:
        os.pwrite = lambda *_: os.kill(os.getpid(), 9)  # type: ignore[assignment]
        one.case.rewrite(one.path)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    assert read_journal(one.path) is not None
    assert finish(one.path)
    assert one.path.read_bytes() == one.new


@BOTH_WAYS
def test_an_image_that_changed_meanwhile_is_left_alone(way: Way, tmp_path: Path) -> None:
    """A guest ran after the kill: what it wrote is in clusters that were taken or given up."""
    one = subject(InImage(Kind(cluster_bits=9)), tmp_path)
    given_up = one.old.index(STATE[TAIL.offset // 512 * 512 :][:512])
    interrupted = 0
    for _ in one.crashes():
        if read_journal(one.path) is None:
            undo(one.path)
            continue
        half, journal = one.path.read_bytes(), journal_path(one.path).read_bytes()
        for change in ("taken", "given up", "longer"):
            interrupted += 1
            content = bytearray(half)
            if change == "taken":
                content[len(one.old) : len(one.old) + 100] = b"y" * 100
            elif change == "given up":
                content[given_up : given_up + 100] = b"x" * 100
            else:
                content += bytes(1 << 20)
            one.path.write_bytes(content)
            journal_path(one.path).write_bytes(journal)
            with pytest.raises(ForeignJournal):
                way(one.path)
            assert one.path.read_bytes() == content
        journal_path(one.path).unlink()
    assert interrupted > 10


def _attempt(case: Plain, path: Path, results: "multiprocessing.Queue[str]") -> None:
    try:
        for _ in range(25):
            case.rewrite(path)
    except UnreadableFile as told:
        results.put(str(told))
    else:
        results.put("done")


def test_two_at_once_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(HEAD + SHORT)
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[str] = context.Queue()
    children = [
        context.Process(target=_attempt, args=(Plain((b"", end)), path, results))
        for end in (SHORT, LONG) * 2
    ]
    for child in children:
        child.start()
    said = {results.get(timeout=30) for _ in children}
    for child in children:
        child.join()
    assert said <= {
        "done",
        f"{path}: another program has locked it; try again when that has ended",
    }
    assert "done" in said
    assert path.read_bytes() in (HEAD + SHORT, HEAD + LONG)
    assert sorted(tmp_path.iterdir()) == [path]


def test_two_at_once_keep_apart_on_an_image(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(InImage(Kind(cluster_bits=12)).old())
    with FileInPlace(path) as file:
        opened_image(file, change=True)
        with pytest.raises(UnreadableFile):
            FileInPlace(path)
        with path.open("rb") as other, pytest.raises(ImageInUse) as fault:
            lock_image(other.fileno(), "disk.qcow2", change=False)
    assert str(fault.value) == (
        "disk.qcow2: in use by a QEMU; shut the guest down, or wait until the program that has "
        "the image open has ended"
    )
    with FileWindow(path) as one, FileWindow(path) as two:
        assert opened_image(one) is not None
        assert opened_image(two) is not None


def test_readers_and_a_rewrite_keep_apart(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(HEAD + SHORT)
    locked = f"{path}: another program has locked it; try again when that has ended"
    with FileWindow(path), FileWindow(path):
        for work in (lambda: FileInPlace(path), lambda: undo(path), lambda: finish(path)):
            with pytest.raises(UnreadableFile) as told:
                work()
            assert str(told.value) == locked
    with FileInPlace(path):
        with pytest.raises(UnreadableFile) as told:
            FileWindow(path)
        assert str(told.value) == locked
    with FileWindow(path) as window:
        assert window.size == len(HEAD + SHORT)
