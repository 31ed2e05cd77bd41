"""A saved state in a file, whatever holds it.

QEMU's own stream, bare or compressed, a libvirt save image, or an internal snapshot of a qcow2
image. A stream that lies in the file as QEMU wrote it is read from its two ends, on a volume,
where an older one may lie behind it, from its head; a compressed one is walked once from its head,
memory bounded.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from armferry.hosts.files.compression import (
    MAGIC_BYTES,
    Codec,
    codec_of,
    codec_of_image,
    decompressed,
    replayed,
)
from armferry.hosts.files.descriptor import UnreadableFile
from armferry.hosts.files.locked import FileWindow, LockedFile
from armferry.hosts.files.qcow2.format import Snapshot, is_qcow2
from armferry.hosts.files.qcow2.image import Image, NoSuchSnapshot
from armferry.hosts.files.qcow2.locks import lock_image
from armferry.hosts.files.qcow2.state import SnapshotState
from armferry.stream import (
    CorruptStream,
    SavedCollector,
    SavedState,
    StreamError,
    StreamParser,
    UnsupportedStream,
    read_saved,
)
from armferry.stream.save_image import (
    HEADER_BYTES,
    IMAGE_MAGIC_BYTES,
    SaveImage,
    is_save_image,
    read_header,
    read_image,
)

__all__ = [
    "Saved",
    "StreamHead",
    "head_in",
    "image_in",
    "machine_of",
    "opened_image",
    "saved_from",
    "saved_in",
    "saved_of_snapshot",
    "take_head",
]

_CHUNK = 1 << 20
_SECTOR = 512  # a volume has whole ones; of the sizes that streams have, one in 512
_HEAD = 4_096  # the machine type stands in the first hundred bytes


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved state and what is around it, if anything.

    `image` is the head of a libvirt save image, `codec` what compresses the stream (also the one
    in a save image), `snapshot` the entry of a qcow2 image. Offsets of `state` count from the start
    of the file, or from the start of the stream where that is compressed or a snapshot.
    """

    state: SavedState
    image: SaveImage | None = None
    codec: Codec | None = None
    snapshot: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class StreamHead:
    """What stands before a stream, and how the stream is stored.

    `first` are bytes of the stream itself that were read with it; `origin` is the offset of the
    stream's first byte, once it is decompressed.
    """

    image: SaveImage | None
    codec: Codec | None
    first: bytes
    origin: int

    @contextlib.contextmanager
    def plain(self, source: int) -> Iterator[tuple[int, bytes]]:
        """A descriptor of the stream's plain bytes, and those that come before it.

        Raises MissingProgram and CompressionFault.
        """
        if self.codec is None:
            yield source, self.first
            return
        with replayed(source, self.first) as packed, decompressed(packed, self.codec) as plain:
            yield plain, b""


def head_in(window: LockedFile) -> StreamHead:
    """What stands before the stream in `window`. Raises StreamError."""
    image = image_in(window)
    if image is not None:
        return _head_of(image)
    start = window.read(0, MAGIC_BYTES)
    return StreamHead(None, codec_of(start), b"", 0)


def image_in(window: LockedFile) -> SaveImage | None:
    """The head of the save image in `window`; None for anything else. Raises StreamError."""
    start = window.read(0, HEADER_BYTES)
    if not is_save_image(start):
        return None
    header = read_header(start)
    return read_image(header, window.read(HEADER_BYTES, header.length))


def opened_image(window: LockedFile, *, change: bool = False) -> Image | None:
    """The qcow2 image in `window`, locked as QEMU would; None for anything else.

    Raises StreamError, or ImageInUse where a QEMU has it open.
    """
    if not is_qcow2(window.read(0, HEADER_BYTES)):
        return None
    lock_image(window.fileno(), str(window.path), change=change)
    return Image(window)


def saved_of_snapshot(image: Image, name: str) -> Saved:
    """The saved state of the snapshot `name` of a qcow2 image, or of the only one.

    Raises StreamError or NoSuchSnapshot.
    """
    snapshot = image.find(name) if name else image.only_state(partial(_described, image))
    saved = read_saved(SnapshotState(image, snapshot))
    if saved.size != snapshot.state_size:
        raise CorruptStream(
            f"the snapshot {snapshot.name!r} is said to hold {snapshot.state_size} bytes of state, "
            f"and the stream in it ends after {saved.size}",
            offset=saved.size,
        )
    return Saved(saved, snapshot=snapshot)


def machine_of(image: Image, snapshot: Snapshot) -> str:
    """The machine type that a snapshot's state begins with; empty where it cannot be read."""
    try:
        state = SnapshotState(image, snapshot)
        collector = SavedCollector()
        collector.take(StreamParser().feed(state.read(0, _HEAD)))
    except StreamError:
        return ""
    return collector.configuration.machine if collector.configuration else ""


def _described(image: Image, snapshot: Snapshot) -> str:
    machine = machine_of(image, snapshot) or "unknown machine type"
    return f"{snapshot.name!r} ({snapshot.taken}, {snapshot.state_size:,} bytes, {machine})"


def saved_in(window: FileWindow, snapshot: str = "") -> Saved:
    """The saved state in a file; of a qcow2 image that of `snapshot`, or the only one.

    Raises UnreadableFile, StreamError, CompressionFault, MissingProgram, ImageInUse or
    NoSuchSnapshot.
    """
    image = opened_image(window)
    if image is not None:
        return saved_of_snapshot(image, snapshot)
    if snapshot:
        raise NoSuchSnapshot("this is no qcow2 image: there are no snapshots in it")
    head = head_in(window)
    if head.codec is None:
        volume = window.is_device or not window.size % _SECTOR
        return Saved(read_saved(window, head.origin, volume=volume), head.image)
    os.lseek(window.fileno(), 0, os.SEEK_SET)
    return saved_from(window.fileno())


def saved_from(source: int, first: bytes = b"") -> Saved:
    """The saved state that comes out of `source`, `first` before it; guest memory is walked.

    Raises UnreadableFile, StreamError, CompressionFault or MissingProgram.
    """
    head = take_head(source, first)
    with head.plain(source) as (plain, begun):
        return Saved(_walk(plain, begun, head.origin), head.image, head.codec)


def take_head(source: int, first: bytes = b"") -> StreamHead:
    """What stands before the stream that comes out of `source`, `first` before it.

    Raises UnreadableFile or StreamError.
    """
    start = _at_least(source, first, IMAGE_MAGIC_BYTES)
    if is_qcow2(start):
        raise UnsupportedStream(
            "a qcow2 image cannot be read as it passes",
            offset=0,
            advice="give the name of the file",
        )
    if not is_save_image(start):
        return StreamHead(None, codec_of(start), start, 0)
    start = _at_least(source, start, HEADER_BYTES)
    header = read_header(start)
    body = _at_least(source, start, header.stream_offset)[HEADER_BYTES:]
    return _head_of(read_image(header, body))


def _head_of(image: SaveImage) -> StreamHead:
    codec = codec_of_image(image.header.compression)
    return StreamHead(image, codec, b"", 0 if codec else image.header.stream_offset)


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
