"""What strangers can put beside a file, and who may read what is made of it."""

import fcntl
import os
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.hosts.files.atomic import write_whole
from armferry.hosts.files.descriptor import write_all
from armferry.hosts.files.in_place import FileInPlace, finish, undo
from armferry.hosts.files.journal import (
    ForeignJournal,
    Journal,
    journal_path,
    read_journal,
    write_journal,
)
from armferry.hosts.files.likeness import make_alike
from armferry.hosts.files.locked import FileWindow
from armferry.rewriting.copy import written_beside
from armferry.stream.rewrite import NewTail

STRANGER = 1234
SIZE = 5_000


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    path = tmp_path / "guest.state"
    path.write_bytes(b"G" * SIZE)
    path.chmod(0o600)
    return path


def pipe(where: Path) -> None:
    os.mkfifo(where)


def endless(where: Path) -> None:
    where.symlink_to("/dev/zero")


def link_to_a_journal(where: Path) -> None:
    other = where.parent / "other"
    other.write_bytes(b"x")
    write_journal(other, Journal.of_end(0, b"x", b"y"))
    where.symlink_to(journal_path(other))


def folder(where: Path) -> None:
    where.mkdir()


def huge(where: Path) -> None:
    with where.open("wb") as file:
        file.truncate(6 << 30)


def huge_line(where: Path) -> None:
    where.write_bytes(b"{" * (1 << 20))


def digits(where: Path) -> None:
    where.write_bytes(b'{"version": 3, "sha256": "", "length": ' + b"9" * 4_000 + b"}\n")


@pytest.mark.parametrize(
    "plant", [pipe, endless, link_to_a_journal, folder, huge, huge_line, digits]
)
def test_what_is_no_journal_is_not_waited_for_and_not_read(
    plant: Callable[[Path], None], guest: Path
) -> None:
    plant(journal_path(guest))
    # in a process of its own, which a pipe would hang and a gigabyte would end
    program = (
        "import resource, sys; from pathlib import Path; "
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); "
        "from armferry.hosts.files.journal import read_journal; "
        "print(read_journal(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(guest)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@needs_root
@pytest.mark.parametrize("settle", [FileWindow, FileInPlace, undo, finish])
def test_journal_of_a_stranger_is_not_believed(
    settle: Callable[[Path], object], guest: Path
) -> None:
    write_journal(guest, Journal.of_end(SIZE, b"", b"EVIL" * 10))
    os.chown(journal_path(guest), STRANGER, STRANGER)
    with pytest.raises(ForeignJournal) as error:
        settle(guest)
    assert str(error.value) == (
        f"{journal_path(guest)}: made by user {STRANGER}, mode 600: not believed, for neither the "
        f"owner of {guest} nor you made it; if nobody was rewriting that file, remove the journal"
    )
    assert guest.read_bytes() == b"G" * SIZE


@needs_root
def test_journal_of_the_files_owner_is_believed(guest: Path) -> None:
    os.chown(guest, STRANGER, STRANGER)
    write_journal(guest, Journal.of_end(0, b"G", b"H"))
    os.chown(journal_path(guest), STRANGER, STRANGER)
    assert read_journal(guest) == Journal.of_end(0, b"G", b"H")


def test_journal_that_others_can_write_is_not_believed(guest: Path) -> None:
    write_journal(guest, Journal.of_end(0, b"G", b"H"))
    journal_path(guest).chmod(0o620)
    with pytest.raises(ForeignJournal):
        read_journal(guest)


def test_journal_is_for_one_file_and_not_for_its_name(guest: Path) -> None:
    write_journal(guest, Journal.of_end(0, b"G", b"H"))
    saved_again = guest.with_name("new")
    saved_again.write_bytes(guest.read_bytes())
    saved_again.replace(guest)
    with pytest.raises(ForeignJournal) as error:
        undo(guest)
    assert str(error.value) == (
        f"{journal_path(guest)}: about another file than {guest}, or it is a copy; if it was "
        "replaced since, remove the journal"
    )


def test_rewrite_replaces_what_was_planted(guest: Path) -> None:
    pipe(journal_path(guest))
    with FileInPlace(guest) as file:
        file.rewrite(NewTail(SIZE - 1, b"new"), SIZE)
    assert guest.read_bytes() == b"G" * (SIZE - 1) + b"new"
    assert not journal_path(guest).exists()


# -- the same readers, or fewer

UNDEFINED = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


# the owner reads and writes, user 1234 reads and writes, the group nothing, mask rw, others nothing
FOR_ONE = acl(
    (1, 6, UNDEFINED), (2, 6, STRANGER), (4, 0, UNDEFINED), (16, 6, UNDEFINED), (32, 0, UNDEFINED)
)


@pytest.fixture
def listed(guest: Path) -> Path:
    """A file with an access control list and an attribute; pytest's folder can have them."""
    os.setxattr(guest, "system.posix_acl_access", FOR_ONE)
    os.setxattr(guest, "user.note", b"hello")
    return guest


def alike(path: Path) -> Path:
    new = path.with_name("copy")
    with path.open("rb") as old, written_beside(new, like=old.fileno()) as descriptor:
        write_all(descriptor, b"copy")
    return new


def test_access_control_list_and_attributes_are_kept(listed: Path) -> None:
    new = alike(listed)
    assert os.getxattr(new, "system.posix_acl_access") == FOR_ONE
    assert os.getxattr(new, "user.note") == b"hello"
    assert stat.S_IMODE(new.stat().st_mode) == stat.S_IMODE(listed.stat().st_mode)


def test_without_the_list_the_group_gets_what_was_the_groups(
    listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mode of a file with a list shows the mask where the group's bits are."""
    assert listed.stat().st_mode & 0o070 == 0o060

    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refused)
    assert stat.S_IMODE(alike(listed).stat().st_mode) == 0o600


def test_a_group_that_cannot_be_given_gets_nothing(
    guest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(guest, -1, STRANGER)

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    expected = 0o600 if guest.stat().st_gid != os.getegid() else 0o640
    assert stat.S_IMODE(alike(guest).stat().st_mode) == expected


def test_a_copy_runs_as_nobody(guest: Path) -> None:
    guest.chmod(0o4755)
    assert stat.S_IMODE(alike(guest).stat().st_mode) == 0o755


def test_a_file_of_pieces_of_a_list_is_taken_for_the_narrowest(guest: Path) -> None:
    with guest.open("rb") as old, guest.with_name("n").open("wb") as new:
        make_alike(new.fileno(), old.fileno())
    assert stat.S_IMODE(guest.with_name("n").stat().st_mode) == 0o600


# -- what a killed run leaves


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".part"))


def test_part_of_a_killed_run_is_removed_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "state"
    program = (
        "import sys, time; from pathlib import Path; "
        "from armferry.hosts.files.atomic import replaced\n"
        "with replaced(Path(sys.argv[1])): print('open', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        left = parts(tmp_path)
        assert len(left) == 1
        write_whole(target, b"first")
        assert parts(tmp_path) == left  # somebody still writes it
        child.kill()
    deadline = time.monotonic() + 60
    while parts(tmp_path):
        assert time.monotonic() < deadline
        write_whole(target, b"second")
    assert target.read_bytes() == b"second"


def test_what_only_looks_like_a_part_stays(tmp_path: Path) -> None:
    for middle in ("state", "state.abcdefg", "other.abcdefgh", "state.ABCDEFGH"):
        name = f".{middle}.part"
        (tmp_path / name).write_bytes(b"mine")
    os.mkfifo(tmp_path / ".state.aaaaaaaa.part")
    (tmp_path / ".state.bbbbbbbb.part").symlink_to(tmp_path / ".state.part")
    before = parts(tmp_path)
    write_whole(tmp_path / "state", b"x")
    assert parts(tmp_path) == before


def test_file_that_was_taken_for_one_left_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run sees it between its making and its lock."""
    lock = fcntl.flock
    taken: list[str] = []

    def late(descriptor: int, how: int) -> None:
        if not taken:
            (name,) = parts(tmp_path)
            taken.append(name)
            (tmp_path / name).unlink()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_whole(tmp_path / "state", b"x")
    assert (tmp_path / "state").read_bytes() == b"x"
    assert taken
    assert parts(tmp_path) == []
