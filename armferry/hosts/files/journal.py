"""The journal beside a file that is being rewritten in place: enough to undo it or to finish it.

Written and synced before the first byte of the file changes, removed after the last one is
synced. It holds both ends of the file, the old and the new one. A journal that is not whole was
never acted upon: the file is as it was. Lives here because whoever reads a saved state must look
for one first; who writes and settles it is `in_place`.

Format: one line of JSON (version, offset, lengths, sha256 of what follows), the old end, the
new end.
"""

import contextlib
import errno
import hashlib
import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from armferry.errors import ArmferryError, EnvironmentFault
from armferry.hosts.files.atomic import sync_folder

__all__ = [
    "InterruptedRewrite",
    "Journal",
    "JournalFault",
    "interrupted",
    "journal_path",
    "read_journal",
    "remove_journal",
    "write_journal",
]

_VERSION = 1
_MAX_LINE = 4_096
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_SUFFIX = ".armferry-journal"


class InterruptedRewrite(ArmferryError):
    """A file that an interrupted rewrite in place has left half done, with its journal."""


class JournalFault(EnvironmentFault):
    """A journal that the operating system does not let be read or written."""


@dataclass(frozen=True, slots=True)
class Journal:
    """The end of a file from `offset` on, before and after the rewrite."""

    offset: int
    old: bytes
    new: bytes

    def fits(self, end: bytes) -> bool:
        """Whether a rewrite that stopped anywhere could have left `end` from `offset` on.

        Every byte is the old or the new one; past the old end, a crash may leave zeros.
        """
        shorter, longer = sorted((len(self.old), len(self.new)))
        if not shorter <= len(end) <= longer:
            return False
        mixed = all(byte in pair for byte, *pair in zip(end, self.old, self.new, strict=False))
        rest = end[shorter:]
        if len(self.old) >= len(self.new):
            return mixed and rest == self.old[shorter : len(end)]
        grown = zip(rest, self.new[shorter:], strict=False)
        return mixed and all(byte in (0, new) for byte, new in grown)


def journal_path(path: Path) -> Path:
    """Where the journal of `path` lies: beside the file itself, whatever links lead to it."""
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
    head = {
        "version": _VERSION,
        "offset": journal.offset,
        "old": len(journal.old),
        "new": len(journal.new),
        "sha256": hashlib.sha256(journal.old + journal.new).hexdigest(),
    }
    where = journal_path(path)
    try:
        descriptor = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritten(where, path, error) from error
    try:
        with open(descriptor, "wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            file.write(journal.old)
            file.write(journal.new)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(where)
    except OSError as error:
        with contextlib.suppress(OSError):
            where.unlink()
        raise _unwritten(where, path, error) from error


def read_journal(path: Path) -> Journal | None:
    """The journal of `path`; None when there is none, or when it was never finished.

    Raises JournalFault.
    """
    where = journal_path(path)
    try:
        with open(where, "rb") as file:
            line = file.readline(_MAX_LINE)
            rest = file.read()
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise JournalFault(f"{where}: the journal cannot be read: {error.strerror}") from error
    try:
        head = json.loads(line)
        old = int(head["old"])
        whole = (
            head["version"] == _VERSION
            and len(rest) == old + int(head["new"])
            and hashlib.sha256(rest).hexdigest() == head["sha256"]
        )
        offset = int(head["offset"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return Journal(offset, rest[:old], rest[old:]) if whole else None


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


def _unwritten(where: Path, path: Path, error: OSError) -> JournalFault:
    return JournalFault(
        f"{where}: the journal cannot be written: {error.strerror}; {path} is unchanged"
    )
