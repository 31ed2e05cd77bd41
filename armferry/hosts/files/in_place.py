"""A file rewritten in place: only the device state at its end is touched.

Order: journal on disk, new end written and cut to length, file on disk, journal gone. Whatever
stops the program in between leaves a journal from which `undo` and `finish` go either way. The
file stays locked from before it is read until the journal is gone.
"""

import os
import shlex
from pathlib import Path

from armferry.errors import ArmferryError, EnvironmentFault
from armferry.hosts.files.descriptor import write_at
from armferry.hosts.files.journal import (
    InterruptedRewrite,
    Journal,
    journal_path,
    read_journal,
    remove_journal,
    write_journal,
)
from armferry.hosts.files.locked import Access, FileWindow, LockedFile
from armferry.stream import NewTail

__all__ = ["FileInPlace", "ForeignJournal", "StoppedRewrite", "finish", "undo"]


class ForeignJournal(ArmferryError):
    """A journal beside a file that it is not about."""


class StoppedRewrite(InterruptedRewrite, EnvironmentFault):
    """A rewrite that the operating system stopped half way: its disk is full, say."""

    exit_code = EnvironmentFault.exit_code


class FileInPlace(FileWindow):
    """A saved state open to be read and rewritten, nobody else's meanwhile.

    Raises UnreadableFile or InterruptedRewrite.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, Access.CHANGE)

    def rewrite(self, tail: NewTail) -> None:
        """Gives the file the new end `tail`. Raises JournalFault or InterruptedRewrite."""
        # a journal that is not whole was never acted upon
        remove_journal(self.path)
        journal = Journal(tail.offset, self.read(tail.offset, self.size - tail.offset), tail.data)
        write_journal(self.path, journal)
        _put(self, journal, journal.new)


def undo(path: Path) -> bool:
    """Puts `path` back as it was before an interrupted rewrite; False when there was none.

    Raises UnreadableFile, JournalFault, ForeignJournal or InterruptedRewrite.
    """
    return _settle(path, new=False)


def finish(path: Path) -> bool:
    """Completes an interrupted rewrite of `path`; False when there was none. Raises as `undo`."""
    return _settle(path, new=True)


def _settle(path: Path, *, new: bool) -> bool:
    with LockedFile(path, Access.CHANGE) as file:
        journal = read_journal(path)
        if journal is None:
            remove_journal(path)
            return False
        if not journal.fits(file.read(journal.offset, max(file.size - journal.offset, 0))):
            raise ForeignJournal(
                f"{path}: this is not the file that the journal {journal_path(path)} is about; "
                "if it was replaced since, remove the journal"
            )
        _put(file, journal, journal.new if new else journal.old)
    return True


def _put(file: LockedFile, journal: Journal, data: bytes) -> None:
    try:
        end = write_at(file.fileno(), data, journal.offset)
        os.ftruncate(file.fileno(), end)
        os.fsync(file.fileno())
    except OSError as error:
        raise StoppedRewrite(
            f"{file.path}: the rewrite in place stopped: {error.strerror}; the journal "
            f"{journal_path(file.path)} is kept: armferry ferry "
            f"{shlex.quote(str(file.path))} --undo puts the file back as it was"
        ) from error
    remove_journal(file.path)
