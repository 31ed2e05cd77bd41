"""A file written beside its target: holes, owner and mode kept, the target replaced in one step."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armferry.hosts.files.journal import InterruptedRewrite, Journal, write_journal
from armferry.hosts.files.locked import FileWindow
from armferry.rewriting.copy import copy_with_tail, send_with_tail, written_beside
from armferry.rewriting.errors import FerryError, WriteFault
from armferry.stream import NewTail

MIB = 1 << 20


def _copy(source: Path, target: Path, tail: NewTail | None = None) -> None:
    with FileWindow(source) as window:
        copy_with_tail(window, target, window.size, tail)


def _failing(error: int) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise OSError(error, os.strerror(error))

    return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Data, a hole, data, a hole at the end: 40 MiB that take three."""
    path = tmp_path / "source"
    with path.open("wb") as file:
        file.write(os.urandom(MIB))
        file.seek(20 * MIB)
        file.write(os.urandom(2 * MIB))
        file.truncate(40 * MIB)
    return path


@pytest.fixture(params=["copy_file_range", "another file system"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the bytes get there."""
    if request.param != "copy_file_range":
        monkeypatch.setattr(os, "copy_file_range", _failing(errno.EXDEV))


@pytest.mark.usefixtures("way")
def test_holes_stay_holes(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    _copy(source, target, NewTail(39 * MIB, b"the new end"))
    assert target.stat().st_size == 39 * MIB + 11
    assert target.stat().st_blocks * 512 <= source.stat().st_blocks * 512 + 4096
    assert target.read_bytes() == source.read_bytes()[: 39 * MIB] + b"the new end"


@pytest.mark.usefixtures("way")
def test_without_a_new_end_the_copy_is_the_file(source: Path, tmp_path: Path) -> None:
    _copy(source, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


def test_file_system_without_holes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.lseek

    def lseek(descriptor: int, position: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor, position, whence)

    monkeypatch.setattr(os, "lseek", lseek)
    _copy(source, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8)), max_size=6),
    end=st.integers(0, 80),
)
def test_any_layout_of_holes(
    pieces: list[tuple[int, int]], end: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("layout")
    with (folder / "source").open("wb") as file:
        for at, length in pieces:
            file.seek(at * 3000)
            file.write(os.urandom(length * 2500))
    content = (folder / "source").read_bytes()
    offset = min(end * 3000, len(content))
    _copy(folder / "source", folder / "target", NewTail(offset, b"end"))
    assert (folder / "target").read_bytes() == content[:offset] + b"end"


def test_owner_and_mode_are_kept(source: Path, tmp_path: Path) -> None:
    owner = 1234 if os.geteuid() == 0 else os.geteuid()
    group = 4321 if os.geteuid() == 0 else os.getegid()
    os.chown(source, owner, group)
    source.chmod(0o640)
    _copy(source, tmp_path / "target")
    about = (tmp_path / "target").stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o7777) == (owner, group, 0o640)


@pytest.mark.parametrize("member", [True, False])
def test_group_is_kept_by_a_caller_who_may_not_give_files_away(
    member: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root everything may be given away, so the refusal is made here."""
    given = []

    def fchown(_: int, owner: int, group: int) -> None:
        if owner != -1 or not member:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        given.append((owner, group))

    monkeypatch.setattr(os, "fchown", fchown)
    _copy(source, tmp_path / "target")
    assert given == ([(-1, source.stat().st_gid)] if member else [])
    assert (tmp_path / "target").stat().st_mode == source.stat().st_mode


def test_longest_name_of_wide_letters(source: Path, tmp_path: Path) -> None:
    target = tmp_path / ("\U0001f409" * 63)
    _copy(source, target)
    assert target.stat().st_size == source.stat().st_size


def test_new_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    with written_beside(tmp_path / "target") as descriptor:
        os.write(descriptor, b"content")
    assert (tmp_path / "target").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_target_is_replaced_in_one_step(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with target.open("rb") as reader, written_beside(target) as descriptor:
        os.write(descriptor, b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    with target.open("rb") as reader:
        _copy(source, target)
        assert reader.read() == b"new"
    assert sorted(tmp_path.iterdir()) == [source, target]


def test_source_may_be_the_target(source: Path) -> None:
    content = source.read_bytes()
    _copy(source, source, NewTail(MIB, b"end"))
    assert source.read_bytes() == content[:MIB] + b"end"


def test_link_stays_and_what_it_leads_to_is_replaced(source: Path, tmp_path: Path) -> None:
    store, first, second = tmp_path / "store", tmp_path / "first", tmp_path / "second"
    store.mkdir()
    first.symlink_to("second")
    second.symlink_to("store/target")
    for content in (b"end", b"another end"):  # the file is not there yet, then it is
        _copy(source, first, NewTail(0, content))
        assert (first.readlink(), second.readlink()) == (Path("second"), Path("store/target"))
        assert (store / "target").read_bytes() == content
    assert sorted(tmp_path.iterdir()) == [first, second, source, store]
    assert list(store.iterdir()) == [store / "target"]


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "{}/link"])
def test_name_of_a_descriptor_is_no_name(name: str, source: Path, tmp_path: Path) -> None:
    """Replacing /dev/stdout would leave a file in /dev and nothing on standard output."""
    with (tmp_path / "out").open("wb") as out:
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{out.fileno()}")
        target = Path(name.format(tmp_path if "link" in name else out.fileno()))
        before = sorted(tmp_path.iterdir())
        with pytest.raises(FerryError) as told:
            _copy(source, target)
    assert str(told.value) == f"{target}: not the name of a file; give one, or -"
    assert told.value.exit_code == 3
    assert target.is_symlink() or not target.exists()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("call", ["copy_file_range", "ftruncate", "write", "fsync", "replace"])
def test_failure_leaves_nothing(
    call: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _failing(errno.ENOSPC))
        with pytest.raises(WriteFault) as told:
            _copy(source, target, NewTail(MIB, b"end"))
    assert str(told.value) == f"{target}: cannot be written: No space left on device"
    assert told.value.exit_code == 4
    assert target.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == [source, target]


def test_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with written_beside(tmp_path / "target") as descriptor:
            os.write(descriptor, b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_source_that_shrinks_is_noticed(source: Path, tmp_path: Path) -> None:
    with FileWindow(source) as window:
        os.truncate(source, MIB // 2)
        with pytest.raises(WriteFault) as told:
            copy_with_tail(window, tmp_path / "target", window.size, None)
        reason = "the source became shorter while it was read"
        assert str(told.value) == f"{tmp_path}/target: cannot be written: {reason}"
        with (tmp_path / "out").open("wb") as out, pytest.raises(WriteFault) as told:
            send_with_tail(window, out.fileno(), window.size, NewTail(39 * MIB, b"end"))
        assert str(told.value) == f"the output cannot be written: {reason}"
        # nobody takes half of it for the whole
        assert (tmp_path / "out").stat().st_size == 0
        (tmp_path / "out").unlink()
    assert sorted(tmp_path.iterdir()) == [source]


def test_target_that_cannot_be(source: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "round").symlink_to("again")
    (tmp_path / "again").symlink_to("round")
    before = sorted(tmp_path.iterdir())
    for name, words in {
        "folder": "not a regular file; give the name of a file, or -",
        "pipe": "not a regular file; give the name of a file, or -",
        "missing/target": "cannot be written: No such file or directory",
        "source/target": "cannot be written: Not a directory",
        "round": "cannot be written: Too many levels of symbolic links",
        "n" * 300: "cannot be written: File name too long",
    }.items():
        with pytest.raises(FerryError) as told:
            _copy(source, tmp_path / name)
        assert str(told.value) == f"{tmp_path / name}: {words}"
        assert told.value.exit_code == 3
    assert sorted(tmp_path.iterdir()) == before


def test_half_rewritten_target_is_not_replaced(source: Path, tmp_path: Path) -> None:
    """Its journal would later be applied to another file."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    write_journal(target, Journal.of_end(0, b"old", b"new"))
    with pytest.raises(InterruptedRewrite):
        _copy(source, target)
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("tail", [None, NewTail(MIB + 5, b"end")])
def test_sent_through_a_pipe(tail: NewTail | None, source: Path, tmp_path: Path) -> None:
    content = source.read_bytes()
    with FileWindow(source) as window, (tmp_path / "out").open("wb") as out:
        send_with_tail(window, out.fileno(), window.size, tail)
    expected = content if tail is None else content[: tail.offset] + tail.data
    assert (tmp_path / "out").read_bytes() == expected


def test_reader_that_has_gone_is_told(source: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with FileWindow(source) as window, pytest.raises(WriteFault) as told:
        send_with_tail(window, writing, window.size, None)
    os.close(writing)
    assert str(told.value) == "the output cannot be written: Broken pipe"


def test_progress_ends_at_the_whole(source: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    with FileWindow(source) as window:
        copy_with_tail(
            window,
            tmp_path / "target",
            window.size,
            None,
            lambda done, whole: steps.append((done, whole)),
        )
    assert steps == sorted(steps)
    assert steps[-1] == (40 * MIB, 40 * MIB)
