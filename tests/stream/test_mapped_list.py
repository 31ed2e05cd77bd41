"""A small mapped-ram stream, byte by byte: what its block list says and what may be wrong in it."""

import struct
from collections.abc import Callable

import pytest

from armferry.stream import CorruptStream, StreamError, StreamParser, TruncatedStream, Window
from armferry.stream.events import Configuration, Event, RamBlock, RamBlocks, RamRecord
from armferry.stream.mapped import plain_stream

PAGE = 4096
PAGES = 0x2000
BITMAP = 0x1000
CONTENT = b"first".ljust(PAGE, b"\1") + bytes(PAGE) + b"third".ljust(PAGE, b"\3")
WindowOn = Callable[[bytes], Window]


def stream(*, bitmap: int = BITMAP, pages: int = PAGES, others: tuple[bytes, ...] = ()) -> bytes:
    """Three pages, the second of which is not there."""
    names = (b"mapped-ram", *others)
    listed = struct.pack(">I", len(names)) + b"".join(bytes([len(one)]) + one for one in names)
    part = b"configuration/capabilities"
    head = (
        b"QEVM\0\0\0\3\7\0\0\0\4virt\5" + bytes([len(part)]) + part + b"\0\0\0\1" + listed
        + b"\1\0\0\0\1\3ram\0\0\0\0\0\0\0\4"
        + struct.pack(">Q", len(CONTENT) | 4) + b"\1m" + struct.pack(">Q", len(CONTENT))
        + struct.pack(">IQQQ", 1, PAGE, bitmap, pages)
    )  # fmt: skip
    head = head.ljust(BITMAP, b"\0") + b"\5"
    end = struct.pack(">Q", 0x10) + b"\x7e\0\0\0\1" + b"\0"
    return head.ljust(PAGES, b"\0") + CONTENT + end


def parsed(pieces: list[bytes]) -> list[Event]:
    parser = StreamParser(ram_records=True)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.close()


def test_byte_by_byte_it_says_the_same() -> None:
    data = stream()
    events = parsed([data])
    assert parsed([data[at : at + 1] for at in range(len(data))]) == events
    (blocks,) = [event for event in events if isinstance(event, RamBlocks)]
    assert blocks.blocks == (RamBlock("m", len(CONTENT), PAGE, None, BITMAP, PAGES),)


@pytest.mark.parametrize("others", [(), (b"events",), (b"events", b"multifd")])
def test_only_its_own_capability_leaves_it(others: tuple[bytes, ...], window_on: WindowOn) -> None:
    plain = b"".join(plain_stream(window_on(stream(others=others))))
    events = parsed([plain])
    (configuration,) = [event for event in events if isinstance(event, Configuration)]
    assert configuration.capabilities == tuple(one.decode() for one in others)
    pages = {
        event.address: plain[event.offset : event.offset + event.length]
        for event in events
        if isinstance(event, RamRecord) and event.block == "m" and event.length > 8
    }
    assert pages[0].endswith(CONTENT[:PAGE])
    assert pages[PAGE].endswith(b"\0")
    assert pages[2 * PAGE].endswith(CONTENT[2 * PAGE :])
    assert [len(one) for one in pages.values()] == [8 + 2 + PAGE, 9, 8 + PAGE]


@pytest.mark.parametrize("pages", [0, 8, 100, 1 << 51])
def test_pages_that_lie_where_none_can(pages: int) -> None:
    with pytest.raises(CorruptStream) as caught:
        StreamParser().feed(stream(pages=pages))
    assert str(caught.value).startswith(f"the pages of 'm' lie at {pages:#x} (at byte ")


def test_a_bitmap_that_lies_beyond_the_end(window_on: WindowOn) -> None:
    with pytest.raises(StreamError) as caught:
        list(plain_stream(window_on(stream(bitmap=1 << 40))))
    assert isinstance(caught.value, TruncatedStream)
    assert str(caught.value) == (
        f"the stream ends inside its guest memory (at byte {1 << 40}); save the guest again"
    )
