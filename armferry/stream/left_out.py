"""A block of guest memory left out of a stream: what to cut, and what to write in its place.

For a block in which every page is zero: a destination that has no such block then loses nothing by
not getting it. A page record that follows a cut one names its own block, for QEMU names a block
whenever it is another than that of the record before.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from armferry.stream.errors import UnsupportedStream
from armferry.stream.events import Event, RamBlock, RamBlocks, RamRecord, RamRecordKind
from armferry.stream.wire import BE64, RamFlag

__all__ = ["Cut", "cuts_of"]

_PAGES = (
    RamRecordKind.ZERO,
    RamRecordKind.PAGE,
    RamRecordKind.XBZRLE,
    RamRecordKind.COMPRESSED,
)


@dataclass(frozen=True, slots=True)
class Cut:
    """`length` bytes at `offset` of the stream, and the `instead` that takes their place.

    `filler` says that the last of the bytes is what every byte of a page holds: it must be 0.
    """

    offset: int
    length: int
    instead: bytes = b""
    filler: bool = False


def cuts_of(events: Iterable[Event], names: frozenset[str]) -> Iterator[Cut]:
    """What leaving out the blocks of these `names` takes, in the order of the stream.

    `events` are those of a parser with records. Raises UnsupportedStream for a block that holds
    something, or a stream whose pages do not lie in its records.
    """
    for event in events:
        match event:
            case RamBlocks():
                yield from _listed(event, names)
            case RamRecord(block=block, kind=kind) if block in names and kind in _PAGES:
                if kind is not RamRecordKind.ZERO:
                    raise UnsupportedStream(
                        f"memory block {block} holds something at {event.address:#x}",
                        offset=event.offset,
                        section="ram",
                        advice="it cannot be left out without loss",
                    )
                yield Cut(event.offset, event.length, filler=True)


def _listed(event: RamBlocks, names: frozenset[str]) -> Iterator[Cut]:
    gone = [block for block in event.blocks if block.name in names]
    missing = names - {block.name for block in gone}
    if missing:
        raise UnsupportedStream(
            f"there is no memory block {', '.join(sorted(missing))} in it",
            offset=event.offset,
            section="ram",
        )
    if any(block.pages_offset is not None for block in event.blocks):
        raise UnsupportedStream(
            "its pages lie at fixed offsets (mapped-ram)",
            offset=event.offset,
            section="ram",
            advice="save the guest without mapped-ram to leave a memory block out",
        )
    total = event.total - sum(block.length for block in gone)
    yield Cut(event.offset, 8, BE64.pack(total | RamFlag.MEM_SIZE))
    at = event.offset + 8
    for block in event.blocks:
        length = _entry_length(block)
        if block.name in names:
            yield Cut(at, length)
        at += length


def _entry_length(block: RamBlock) -> int:
    """Bytes of a block in the list: its name behind a length, then words."""
    words = 1 + (block.page_size is not None) + (block.address is not None)
    return 1 + len(block.name) + 8 * words
