"""Saved states in files: bytes at offsets, locked, and never a half rewritten one.

Readers share a lock, a rewrite in place (`in_place`) has it alone; a file that an
interrupted rewrite has left half done is refused by name. Knows files; what is in them,
`armferry.stream.read_saved` knows.
"""

import enum
import errno
import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from armferry.hosts.files.descriptor import DescriptorWindow, UnreadableFile
from armferry.hosts.files.journal import interrupted, read_journal

__all__ = ["Access", "FileWindow", "LockedFile"]

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a character device"),
)


class Access(enum.Enum):
    """What a file is opened for."""

    READ = "read"
    CHANGE = "changed"


class LockedFile(DescriptorWindow):
    """A regular file or a block device, open and locked; a context manager.

    Raises UnreadableFile.
    """

    def __init__(self, path: Path, access: Access) -> None:
        self.path = path
        self._access = access
        # a pipe without a writer must not be waited for: it is refused below
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        flags |= os.O_RDONLY if access is Access.READ else os.O_RDWR
        try:
            super().__init__(os.open(path, flags), str(path))
        except OSError as error:
            raise self._refused(error) from error
        try:
            self.is_device = self._check_kind()
            """Whether it is a block device: its size stays, and old bytes may follow the new."""
            self._lock()
            self._size = os.lseek(self._descriptor, 0, os.SEEK_END)
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        return self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def _check_kind(self) -> bool:
        """Whether it is a block device. Raises UnreadableFile for what is no file either."""
        mode = os.fstat(self._descriptor).st_mode
        if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
            return stat.S_ISBLK(mode)
        kind = next((words for test, words in _KINDS if test(mode)), "no file")
        raise UnreadableFile(
            f"{self.path}: {kind}; give a regular file, or - and the stream on standard input"
        )

    def _lock(self) -> None:
        how = fcntl.LOCK_SH if self._access is Access.READ else fcntl.LOCK_EX
        try:
            fcntl.flock(self._descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnreadableFile(
                f"{self.path}: another program has locked it; try again when that has ended"
            ) from None
        except OSError as error:
            # a file system without locks is no reason not to read; changing needs one
            if self._access is Access.CHANGE or error.errno not in _NO_LOCKS:
                raise self._refused(error) from error

    def _refused(self, error: OSError) -> UnreadableFile:
        return UnreadableFile(f"{self.path}: cannot be {self._access.value}: {error.strerror}")


class FileWindow(LockedFile):
    """A locked file that no interrupted rewrite has left half done.

    Raises UnreadableFile or InterruptedRewrite.
    """

    def __init__(self, path: Path, access: Access = Access.READ) -> None:
        super().__init__(path, access)
        try:
            if read_journal(path) is not None:
                raise interrupted(path)
        except BaseException:
            os.close(self._descriptor)
            raise
