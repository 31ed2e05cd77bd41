"""A file replaced in one step: a reader finds the old one or all of the new one.

The new file is written beside the old one, put on disk and renamed; a failure leaves neither a
part of it nor a temporary file. Refuses to know what is in it.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from armferry.hosts.files.descriptor import write_all

__all__ = ["replaced", "sync_folder", "write_whole"]

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_SUFFIX = ".part"
_LONGEST_PREFIX = 32  # letters of the target's name in that of the temporary file


@contextlib.contextmanager
def replaced(target: Path, *, beside: Path | None = None) -> Iterator[int]:
    """A descriptor of a new file, private to its owner, that becomes `target` at the block's end.

    Until then it lies in the folder `beside`, which is on the same file system (default: the
    target's own), locked; what a run that was killed has left there, locked by nobody, is removed
    first. Raises OSError, and what the block raises; `target` is then as it was.
    """
    folder = beside or target.parent
    prefix = f".{target.name[:_LONGEST_PREFIX]}."
    _remove_left(folder, prefix)
    descriptor, temporary = _locked(folder, prefix)
    try:
        try:
            yield descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(target)


def _locked(folder: Path, prefix: str) -> tuple[int, str]:
    """A new file of that folder, locked for as long as it is open."""
    while True:
        descriptor, temporary = tempfile.mkstemp(prefix=prefix, suffix=_SUFFIX, dir=folder)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # somebody took it for one that was left, before it was locked


def _remove_left(folder: Path, prefix: str) -> None:
    """Removes the caller's own temporary files that nobody has open any more."""
    ours = re.compile(re.escape(prefix) + r"[a-z0-9_]{8}" + re.escape(_SUFFIX))
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if ours.fullmatch(entry.name)]
    for name in names:
        with contextlib.suppress(OSError):  # gone, another's, in use: not ours to remove
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(folder / name, flags)
            try:
                about = os.fstat(descriptor)
                if stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(folder / name)
            finally:
                os.close(descriptor)


def write_whole(
    target: Path, data: bytes | str, *, mode: int = 0o644, beside: Path | None = None
) -> None:
    """Makes `target` a file of `data`, text as UTF-8, with this mode. Raises OSError."""
    with replaced(target, beside=beside) as descriptor:
        os.fchmod(descriptor, mode)
        write_all(descriptor, data.encode() if isinstance(data, str) else data)


def sync_folder(path: Path) -> None:
    """Waits until the folder that `path` lies in is on disk, where its file system can say so."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # CIFS and others know no fsync of a folder: that is no reason to refuse the file in it
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
