"""A mapped-ram stream as a plain one, for a destination that is to get another device state.

With mapped-ram the pages lie at fixed offsets of a file and only what stands around them is a
stream; a plain stream carries them one after the other. What changes: the capability is no longer
named, the block list has no offsets, and a part of guest memory with every page is put after it.
Everything else comes out as it stands. Source of the format: QEMU's
docs/devel/migration/mapped-ram.rst and files of QEMU 10.0 and 11.1.

Memory stays bounded: pieces of about a megabyte. Reads a `Window`, never a file.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from armferry.stream.errors import CorruptStream, TruncatedStream, UnsupportedStream
from armferry.stream.events import (
    Configuration,
    Event,
    Footer,
    RamBlock,
    RamBlocks,
    SectionBegins,
)
from armferry.stream.parser import StreamParser
from armferry.stream.reading import Window
from armferry.stream.wire import BE32, BE64, MAGIC, STREAM_VERSION, RamFlag, SectionType

__all__ = ["MAPPED_RAM", "plain_stream"]

MAPPED_RAM = "mapped-ram"
"""The capability, as a stream's configuration names it."""

_IGNORE_SHARED = "x-ignore-shared"
_CAPABILITIES = "configuration/capabilities"
_HEAD_BYTES = 64 << 10
_PIECE = 1 << 20
_BITMAP_BYTES = 64 << 10
_ZEROS = 64 << 10  # records of pages that are not there, 9 bytes each, in one piece
_PAGE_AGAIN = int(RamFlag.PAGE | RamFlag.CONTINUE)  # plain numbers: one addition for each page
_ZERO_AGAIN = int(RamFlag.ZERO | RamFlag.CONTINUE)


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands before the pages; `end` is the offset after the block list's section."""

    configuration: Configuration
    start: SectionBegins
    blocks: RamBlocks
    end: int


def plain_stream(window: Window, origin: int = 0) -> Iterator[bytes]:
    """The stream that begins at `origin` of `window`, pages and all, in pieces.

    Raises UnsupportedStream when it is no mapped-ram stream, or one that leaves out memory that
    both sides share, and other StreamErrors for a damaged one.
    """
    head = _read_head(window, origin)
    capabilities = head.configuration.capabilities
    if MAPPED_RAM not in capabilities or _IGNORE_SHARED in capabilities:
        raise UnsupportedStream(
            f"no plain stream can be made of one with the capabilities {', '.join(capabilities)}",
            offset=head.configuration.offset,
        )
    yield MAGIC + BE32.pack(STREAM_VERSION) + _configuration(head.configuration)
    yield from _copied(window, _end_of(head.configuration), head.start.offset)
    yield from _copied(window, head.start.offset, head.blocks.offset)
    footer = bytes([SectionType.FOOTER]) + BE32.pack(head.start.id)
    yield _block_list(head.blocks) + BE64.pack(RamFlag.EOS) + footer
    yield bytes([SectionType.PART]) + BE32.pack(head.start.id)
    for block in head.blocks.blocks:
        yield from _pages(window, block)
    yield BE64.pack(RamFlag.EOS) + footer
    yield from _copied(window, head.end, window.size)


def _read_head(window: Window, origin: int) -> _Head:
    parser = StreamParser(origin=origin)
    configuration: Configuration | None = None
    start: SectionBegins | None = None
    blocks: RamBlocks | None = None
    offset = origin
    while offset < window.size:
        data = window.read(offset, _HEAD_BYTES)
        events: list[Event] = parser.feed(data)
        for event in events:
            match event:
                case Configuration():
                    configuration = event
                case SectionBegins() if start is None:
                    start = event
                case RamBlocks():
                    blocks = event
                case Footer() if blocks is not None and configuration is not None:
                    assert start is not None
                    return _Head(configuration, start, blocks, event.offset + 5)
        offset += len(data)
        length = min(parser.ahead, max(0, window.size - offset))
        parser.pass_over(length)
        offset += length
    raise TruncatedStream("the stream ends before its guest memory", offset=offset)


def _end_of(configuration: Configuration) -> int:
    parts = sum(6 + len(part.name) + len(part.payload) for part in configuration.subsections)
    return configuration.offset + 5 + len(configuration.machine) + parts


def _configuration(configuration: Configuration) -> bytes:
    """The section on the wire, mapped-ram no longer among its capabilities."""
    machine = configuration.machine.encode("ascii")
    wire = bytes([SectionType.CONFIGURATION]) + BE32.pack(len(machine)) + machine
    left = [name.encode() for name in configuration.capabilities if name != MAPPED_RAM]
    for part in configuration.subsections:
        payload = part.payload
        if part.name == _CAPABILITIES:
            if not left:
                continue
            payload = BE32.pack(len(left)) + b"".join(bytes([len(one)]) + one for one in left)
        name = part.name.encode("ascii")
        wire += bytes([SectionType.SUBSECTION, len(name)]) + name + BE32.pack(part.version)
        wire += payload
    return wire


def _block_list(blocks: RamBlocks) -> bytes:
    parts = [BE64.pack(blocks.total | RamFlag.MEM_SIZE)]
    for block in blocks.blocks:
        name = block.name.encode("ascii")
        parts.append(bytes([len(name)]) + name + BE64.pack(block.length))
    return b"".join(parts)


def _pages(window: Window, block: RamBlock) -> Iterator[bytes]:
    """Every page of `block` as a record; the first one names the block."""
    assert block.bitmap_offset is not None
    assert block.pages_offset is not None
    size = block.page_size
    if not size or size > _PIECE or block.length % size:
        raise CorruptStream(
            f"memory block '{block.name}' of {block.length} bytes has pages of {size} bytes",
            offset=block.bitmap_offset,
            section="ram",
        )
    name = block.name.encode("ascii")
    named = bytes([len(name)]) + name
    pages = block.length // size
    for first in range(0, pages, 8 * _BITMAP_BYTES):
        count = min(pages - first, 8 * _BITMAP_BYTES)
        at = block.bitmap_offset + first // 8
        bitmap = _exactly(window, at, (count + 7) // 8)
        for begin, end, present in _runs(bitmap, count, _PIECE // size):
            address = (first + begin) * size
            length = (end - begin) * size
            content = _exactly(window, block.pages_offset + address, length) if present else b""
            records = _records(address, length, size, content)
            if address == 0:
                word = BE64.pack(RamFlag.PAGE if present else RamFlag.ZERO)
                yield word + named + records[8:]
            else:
                yield records


def _runs(bitmap: bytes, count: int, longest: int) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, present) of pages that are alike, at most `longest` of those that are there.

    A page's bit is the lowest of its byte first.
    """
    begin = 0
    while begin < count:
        present = _bit(bitmap, begin)
        alike = 0xFF if present else 0
        limit = min(begin + (longest if present else _ZEROS), count)
        end = begin + 1
        while end < limit:
            if not end % 8 and bitmap[end // 8] == alike and end + 8 <= limit:
                end += 8
            elif _bit(bitmap, end) == present:
                end += 1
            else:
                break
        yield begin, end, present
        begin = end


def _bit(bitmap: bytes, number: int) -> bool:
    return bool(bitmap[number // 8] >> number % 8 & 1)


def _records(address: int, length: int, size: int, content: bytes) -> bytes:
    pack = BE64.pack
    end = address + length
    if not content:
        words = range(address + _ZERO_AGAIN, end + _ZERO_AGAIN, size)
        return b"\0".join(map(pack, words)) + b"\0"
    pages = memoryview(content)
    parts: list[bytes | memoryview] = []
    for at in range(0, length, size):
        parts += (pack(address + at + _PAGE_AGAIN), pages[at : at + size])
    return b"".join(parts)


def _copied(window: Window, begin: int, end: int) -> Iterator[bytes]:
    while begin < end:
        piece = _exactly(window, begin, min(_PIECE, end - begin))
        yield piece
        begin += len(piece)


def _exactly(window: Window, offset: int, length: int) -> bytes:
    data = window.read(offset, length)
    if len(data) < length:
        raise TruncatedStream(
            "the stream ends inside its guest memory",
            offset=offset + len(data),
            advice="save the guest again",
        )
    return data
