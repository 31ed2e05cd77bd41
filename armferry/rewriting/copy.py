"""A file rewritten beside the target: copied without its holes, given a new end, renamed.

Owner, mode and holes are those of the source. The target is replaced in one step, after all of
it is on disk; a failure leaves neither a part of it nor a temporary file.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from armferry.hosts.files.atomic import replaced
from armferry.hosts.files.descriptor import write_all
from armferry.hosts.files.journal import interrupted, read_journal
from armferry.hosts.files.likeness import make_alike
from armferry.hosts.files.locked import LockedFile
from armferry.rewriting.errors import FerryError, WriteFault

if TYPE_CHECKING:
    from armferry.stream import NewTail, Window

__all__ = ["Mark", "OnCopied", "copy_with_tail", "send_with_tail", "written_beside"]

OnCopied = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

_STEP = 64 << 20
_PIECE = 1 << 20
_SHORTER = "the source became shorter while it was read"


@dataclass(frozen=True, slots=True)
class Mark:
    """The first bytes of a file that says of itself whether it is complete; equally long."""

    until_complete: bytes
    complete: bytes


def copy_with_tail(
    source: LockedFile,
    target: Path,
    size: int,
    tail: "NewTail | None",
    on_copied: OnCopied | None = None,
    *,
    mark: Mark | None = None,
) -> None:
    """Writes the first `size` bytes of `source` to `target`, from `tail.offset` on the new end.

    A copy with a `mark` says that it is complete only when all else is on disk. Raises
    FerryError.
    """
    with written_beside(target, like=source.fileno()) as descriptor:
        size = size if tail is None else tail.offset
        begin = 0
        if mark is not None:
            begin = os.pwrite(descriptor, mark.until_complete, 0)
        _copy(source.fileno(), descriptor, begin, size, on_copied)
        os.ftruncate(descriptor, size)
        if tail is not None:
            os.lseek(descriptor, size, os.SEEK_SET)
            write_all(descriptor, tail.data)
        if mark is not None:
            os.fsync(descriptor)
            os.pwrite(descriptor, mark.complete, 0)


def send_with_tail(
    source: "Window",
    descriptor: int,
    size: int,
    tail: "NewTail | None",
    on_copied: OnCopied | None = None,
) -> None:
    """Writes `source` to a pipe or any `descriptor`: `size` bytes, from `tail.offset` the new end.

    Raises WriteFault or UnreadableFile.
    """
    size = size if tail is None else tail.offset
    try:
        for position in range(0, size, _PIECE):
            piece = source.read(position, min(_PIECE, size - position))
            if len(piece) < min(_PIECE, size - position):
                raise OSError(errno.EIO, _SHORTER)
            write_all(descriptor, piece)
            if on_copied is not None:
                on_copied(min(position + _PIECE, size), size)
        if tail is not None:
            write_all(descriptor, tail.data)
    except OSError as error:
        raise WriteFault(f"the output cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def written_beside(target: Path, *, like: int | None = None) -> Iterator[int]:
    """A descriptor of a new file that becomes `target` when the block ends well.

    `like` is a descriptor of the file that says who may read it (`likeness`); without, it gets the
    mode of any new file. A link stays one: the file that it leads to is replaced. Raises FerryError
    for what the operating system refuses, InterruptedRewrite when `target` is half rewritten: its
    journal would fit no other file.
    """
    new = contextlib.ExitStack()
    try:
        place = _place_of(target)
        if read_journal(target) is not None:
            raise interrupted(target)
        descriptor = new.enter_context(replaced(place))
    except OSError as error:
        raise FerryError(f"{target}: cannot be written: {error.strerror}") from error
    try:
        with new:
            if like is None:
                os.fchmod(descriptor, 0o666 & ~_umask())
            else:
                make_alike(descriptor, like)
            yield descriptor
    except OSError as error:
        raise WriteFault(f"{target}: cannot be written: {error.strerror}") from error


def _place_of(target: Path) -> Path:
    """The regular file that `target` is or leads to, there already or not. Raises FerryError.

    A link of /proc leads to a descriptor, whatever name it shows: /dev/stdout is one.
    """
    # links that lead round and round end here, with an OSError
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(target).st_mode):
            raise FerryError(f"{target}: not a regular file; give the name of a file, or -")
    place = target
    while place.is_symlink():
        folder = os.path.realpath(place.parent)
        if folder.startswith("/proc/"):
            raise FerryError(f"{target}: not the name of a file; give one, or -")
        place = Path(folder, os.readlink(place))
    return place


def _umask() -> int:
    """The mask of this process, which can only be asked by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _copy(source: int, target: int, position: int, size: int, on_copied: OnCopied | None) -> None:
    """Copies the bytes from `position` to `size`, holes left out."""
    while position < size:
        begin, end = _extent(source, position, size)
        position = begin
        while position < end:
            step = min(_STEP, end - position)
            copied = _copy_range(source, target, position, step)
            if not copied:
                raise OSError(errno.EIO, _SHORTER)
            position += copied
            if on_copied is not None:
                on_copied(position, size)
        position = end
    if os.lseek(source, 0, os.SEEK_END) < size:
        raise OSError(errno.EIO, _SHORTER)
    if on_copied is not None:
        on_copied(size, size)


def _extent(source: int, position: int, size: int) -> tuple[int, int]:
    """The next piece of data from `position` on: where it begins and ends, at most at `size`."""
    if not hasattr(os, "SEEK_DATA"):
        return position, size
    try:
        begin = os.lseek(source, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only a hole is left
            return size, size
        return position, size
    if begin >= size:
        return size, size
    return begin, min(size, os.lseek(source, begin, os.SEEK_HOLE))


def _copy_range(source: int, target: int, position: int, length: int) -> int:
    if hasattr(os, "copy_file_range"):  # Linux's own
        try:
            return os.copy_file_range(source, target, length, position, position)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    data = os.pread(source, min(length, 1 << 20), position)
    return os.pwrite(target, data, position)
