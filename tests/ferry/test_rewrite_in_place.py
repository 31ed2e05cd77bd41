"""A rewrite in place, stopped everywhere it can be: the old file, the new one, or a way back."""

import errno
import multiprocessing
import os
import random
import stat
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.ferry.copy import copy_with_tail
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
    Journal,
    JournalFault,
    journal_path,
    read_journal,
    write_journal,
)
from armferry.hosts.files.locked import FileWindow
from armferry.stream import NewTail

HEAD = bytes(range(256)) * 64
SHORT, LONG = b"a short end" * 100, b"the longer end of the two" * 200
STEPS = ("open", "pwrite", "ftruncate", "fsync", "unlink")


class Crash(BaseException):
    """The program stops here; nothing of it runs on."""


def _rewrite(path: Path, end: bytes) -> None:
    with FileInPlace(path) as file:
        file.rewrite(NewTail(len(HEAD), end), file.size)


class Steps:
    """Counts the calls that change the disk, and lets those in `at` go wrong."""

    def __init__(
        self, patch: pytest.MonkeyPatch, at: Container[int], failure: BaseException
    ) -> None:
        self.count = 0
        self._at = at
        self._failure = failure
        for name in STEPS:
            patch.setattr(os, name, self._wrapped(getattr(os, name), name))

    def _wrapped(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            number, self.count = self.count, self.count + 1
            if number in self._at:
                if name == "pwrite":  # half of it has reached the disk
                    descriptor, data, offset = arguments
                    real(descriptor, data[: len(data) // 2], offset)
                raise self._failure
            return real(*arguments, **options)

        return call


def _steps_of(work: Callable[[], object]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        steps = Steps(patch, (), Crash())
        work()
    return steps.count


def _crash_at(step: int, work: Callable[[], object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Steps(patch, (step,), Crash())
        with pytest.raises(Crash):
            work()


@pytest.fixture(params=["grows", "shrinks"])
def ends(request: pytest.FixtureRequest) -> tuple[bytes, bytes]:
    """The end of the file before and after."""
    return (SHORT, LONG) if request.param == "grows" else (LONG, SHORT)


@pytest.mark.parametrize("way", [undo, finish])
def test_crash_at_every_step(
    way: Callable[[Path], bool], ends: tuple[bytes, bytes], tmp_path: Path
) -> None:
    old, new = ends
    path = tmp_path / "state"
    path.write_bytes(HEAD + old)
    total = _steps_of(lambda: _rewrite(path, new))
    assert path.read_bytes() == HEAD + new
    assert total > 8
    seen = set()
    for step in range(total):
        path.write_bytes(HEAD + old)
        _crash_at(step, lambda: _rewrite(path, new))
        if read_journal(path) is None:
            # never begun, or over: the file is whole and can be read
            whole = path.read_bytes()
            assert whole in (HEAD + old, HEAD + new)
            with FileWindow(path) as window:
                assert window.read(0, window.size) == whole
            assert not way(path)
            seen.add("old" if whole == HEAD + old else "new")
        else:
            with pytest.raises(InterruptedRewrite):
                FileWindow(path)
            assert way(path)
            assert path.read_bytes() == HEAD + (old if way is undo else new)
            seen.add("journal")
        assert sorted(tmp_path.iterdir()) == [path]
    assert seen == {"old", "journal", "new"}


@pytest.mark.parametrize("way", [undo, finish])
def test_crash_while_settling(
    way: Callable[[Path], bool], ends: tuple[bytes, bytes], tmp_path: Path
) -> None:
    """Undoing and finishing can be interrupted as well, and done again."""
    old, new = ends
    path = tmp_path / "state"

    def interrupted() -> None:
        path.write_bytes(HEAD + new[: len(new) // 2] + old[len(new) // 2 :])
        write_journal(path, Journal.of_end(len(HEAD), old, new))

    interrupted()
    total = _steps_of(lambda: way(path))
    for step in range(total):
        interrupted()
        _crash_at(step, lambda: way(path))
        way(path)
        assert path.read_bytes() == HEAD + (old if way is undo else new)
        assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("lasts", [False, True])
def test_refusals_of_the_operating_system(
    lasts: bool, ends: tuple[bytes, bytes], tmp_path: Path
) -> None:
    """One call that goes wrong is undone; where every later one does too, a journal is left."""
    old, new = ends
    path = tmp_path / "state"
    path.write_bytes(HEAD + old)
    total = _steps_of(lambda: _rewrite(path, new))
    messages = set()
    for step in range(total):
        path.write_bytes(HEAD + old)
        failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with pytest.MonkeyPatch.context() as patch:
            Steps(patch, range(step, step + (1000 if lasts else 1)), failure)
            try:
                _rewrite(path, new)
            except (UnreadableFile, JournalFault, StoppedRewrite, UndoneRewrite) as told:
                messages.add((told.exit_code, str(told).replace(str(tmp_path), "FOLDER")))
            else:
                pytest.fail(f"step {step} went wrong and nobody said so")
        if read_journal(path) is not None:
            assert undo(path)
        assert path.read_bytes() in (HEAD + old, HEAD + new)
        undo(path)  # a journal that was never finished, or of a rewrite that is over
        assert sorted(tmp_path.iterdir()) == [path]
    full = "No space left on device"
    journal = "FOLDER/state.armferry-journal"
    undoing = "armferry ferry FOLDER/state --undo puts the file back as it was"
    stopped = f"FOLDER/state: the rewrite in place stopped: {full}"
    kept = f"the journal {journal} is kept: {undoing}"
    assert messages == {
        (3, f"FOLDER/state: cannot be changed: {full}"),
        (4, f"{journal}: the journal cannot be written: {full}; FOLDER/state is unchanged"),
        (4, f"{stopped}; {kept}" if lasts else f"{stopped}; the file is as it was"),
        (4, f"{journal}: the journal cannot be removed: {full}; remove it, FOLDER/state is whole"),
    }


def _toggle(path: Path) -> None:
    while True:
        with FileInPlace(path) as file:
            new = SHORT * 50 if file.size > len(HEAD) + len(SHORT) * 50 else LONG * 50
            file.rewrite(NewTail(len(HEAD), new), file.size)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "state"
    whole = (HEAD + SHORT * 50, HEAD + LONG * 50)
    path.write_bytes(whole[0])
    chance = random.Random(19)
    interruptions = 0
    for _ in range(40):
        child = multiprocessing.get_context("fork").Process(target=_toggle, args=(path,))
        child.start()
        time.sleep(0.005 + chance.random() * 0.04)
        child.kill()
        child.join()
        way = chance.choice((undo, finish))
        interruptions += way(path)
        assert path.read_bytes() in whole
        assert sorted(tmp_path.iterdir()) == [path]
    assert interruptions > 3


def _attempt(path: Path, end: bytes, results: "multiprocessing.Queue[str]") -> None:
    try:
        for _ in range(25):
            _rewrite(path, end)
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
        context.Process(target=_attempt, args=(path, end, results)) for end in (SHORT, LONG) * 2
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


def test_interrupted_file_is_refused_by_name_through_any_link(tmp_path: Path) -> None:
    path, link = tmp_path / "state", tmp_path / "link"
    path.write_bytes(HEAD + SHORT)
    link.symlink_to(path)
    write_journal(link, Journal.of_end(len(HEAD), SHORT, LONG))
    assert journal_path(link) == tmp_path / "state.armferry-journal"
    for name in (path, link):
        for kind in (FileWindow, FileInPlace):
            with pytest.raises(InterruptedRewrite) as told:
                kind(name)
            assert str(told.value) == (
                f"{name}: an earlier rewrite in place was interrupted; armferry ferry {name} "
                "--undo puts the file back as it was, --finish completes it"
            )
    assert undo(link)
    assert path.read_bytes() == HEAD + SHORT


def test_command_to_type_next_is_one_that_can_be_typed(tmp_path: Path) -> None:
    path = tmp_path / "a state"
    path.write_bytes(HEAD + SHORT)
    write_journal(path, Journal.of_end(len(HEAD), SHORT, LONG))
    with pytest.raises(InterruptedRewrite) as told:
        FileWindow(path)
    assert f"; armferry ferry '{path}' --undo puts" in str(told.value)


@pytest.mark.parametrize("way", [undo, finish])
def test_journal_is_not_applied_to_another_file(
    way: Callable[[Path], bool], tmp_path: Path
) -> None:
    path = tmp_path / "state"
    path.write_bytes(HEAD + SHORT)
    write_journal(path, Journal.of_end(len(HEAD), SHORT, LONG))
    another = b"another guest saved under the same name" * 1000
    path.write_bytes(another)
    with pytest.raises(ForeignJournal) as told:
        way(path)
    assert str(told.value) == (
        f"{path}: this is not the file that the journal {path}.armferry-journal is about, or it "
        "was changed since; if it is in order as it is, remove the journal"
    )
    assert path.read_bytes() == another
    assert journal_path(path).exists()


class Content(bytes):
    """A file in memory: a `Window`."""

    @property
    def size(self) -> int:
        return len(self)

    def read(self, offset: int, length: int) -> bytes:
        return self[offset : offset + length]


@given(old=st.binary(max_size=12), new=st.binary(max_size=12), data=st.data())
def test_fits_whatever_a_stopped_rewrite_leaves(
    old: bytes, new: bytes, data: st.DataObject
) -> None:
    journal = Journal.of_end(0, old, new)
    written = data.draw(st.integers(0, len(new)))
    half = new[:written] + old[written:]
    assert journal.fits(Content(half))
    assert journal.fits(Content(old))
    assert journal.fits(Content(new))
    # going back from a longer end: the old one is there, the file not yet cut
    assert journal.fits(Content(old + new[len(old) :]))


@given(end=st.binary(max_size=12), old=st.binary(max_size=6), new=st.binary(max_size=6))
def test_fits_nothing_else(end: bytes, old: bytes, new: bytes) -> None:
    strange = any(
        byte not in ({*old[at : at + 1], *new[at : at + 1]} | ({0} if at >= len(old) else set()))
        for at, byte in enumerate(end)
    )
    length_fits = min(len(old), len(new)) <= len(end) <= max(len(old), len(new))
    assert Journal.of_end(0, old, new).fits(Content(end)) == (length_fits and not strange)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:20],
        lambda content: content.replace(b'"sha256": "', b'"sha256": "0'),
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"[" * 5000,
        lambda content: b"[]\n",
        lambda content: b'{"version": 1e999, "sha256": ""}\n',
    ],
)
def test_journal_that_is_not_whole_is_none(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "state"
    path.write_bytes(HEAD + SHORT)
    write_journal(path, Journal.of_end(len(HEAD), SHORT, LONG))
    journal_path(path).write_bytes(damage(journal_path(path).read_bytes()))
    assert read_journal(path) is None
    with FileWindow(path) as window:
        assert window.size == len(HEAD + SHORT)
    _rewrite(path, LONG)
    assert path.read_bytes() == HEAD + LONG
    assert sorted(tmp_path.iterdir()) == [path]


def test_journal_of_another_version_is_left_to_it(tmp_path: Path) -> None:
    """It may have been acted upon: the file is not taken for whole."""
    path = tmp_path / "state"
    path.write_bytes(HEAD + SHORT)
    journal_path(path).write_bytes(
        b'{"version": 1, "offset": 0, "old": 0, "new": 0, "sha256": ""}\n'
    )
    with pytest.raises(JournalFault) as told:
        FileWindow(path)
    assert str(told.value) == (
        f"{path}.armferry-journal: a journal of another armferry, version 1: settle it with that "
        "one"
    )


def test_journal_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(HEAD + SHORT)
    write_journal(path, Journal.of_end(len(HEAD), SHORT, LONG))
    assert journal_path(path).stat().st_mode & 0o777 == 0o600
    # one that is there already is never written over, nor removed
    with pytest.raises(JournalFault) as told:
        write_journal(path, Journal.of_end(0, b"", b""))
    assert str(told.value) == (
        f"{path}.armferry-journal: the journal cannot be written: File exists; {path} is unchanged"
    )
    assert read_journal(path) == Journal.of_end(len(HEAD), SHORT, LONG)


def test_file_system_that_cannot_sync_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    refused = []

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            refused.append(descriptor)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "state"
    path.write_bytes(HEAD + SHORT)
    _rewrite(path, LONG)
    with FileWindow(path) as window:
        copy_with_tail(window, tmp_path / "copy", window.size, NewTail(len(HEAD), SHORT))
    assert path.read_bytes() == HEAD + LONG
    assert (tmp_path / "copy").read_bytes() == HEAD + SHORT
    assert sorted(tmp_path.iterdir()) == [tmp_path / "copy", path]
    assert len(refused) == 3


def test_name_too_long_for_a_journal(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250)
    path.write_bytes(HEAD + SHORT)
    with FileWindow(path) as window:
        assert window.size == len(HEAD + SHORT)
    with pytest.raises(JournalFault) as told:
        _rewrite(path, LONG)
    assert str(told.value).endswith(f"File name too long; {path} is unchanged")
    assert path.read_bytes() == HEAD + SHORT
