"""A saved state in a file, whatever holds it: QEMU's own stream or a libvirt save image.

A stream that lies in the file as QEMU wrote it is read from its two ends; a compressed one is
walked once from its head, memory bounded.
"""

import os
from dataclasses import dataclass

from armferry.hosts.files.compression import decompressed
from armferry.hosts.files.descriptor import UnreadableFile
from armferry.hosts.files.locked import FileWindow, LockedFile
from armferry.stream import SavedCollector, SavedState, StreamParser, read_saved
from armferry.stream.save_image import (
    HEADER_BYTES,
    IMAGE_MAGIC_BYTES,
    SaveImage,
    is_save_image,
    read_header,
    read_image,
)

__all__ = ["Saved", "image_in", "saved_from", "saved_in", "take_image"]

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved state; `image` is the head of the libvirt save image around it, if any.

    Offsets of `state` count from the start of the file, or from the start of the stream where
    that is compressed.
    """

    state: SavedState
    image: SaveImage | None


def image_in(window: LockedFile) -> SaveImage | None:
    """The head of the save image in `window`; None for anything else. Raises StreamError."""
    start = window.read(0, HEADER_BYTES)
    if not is_save_image(start):
        return None
    header = read_header(start)
    return read_image(header, window.read(HEADER_BYTES, header.length))


def saved_in(window: FileWindow) -> Saved:
    """The saved state in a file.

    Raises UnreadableFile, StreamError, CompressionFault or MissingProgram.
    """
    image = image_in(window)
    if image is None:
        return Saved(read_saved(window), None)
    if image.header.compression.seekable:
        return Saved(read_saved(window, image.header.stream_offset), image)
    os.lseek(window.fileno(), 0, os.SEEK_SET)
    return saved_from(window.fileno())


def saved_from(source: int, first: bytes = b"") -> Saved:
    """The saved state that comes out of `source`, `first` before it; guest memory is walked.

    Raises UnreadableFile, StreamError, CompressionFault or MissingProgram.
    """
    image, first, origin = take_image(source, first)
    if image is None or image.header.compression.seekable:
        return Saved(_walk(source, first, origin), image)
    with decompressed(source, image.header.compression) as plain:
        return Saved(_walk(plain, b"", 0), image)


def take_image(source: int, first: bytes = b"") -> tuple[SaveImage | None, bytes, int]:
    """The head of the save image that comes out of `source`, if one does.

    Returns it, the bytes of the stream that were read with it, and the stream's offset.
    """
    start = _at_least(source, first, IMAGE_MAGIC_BYTES)
    if not is_save_image(start):
        return None, start, 0
    start = _at_least(source, start, HEADER_BYTES)
    header = read_header(start)
    body = _at_least(source, start, header.stream_offset)[HEADER_BYTES:]
    return read_image(header, body), b"", header.stream_offset


def _at_least(source: int, data: bytes, length: int) -> bytes:
    """`data` and what follows it, up to `length` bytes in all."""
    while len(data) < length and (more := _read(source, length - len(data))):
        data += more
    return data


def _walk(source: int, first: bytes, origin: int) -> SavedState:
    parser = StreamParser(origin=origin)
    collector = SavedCollector()
    size = origin
    data = first or _read(source, _CHUNK)
    while data:
        collector.take(parser.feed(data))
        size += len(data)
        data = _read(source, _CHUNK)
    collector.take(parser.close())
    return collector.saved(size)


def _read(source: int, length: int) -> bytes:
    try:
        return os.read(source, length)
    except OSError as error:
        raise UnreadableFile(f"the input cannot be read: {error.strerror}") from error
