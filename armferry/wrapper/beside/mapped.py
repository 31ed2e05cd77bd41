"""Files with guest memory at fixed offsets (mapped-ram): QEMU needs the file itself.

No gateway can stand in its way, so the file is treated before or after QEMU has it:

    incoming   nothing to change: QEMU reads it. Otherwise its pages and the changed device state
               go to QEMU as a plain stream.
    outgoing   QEMU writes it; the hidden registers are taken out of its end before anybody is
               told that the migration has completed.
"""

import os
import socket
import threading
from collections.abc import Callable

from armferry.errors import ArmferryError
from armferry.gateway.session import Judging
from armferry.hosts.files.descriptor import DescriptorWindow, write_at
from armferry.rewriting.edits import edit_of
from armferry.stream import NewTail, SavedState, read_saved, rewrite_tail
from armferry.stream.mapped import plain_stream
from armferry.wrapper.errors import UriFault

__all__ = ["MappedSave", "changed_end", "pour_plain"]

_NAME = "the file of the migration"


def changed_end(saved: SavedState, judge: Judging) -> NewTail | None:
    """What `judge` makes of the end of a saved state; None when it stays as it is.

    Raises UriFault for a refusal, with its reason.
    """
    judgement = judge(saved.machine, saved.sections)
    if not judgement.accepted:
        raise UriFault(f"the migration is refused: {judgement.reason}")
    return rewrite_tail(saved, edit_of(judgement.verdict))


def pour_plain(offset: int) -> Callable[[int, socket.socket], None]:
    """What a bridge does: the mapped-ram stream at `offset` of a file goes out as a plain one."""

    def pour(descriptor: int, connection: socket.socket) -> None:
        for piece in plain_stream(DescriptorWindow(descriptor, _NAME), offset):
            connection.sendall(piece)

    return pour


class MappedSave:
    """A migration that QEMU writes into a file by itself; what is hidden is taken out at its end.

    `descriptor` is the file, opened to read and to write, and becomes this object's. The stream
    begins at `offset`.
    """

    def __init__(
        self, descriptor: int, offset: int, judge: Judging, notify: Callable[[str], None]
    ) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._judge = judge
        self._notify = notify
        self._lock = threading.Lock()
        self._before = self._state()
        self._good: bool | None = None

    def wait(self) -> bool:
        """QEMU has written all of it: whether it is without what is hidden now.

        A file that cannot be changed is emptied, for it must not be used.
        """
        with self._lock:
            if self._good is None:
                try:
                    self._take_out()
                    self._end(good=True)
                except (ArmferryError, OSError) as error:
                    self._notify(f"migration failed: {error}")
                    os.ftruncate(self._descriptor, self._offset)
                    self._end(good=False)
            return self._good is True

    def cancel(self) -> None:
        """It will not be completed: the file is left alone."""
        with self._lock:
            if self._good is None:
                self._end(good=False)

    def settle(self, limit: float) -> bool:
        """Whether it is over; one that was written without anybody having asked is seen to now."""
        with self._lock:
            if self._good is None and self._state() != self._before:
                try:
                    self._take_out()
                except (ArmferryError, OSError):
                    return False  # under way
            if self._good is None:
                self._end(good=True)
            return True

    def finish(self, limit: float) -> None:
        """QEMU has gone."""
        if not self.settle(limit):
            self.cancel()

    def _state(self) -> tuple[int, int]:
        about = os.fstat(self._descriptor)
        return about.st_size, about.st_mtime_ns

    def _end(self, *, good: bool) -> None:
        os.close(self._descriptor)
        self._good = good

    def _take_out(self) -> None:
        window = DescriptorWindow(self._descriptor, _NAME)
        tail = changed_end(read_saved(window, self._offset), self._judge)
        if tail is None:
            return
        os.ftruncate(self._descriptor, write_at(self._descriptor, tail.data, tail.offset))
        os.fsync(self._descriptor)
