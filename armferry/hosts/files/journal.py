"""The journal beside a file that is being rewritten in place: enough to undo it or to finish it.

Written and synced before the first byte of the file changes, removed after the last one is
synced. It holds every byte that changes, as it was and as it is to be. A journal that is not whole
was never acted upon: the file is as it was. Lives here because a reader of a saved state must
look for one first; who writes and settles it is `in_place`.

A file's journal lies beside it; that of a device, whose folder is gone after a restart, below
/var/lib/armferry/journals, or below $ARMFERRY_JOURNALS.

Rule of this file: anyone who can write to the folder may have put this one there. It is opened
without following a link or waiting for a pipe, read no further than it says of itself, and believed
only when the file's owner, root or the caller made it, nobody else can write it, and it names the
file that it lies beside.

Format: one line of JSON (version, inode of the file, length and sha256 of what follows); one line
of JSON (size of the file before and after; for each step its patches as offset and lengths); the
patches' old and new bytes.
"""

import contextlib
import errno
import hashlib
import json
import os
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from armferry.errors import ArmferryError, EnvironmentFault
from armferry.hosts.files.atomic import sync_folder
from armferry.hosts.files.descriptor import write_all
from armferry.hosts.files.patch import Patch, Step
from armferry.stream.wire import MAX_DEVICE_STATE

if TYPE_CHECKING:
    from armferry.stream import Window

__all__ = [
    "ForeignJournal",
    "InterruptedRewrite",
    "Journal",
    "JournalFault",
    "encoded",
    "interrupted",
    "journal_path",
    "read_journal",
    "remove_journal",
    "write_journal",
]

_VERSION = 3
_OTHERS_WRITE = 0o022
_MAX_LINE = 4_096
_MAX_BODY = 4 * MAX_DEVICE_STATE
"""Bytes of a journal: the longest device state before and after, and its description."""
_MAX_SIZE = 1 << 63
"""Bytes of a file at most: an offset is a signed number of 64 bits."""
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_SUFFIX = ".armferry-journal"
_OF_DEVICES = Path("/var/lib/armferry/journals")


class InterruptedRewrite(ArmferryError):
    """A file that an interrupted rewrite in place has left half done, with its journal."""


class JournalFault(EnvironmentFault):
    """A journal that the operating system does not let be read or written."""


class ForeignJournal(ArmferryError):
    """A journal beside a file that it is not about, or that somebody else put there."""


@dataclass(frozen=True, slots=True)
class Journal:
    """A rewrite: its steps in order, and the size of the file in bytes before and after.

    A device keeps its size.
    """

    steps: tuple[Step, ...]
    old_size: int
    new_size: int

    @classmethod
    def of_end(cls, offset: int, old: bytes, new: bytes) -> Self:
        """The journal of a file that ends otherwise from `offset` on."""
        patch = Patch(offset, old, new)
        return cls(((patch,),), offset + len(old), offset + len(new))

    @property
    def patches(self) -> Iterator[Patch]:
        """All patches, first to last."""
        return (patch for step in self.steps for patch in step)

    def fits(self, window: "Window") -> bool:
        """Whether a rewrite that stopped anywhere could have left `window` so.

        Every byte is an old or a new one; past the old end, a crash may leave zeros.
        """
        smaller, larger = sorted((self.old_size, self.new_size))
        return smaller <= window.size <= larger and all(
            self._fits(patch, window.read(patch.offset, max(len(patch.old), len(patch.new))))
            for patch in self.patches
        )

    def _fits(self, patch: Patch, found: bytes) -> bool:
        if found in (patch.old, patch.new):
            return True
        end = patch.offset + len(found)
        near = [one for one in self.patches if one.overlaps(patch.offset, end)]
        for at, byte in enumerate(found, patch.offset):
            known = {data[at - one.offset] for one in near for data in one.covering(at)}
            if byte not in known and (byte or at < self.old_size):
                return False
        return True


def journal_path(path: Path) -> Path:
    """Where the journal of `path` lies: for a file beside it, whatever links lead to it."""
    if _is_device(path):
        folder = Path(os.environ.get("ARMFERRY_JOURNALS") or _OF_DEVICES)
        # what a link such as /dev/GROUP/VOLUME leads to is another after a restart
        return folder / (os.path.abspath(path).strip("/").replace("/", "-") + _SUFFIX)
    return Path(os.path.realpath(path) + _SUFFIX)


def interrupted(path: Path) -> InterruptedRewrite:
    """The error for a file whose journal is whole."""
    return InterruptedRewrite(
        f"{path}: an earlier rewrite in place was interrupted; "
        f"armferry ferry {shlex.quote(str(path))} --undo puts the file back as it was, "
        "--finish completes it"
    )


def write_journal(path: Path, journal: Journal) -> None:
    """Writes the journal of `path` and waits until it is on disk. Raises JournalFault."""
    body = encoded(journal)
    where = journal_path(path)
    try:
        head = {
            "version": _VERSION,
            "inode": _inode(path),
            "length": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        if _is_device(path):
            where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritten(where, path, error) from error
    try:
        try:
            write_all(descriptor, json.dumps(head).encode() + b"\n" + body)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(where)
    except OSError as error:
        with contextlib.suppress(OSError):
            where.unlink()
        raise _unwritten(where, path, error) from error


def read_journal(path: Path) -> Journal | None:
    """The journal of `path`; None when there is none, or when it was never finished.

    Raises JournalFault for one that cannot be read and ForeignJournal for one that somebody made
    who is not believed, or that is about another file.
    """
    where = journal_path(path)
    try:
        found = _read(where)
        file = os.stat(path)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise JournalFault(f"{where}: the journal cannot be read: {error.strerror}") from error
    if found is None:
        return None
    if found.owner not in (0, os.geteuid(), file.st_uid) or found.mode & _OTHERS_WRITE:
        raise ForeignJournal(
            f"{where}: made by user {found.owner}, mode {found.mode:o}: not believed, for neither "
            f"the owner of {path} nor you made it; if nobody was rewriting that file, remove the "
            "journal"
        )
    if found.version != _VERSION:
        raise JournalFault(
            f"{where}: a journal of another armferry, version {found.version}: settle it with "
            "that one"
        )
    if found.inode != _inode(path):
        raise ForeignJournal(
            f"{where}: about another file than {path}, or it is a copy; if it was replaced since, "
            "remove the journal"
        )
    try:
        return _decoded(found.body)
    except ValueError:
        raise ForeignJournal(
            f"{where}: no journal that armferry wrote, though it looks like one; if {path} is "
            "in order as it is, remove it"
        ) from None


@dataclass(frozen=True, slots=True)
class _Found:
    """A whole journal, and who made it."""

    owner: int
    mode: int
    version: int
    inode: int
    body: bytes


def _read(where: Path) -> _Found | None:
    """What lies there; None for what never was a whole journal. Raises OSError."""
    if not stat.S_ISREG(os.lstat(where).st_mode):
        return None  # a link, a pipe, a folder: armferry makes none of these
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(where, flags), "rb") as file:
        about = os.fstat(file.fileno())
        line = file.readline(_MAX_LINE)
        try:
            head = json.loads(line)
            version, inode = int(head["version"]), int(head.get("inode", 0))
            length, digest = int(head.get("length", 0)), str(head["sha256"])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None
        if version != _VERSION:
            length = 0  # how that one counts is not known here
        elif not 0 < length <= _MAX_BODY or about.st_size != len(line) + length:
            return None
        body = file.read(length)
    if version == _VERSION and hashlib.sha256(body).hexdigest() != digest:
        return None
    return _Found(about.st_uid, stat.S_IMODE(about.st_mode), version, inode, body)


def _inode(path: Path) -> int:
    """The file's number; 0 for a device, whose node is made anew at each start."""
    return 0 if _is_device(path) else os.stat(path).st_ino


def remove_journal(path: Path) -> None:
    """Removes the journal of `path`, if there is one, and waits until that is on disk.

    Only called while `path` is whole, as it was or as it is to be. Raises JournalFault.
    """
    where = journal_path(path)
    try:
        where.unlink()
        sync_folder(where)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return
        raise JournalFault(
            f"{where}: the journal cannot be removed: {error.strerror}; remove it, {path} is whole"
        ) from error


def encoded(journal: Journal) -> bytes:
    steps = [[(p.offset, len(p.old), len(p.new)) for p in step] for step in journal.steps]
    about = {"sizes": [journal.old_size, journal.new_size], "steps": steps}
    data = (part for patch in journal.patches for part in (patch.old, patch.new))
    return b"".join((json.dumps(about).encode(), b"\n", *data))


def _decoded(body: bytes) -> Journal:
    """The journal in what `encoded` made. Raises ValueError for what it did not make.

    The checksum has been looked at, but the owner of the file can make one that fits anything.
    """
    line, _, data = body.partition(b"\n")
    try:
        about = json.loads(line)
        old_size, new_size = map(_size, about["sizes"])
        steps = tuple(tuple(tuple(map(_size, patch)) for patch in step) for step in about["steps"])
        if sum(old + new for step in steps for _, old, new in step) != len(data):
            raise ValueError("its bytes are not those of its patches")
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("no journal") from error
    at = 0
    found: list[Step] = []
    for lengths in steps:
        step: list[Patch] = []
        for offset, old, new in lengths:
            step.append(Patch(offset, data[at : at + old], data[at + old : at + old + new]))
            at += old + new
        found.append(tuple(step))
    return Journal(tuple(found), old_size, new_size)


def _size(number: object) -> int:
    if type(number) is not int or not 0 <= number < _MAX_SIZE:
        raise ValueError(f"{number!r} is no size")
    return number


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def _unwritten(where: Path, path: Path, error: OSError) -> JournalFault:
    return JournalFault(
        f"{where}: the journal cannot be written: {error.strerror}; {path} is unchanged"
        + (", give OUT instead of --in-place" if error.errno in _NOT_ALLOWED else "")
    )
