"""Bytes at the two ends of an open descriptor: read at an offset, written whole.

Knows that the operating system may take or give less than was asked; refuses to know which file it
is (`locked`) and what is in it.
"""

import errno
import os
import stat
from pathlib import Path

from armferry.errors import ArmferryError

__all__ = ["DescriptorWindow", "UnreadableFile", "read_regular", "write_all", "write_at"]


class UnreadableFile(ArmferryError):
    """A file that cannot be opened, locked or read; the message names it and the reason."""


class DescriptorWindow:
    """The bytes of an open file that is called `name`: a `Window`. The descriptor stays open."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer only at the end. Raises UnreadableFile."""
        parts: list[bytes] = []
        while length > 0:
            try:
                part = os.pread(self._descriptor, length, offset)
            except OSError as error:
                raise UnreadableFile(
                    f"{self._name}: cannot be read at byte {offset}: {error.strerror}"
                ) from error
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)


def read_regular(path: Path, most: int) -> bytes:
    """What is in a regular file, `most` bytes of it and one more at most. Raises OSError.

    Of a folder into which others put files: a pipe is not waited for, and no device is read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        return file.read(most + 1)


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Writes all of `data` where the descriptor stands. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> int:
    """Writes all of `data` from `offset` on; the offset after it. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]
    return offset
