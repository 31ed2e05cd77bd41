"""An image in a file: changed under a journal, stopped at every call, locked, on a volume."""

import errno
import os
import random
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import pytest

from armferry.ferry.snapshot import rewrite_snapshot
from armferry.hosts.files.descriptor import UnreadableFile
from armferry.hosts.files.in_place import (
    FileInPlace,
    ForeignJournal,
    StoppedRewrite,
    UndoneRewrite,
    finish,
    undo,
)
from armferry.hosts.files.journal import InterruptedRewrite, JournalFault, read_journal
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.files.qcow2.image import Image
from armferry.hosts.files.qcow2.locks import ImageInUse, lock_image
from armferry.hosts.files.qcow2.state import SnapshotState
from armferry.hosts.files.saved_file import opened_image
from armferry.stream import NewTail

from .conftest import Bytes, Kind, count, make

STATE = random.Random(5).randbytes(5_120)
TAIL = NewTail(len(STATE) - 700, b"the new end of the state" * 100)
NEW = STATE[: TAIL.offset] + TAIL.data
SECTOR = 512
CALLS = ("open", "pwrite", "ftruncate", "fsync", "unlink")
KINDS = {
    "512 bytes, resumed": Kind(cluster_bits=9, resumed=True),
    "4-bit refcounts, resumed": Kind(cluster_bits=10, refcount_order=2, resumed=True),
    "full refcount table": Kind(cluster_bits=9, refcount_order=6, full=True),
    "compressed": Kind(cluster_bits=12, compressed=True),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


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


def _image(kind: Kind) -> bytes:
    return make(kind, {"mine": STATE, "other": STATE[::-1]})


def _rewrite(path: Path) -> None:
    with FileInPlace(path) as file:
        image = opened_image(file, change=True)
        assert image is not None
        rewrite_snapshot(file, image, image.find("mine"), TAIL)


def _state(content: bytes, name: str) -> bytes:
    image = Image(Bytes(content))
    state = SnapshotState(image, image.find(name))
    return state.read(0, state.size)


def _calls_of(path: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch, (), Crash())
        _rewrite(path)
    return calls.count


def _crash_at(call: int, path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Calls(patch, (call,), Crash())
        with pytest.raises(Crash):
            _rewrite(path)


@EVERY_KIND
@pytest.mark.parametrize("way", [undo, finish])
def test_killed_at_every_call(kind: Kind, way: Callable[[Path], bool], tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    old = _image(kind)
    path.write_bytes(old)
    total = _calls_of(path)
    new = path.read_bytes()
    assert _state(new, "mine") == NEW
    seen = set()
    for call in range(total):
        path.write_bytes(old)
        _crash_at(call, path)
        # without any help: the old state or the new one, the other snapshot, no lost cluster
        left = path.read_bytes()
        assert _state(left, "mine") in (STATE, NEW)
        assert _state(left, "other") == STATE[::-1]
        assert count(left).broken == set()
        if read_journal(path) is None:
            assert not way(path)
            seen.add("none")
        else:
            with pytest.raises(InterruptedRewrite):
                FileWindow(path)
            assert way(path)
            assert path.read_bytes() == (old if way is undo else new)
            seen.add("journal")
        assert path.read_bytes() in (old, new)
        assert sorted(tmp_path.iterdir()) == [path]
    assert seen == {"none", "journal"}


@pytest.mark.parametrize("lasts", [False, True])
def test_full_disk_at_every_call(lasts: bool, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    old = _image(KINDS["512 bytes, resumed"])
    path.write_bytes(old)
    total = _calls_of(path)
    new = path.read_bytes()
    undone = 0
    for call in range(total):
        path.write_bytes(old)
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with pytest.MonkeyPatch.context() as patch:
            Calls(patch, range(call, call + (10_000 if lasts else 1)), full)
            with pytest.raises(
                (UnreadableFile, JournalFault, StoppedRewrite, UndoneRewrite)
            ) as fault:
                _rewrite(path)
        undone += fault.type is UndoneRewrite
        assert (fault.type is not UndoneRewrite) or path.read_bytes() == old
        assert _state(path.read_bytes(), "mine") in (STATE, NEW)
        undo(path)
        assert path.read_bytes() in (old, new)
        assert sorted(tmp_path.iterdir()) == [path]
    assert bool(undone) is not lasts


@pytest.mark.parametrize("way", [undo, finish])
def test_an_image_that_changed_meanwhile_is_left_alone(
    way: Callable[[Path], bool], tmp_path: Path
) -> None:
    """A guest ran after the kill: what it wrote is in clusters that were taken or given up."""
    path = tmp_path / "disk.qcow2"
    old = _image(Kind(cluster_bits=9))
    path.write_bytes(old)
    given_up = old.index(STATE[TAIL.offset // 512 * 512 :][:512])
    interrupted = 0
    for call in range(_calls_of(path)):
        for change in ("taken", "given up", "longer"):
            path.write_bytes(old)
            _crash_at(call, path)
            if read_journal(path) is None:
                undo(path)
                continue
            interrupted += 1
            content = bytearray(path.read_bytes())
            if change == "taken":
                content[len(old) : len(old) + 100] = b"y" * 100
            elif change == "given up":
                content[given_up : given_up + 100] = b"x" * 100
            else:
                content += bytes(1 << 20)
            path.write_bytes(content)
            with pytest.raises(ForeignJournal):
                way(path)
            assert path.read_bytes() == content
            (tmp_path / "disk.qcow2.armferry-journal").unlink()
    assert interrupted > 10


def test_two_at_once_keep_apart(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(_image(Kind(cluster_bits=12)))
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
