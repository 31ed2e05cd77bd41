"""A file rewritten in place: only the device state at its end is touched.

Order: journal on disk, each step of the rewrite written and on disk, journal gone. What the
operating system refuses on the way is undone at once; whatever stops the program leaves a journal
from which `undo` and `finish` go either way. The file stays locked from before it is read until
the journal is gone.
"""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from armferry.errors import EnvironmentFault
from armferry.hosts.files.descriptor import write_at
from armferry.hosts.files.journal import (
    ForeignJournal,
    InterruptedRewrite,
    Journal,
    journal_path,
    read_journal,
    remove_journal,
    write_journal,
)
from armferry.hosts.files.locked import Access, FileWindow, LockedFile
from armferry.hosts.files.patch import Patch, Step
from armferry.hosts.files.qcow2.format import HEADER_BYTES, is_qcow2
from armferry.hosts.files.qcow2.locks import lock_image
from armferry.stream import NewTail

__all__ = [
    "FileInPlace",
    "ForeignJournal",
    "NoRoom",
    "StoppedRewrite",
    "UndoneRewrite",
    "finish",
    "undo",
]


class StoppedRewrite(InterruptedRewrite, EnvironmentFault):
    """A rewrite that the operating system stopped half way: its disk is failing, say."""

    exit_code = EnvironmentFault.exit_code


class NoRoom(EnvironmentFault):
    """A device that is smaller than what is to be on it; nothing was written."""


class UndoneRewrite(EnvironmentFault):
    """A rewrite that the operating system stopped and that was undone: its disk is full, say."""


class FileInPlace(FileWindow):
    """A saved state open to be read and rewritten, nobody else's meanwhile.

    Raises UnreadableFile or InterruptedRewrite.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, Access.CHANGE)

    def rewrite(self, tail: NewTail, end: int) -> None:
        """Gives the stream that ends at byte `end` the new end `tail`; bytes behind it stay.

        Raises as `change`.
        """
        old = self.read(tail.offset, end - tail.offset)
        if end == self.size and not self.is_device:
            self.carry_out(Journal.of_end(tail.offset, old, tail.data))
            return
        # what is left of a longer end would follow the new one
        data = tail.data + bytes(max(len(old) - len(tail.data), 0))
        self.change([[Patch(tail.offset, self.read(tail.offset, len(data)), data)]])

    def change(self, steps: Sequence[Step]) -> None:
        """Carries out `steps`, each on disk before the next; a file may grow.

        Raises NoRoom, JournalFault, UndoneRewrite or InterruptedRewrite.
        """
        size = max(self.size, *(patch.offset + len(patch.new) for step in steps for patch in step))
        if self.is_device and size > self.size:
            raise NoRoom(
                f"{self.path}: the volume is {size - self.size} bytes too small for what is to be "
                "written; enlarge it"
            )
        self.carry_out(Journal(tuple(steps), self.size, size))

    def carry_out(self, journal: Journal) -> None:
        """Does what `journal` says and undoes it when it cannot. Raises as `change`."""
        # a journal that is not whole was never acted upon
        remove_journal(self.path)
        write_journal(self.path, journal)
        try:
            _write(self, journal, new=True)
        except OSError as error:
            _settle_as(self, journal, new=False)
            raise UndoneRewrite(
                f"{self.path}: the rewrite in place stopped: {error.strerror}; the file is as it "
                "was"
            ) from error
        remove_journal(self.path)


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
        if is_qcow2(file.read(0, HEADER_BYTES)):
            lock_image(file.fileno(), str(path), change=True)
        if not journal.fits(file):
            raise ForeignJournal(
                f"{path}: this is not the file that the journal {journal_path(path)} is about, or "
                "it was changed since; if it is in order as it is, remove the journal"
            )
        _settle_as(file, journal, new=new)
    return True


def _settle_as(file: LockedFile, journal: Journal, *, new: bool) -> None:
    try:
        _write(file, journal, new=new)
    except OSError as error:
        raise StoppedRewrite(
            f"{file.path}: the rewrite in place stopped: {error.strerror}; the journal "
            f"{journal_path(file.path)} is kept: armferry ferry "
            f"{shlex.quote(str(file.path))} --undo puts the file back as it was"
        ) from error
    remove_journal(file.path)


def _write(file: LockedFile, journal: Journal, *, new: bool) -> None:
    """Makes the file what it was, or what it is to be, from wherever the rewrite stopped."""
    patches = [[patch for patch in step if patch.old != patch.new] for step in journal.steps]
    left = len(patches)
    for step in patches if new else reversed(patches):
        for patch in step if new else reversed(step):
            write_at(file.fileno(), patch.new if new else patch.old, patch.offset)
        left -= 1
        if not left and journal.old_size != journal.new_size:
            os.ftruncate(file.fileno(), journal.new_size if new else journal.old_size)
        os.fsync(file.fileno())
