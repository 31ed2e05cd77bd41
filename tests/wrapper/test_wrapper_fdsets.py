"""Descriptors given in sets: found on a command line, kept, copied and let go."""

import os
from pathlib import Path

import pytest

from armferry.wrapper.commandline.fdsets import FdSets, fdset_number, given_sets


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/dev/fdset/0", 0),
        ("/dev/fdset/12", 12),
        ("/dev/fdset/", None),
        ("/dev/fdset/x", None),
        ("/dev/fdset/-1", None),
        ("/var/fdset/1", None),
        ("12", None),
    ],
)
def test_number_in_a_path(path: str, number: int | None) -> None:
    assert fdset_number(path) == number


def test_sets_of_a_command_line() -> None:
    words = ["-add-fd", "fd=7,set=0,opaque=libvirt-incoming-migrate-fd", "-S"]
    words += ["--add-fd", "set=3,fd=9", "-add-fd", "set=x,fd=1", "-name", "fd=1,set=2"]
    assert given_sets(words) == ((0, 7), (3, 9))


def test_the_newest_that_does_not_bypass_the_cache_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"whole")
    old, new = os.open(tmp_path, os.O_RDONLY), os.open(path, os.O_RDWR)
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    sets = FdSets([(1, old)])
    sets.add(1, new)
    sets.add(1, direct)
    assert sets.copy(2) is None
    copy = sets.copy(1)
    assert copy is not None
    assert os.pread(copy, 10, 0) == b"whole"
    sets.forget(1)
    sets.forget(1)
    for descriptor in (old, new, direct):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    assert sets.copy(1) is None
    os.close(copy)
