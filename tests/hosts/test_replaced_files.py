"""A file replaced in one step: whole or as it was, nothing left beside it."""

import errno
import os
import stat
from pathlib import Path

import pytest

from armferry.hosts.files.atomic import replaced, write_whole


def test_it_becomes_the_new_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "one\n")
    write_whole(path, b"two\n", mode=0o755)
    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert os.listdir(tmp_path) == ["file"]


def test_a_block_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one\n")

    def interrupted() -> None:
        with replaced(path) as descriptor:
            os.write(descriptor, b"tw")
            assert path.read_text() == "one\n"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "one\n"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("what", ["fsync", "replace", "fchmod"])
def test_what_the_system_refuses_leaves_the_old_one(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("one\n")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, what, full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "two\n")
    assert path.read_text() == "one\n"
    assert os.listdir(tmp_path) == ["file"]


def test_it_may_be_made_elsewhere(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts.d"
    scripts.mkdir()
    with replaced(scripts / "one", beside=tmp_path) as descriptor:
        os.write(descriptor, b"all of it")
        assert os.listdir(scripts) == []
    assert (scripts / "one").read_bytes() == b"all of it"
    assert os.listdir(tmp_path) == ["scripts.d"]
