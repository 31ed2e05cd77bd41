"""The journal of a rewrite in place: which is believed, of which file, and who is told what."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.hosts.files.in_place import (
    FileInPlace,
    ForeignJournal,
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
from armferry.rewriting.copy import copy_with_tail
from armferry.stream import NewTail

from ..in_memory import Content

HEAD = bytes(range(256)) * 64
SHORT, LONG = b"a short end" * 100, b"the longer end of the two" * 200


def _rewrite(path: Path, end: bytes) -> None:
    with FileInPlace(path) as file:
        file.rewrite(NewTail(len(HEAD), end), file.size)


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


@pytest.mark.parametrize(
    "body",
    [
        b"[]\n",
        b'{"sizes": [3, 4]}\n',
        b'{"sizes": [3, 4], "steps": [[[0, 3]]]}\nold',
        b'{"sizes": [3, -4], "steps": []}\n',
        b'{"sizes": [3, 4], "steps": [[[0, 3, 9]]]}\nold',
        b'{"sizes": [3, 4], "steps": [[[9223372036854775808, 0, 1]]]}\nx',
        b"\xff\n",
    ],
)
def test_journal_that_its_owner_made_up_is_refused_by_name(body: bytes, tmp_path: Path) -> None:
    """Whole and with the right checksum, of the file it lies beside."""
    path = tmp_path / "state"
    path.write_bytes(HEAD + SHORT)
    head = {
        "version": 3,
        "inode": path.stat().st_ino,
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    journal_path(path).write_bytes(json.dumps(head).encode() + b"\n" + body)
    journal_path(path).chmod(0o600)
    for work in (FileWindow, undo, finish):
        with pytest.raises(ForeignJournal) as told:
            work(path)
        assert str(told.value) == (
            f"{path}.armferry-journal: no journal that armferry wrote, though it looks like one; "
            f"if {path} is in order as it is, remove it"
        )
    assert path.read_bytes() == HEAD + SHORT


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


@pytest.mark.parametrize("refused", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_to(
    refused: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    path.write_bytes(LONG)

    def no_file(*_: object) -> int:
        raise OSError(refused, os.strerror(refused))

    monkeypatch.setattr(os, "open", no_file)
    with pytest.raises(JournalFault) as told:
        write_journal(path, Journal.of_end(len(HEAD), SHORT, LONG))
    monkeypatch.undo()
    assert str(told.value) == (
        f"{path}.armferry-journal: the journal cannot be written: {os.strerror(refused)}; "
        f"{path} is unchanged, give OUT instead of --in-place"
    )


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
