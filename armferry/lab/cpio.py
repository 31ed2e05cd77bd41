"""The newc cpio format that the kernel unpacks as its initramfs.

Entries in, bytes out, and back; only `store` touches a file. Archives may be concatenated: each is
padded so that the next one begins at a multiple of four bytes, which the kernel demands. Owner is
root and the modification time is zero throughout, so equal content gives equal archives. Hard
links are not made.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel, cpio(5).
"""

import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from armferry.errors import ArmferryError

__all__ = ["CpioError", "Entry", "device", "directory", "file", "read", "store", "symlink", "write"]

_MAGIC = b"070701"
_FIELDS = 13
_HEADER = len(_MAGIC) + 8 * _FIELDS
_TRAILER = "TRAILER!!!"


class CpioError(ArmferryError):
    """The bytes are not a newc archive; the message has the offset."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of an archive: relative path, st_mode, content, and (major, minor) of a device.

    The content of a symbolic link is its target.
    """

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(name: str, content: bytes, permissions: int = 0o644) -> Entry:
    return Entry(name, stat.S_IFREG | permissions, content)


def directory(name: str, permissions: int = 0o755) -> Entry:
    return Entry(name, stat.S_IFDIR | permissions)


def symlink(name: str, target: str) -> Entry:
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def device(name: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    """A character device."""
    return Entry(name, stat.S_IFCHR | permissions, device=(major, minor))


def write(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The archive of `entries`, piece by piece; parents must come before what is in them."""
    number = 0
    for number, entry in enumerate(entries, start=1):
        yield from _member(entry, number)
    yield from _member(Entry(_TRAILER, 0), number + 1)


def store(path: Path, entries: Iterable[Entry]) -> None:
    """Write the archive of `entries` to `path`, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder, path.name)
        with unfinished.open("wb") as archive:
            archive.writelines(write(entries))
        unfinished.replace(path)


def read(archive: bytes) -> Iterator[Entry]:
    """The entries of one archive or of several concatenated ones. Raises `CpioError`."""
    offset = 0
    while offset < len(archive):
        if archive[offset : offset + 4] == b"\0\0\0\0":
            offset += 4
            continue
        header = archive[offset : offset + _HEADER]
        if not header.startswith(_MAGIC) or len(header) < _HEADER:
            raise CpioError(f"no newc header at offset {offset} of the archive")
        try:
            values = [int(header[6 + 8 * i : 14 + 8 * i], 16) for i in range(_FIELDS)]
        except ValueError as wrong:
            raise CpioError(f"bad number in the newc header at offset {offset}") from wrong
        mode, size, major, minor, name_size = (values[i] for i in (1, 6, 9, 10, 11))
        begin = offset + _HEADER
        content = _aligned(begin + name_size)
        if content + size > len(archive):
            raise CpioError(f"the archive ends within the member at offset {offset}")
        name = archive[begin : begin + name_size].rstrip(b"\0").decode()
        if name != _TRAILER:
            yield Entry(name, mode, archive[content : content + size], (major, minor))
        offset = _aligned(content + size)


def _member(entry: Entry, number: int) -> Iterator[bytes]:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    major, minor = entry.device
    size = len(entry.content)
    values = (number, entry.mode, 0, 0, links, 0, size, 0, 0, major, minor, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % value for value in values) + name
    yield header + bytes(-len(header) % 4)
    yield entry.content
    yield bytes(-size % 4)


def _aligned(offset: int) -> int:
    return offset + -offset % 4
