"""A mapped-ram file turned into a plain stream: the same guest, page by page."""

from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.hosts.files.locked import FileWindow
from armferry.stream import CorruptStream, StreamParser, TruncatedStream, UnsupportedStream
from armferry.stream.events import Event, RamBlock, RamRecord, RamRecordKind
from armferry.stream.mapped import plain_stream
from armferry.stream.reading import Window, read_saved

LARGEST_PIECE = 2 << 20


def _events(pieces: list[bytes]) -> list[Event]:
    parser = StreamParser(ram_records=True)
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
    return events + parser.close()


def _present(window: Window, block: RamBlock) -> dict[int, bool]:
    """Address -> whether the page is in the file, by its bitmap, bit by bit."""
    assert block.page_size
    assert block.bitmap_offset is not None
    pages = block.length // block.page_size
    bitmap = window.read(block.bitmap_offset, (pages + 7) // 8)
    return {
        page * block.page_size: bool(bitmap[page // 8] & 1 << page % 8) for page in range(pages)
    }


def test_every_page_is_there_once_and_the_devices_are_as_they_were(mapped_ram_file: Path) -> None:
    with FileWindow(mapped_ram_file) as window:
        saved = read_saved(window)
        pieces = list(plain_stream(window))
        assert max(map(len, pieces)) <= LARGEST_PIECE
        plain = b"".join(pieces)
        events = _events(pieces)
        seen: dict[str, dict[int, bool]] = {block.name: {} for block in saved.blocks}
        for event in events:
            if isinstance(event, RamRecord) and event.kind is not RamRecordKind.END:
                assert event.address not in seen[event.block]
                there = event.kind is RamRecordKind.PAGE
                seen[event.block][event.address] = there
                if there:
                    block = next(one for one in saved.blocks if one.name == event.block)
                    assert block.pages_offset is not None
                    end = event.offset + event.length
                    content = window.read(block.pages_offset + event.address, 4096)
                    assert plain[end - 4096 : end] == content
        assert seen == {block.name: _present(window, block) for block in saved.blocks}
        assert any(any(block.values()) for block in seen.values())
        tail = window.read(saved.state_offset, window.size - saved.state_offset)
    assert plain.endswith(tail)


def test_the_result_names_no_mapped_ram(
    mapped_ram_file: Path, window_on: Callable[[bytes], Window]
) -> None:
    with FileWindow(mapped_ram_file) as window:
        original = read_saved(window)
        plain = read_saved(window_on(b"".join(plain_stream(window))))
    assert plain.configuration is not None
    assert plain.configuration.capabilities == ()
    assert plain.machine == original.machine
    assert [(one.name, one.length, one.pages_offset) for one in plain.blocks] == [
        (one.name, one.length, None) for one in original.blocks
    ]
    assert [one.payload for one in plain.sections] == [one.payload for one in original.sections]


def test_other_streams_are_refused(
    stream_named: Callable[[str], bytes], window_on: Callable[[bytes], Window]
) -> None:
    for name in ("virtio", "ignore-shared"):
        with pytest.raises(UnsupportedStream):
            next(plain_stream(window_on(stream_named(name))))


def test_damage_is_named(mapped_ram_file: Path, window_on: Callable[[bytes], Window]) -> None:
    with FileWindow(mapped_ram_file) as window:
        blocks = read_saved(window).blocks
        first = blocks[0]
        assert first.bitmap_offset is not None
        head = bytearray(window.read(0, first.bitmap_offset + 64))
    with pytest.raises(TruncatedStream) as caught:
        list(plain_stream(window_on(bytes(head))))
    assert "the stream ends before its guest memory" in str(caught.value)
    # the page size stands 24 bytes before the end of what the list says of a block
    at = head.index(first.name.encode()) + len(first.name) + 8 + 4
    head[at : at + 8] = bytes(8)
    with mapped_ram_file.open("rb") as file:
        whole = bytes(head) + file.read()[len(head) :]
    with pytest.raises(CorruptStream) as corrupt:
        list(plain_stream(window_on(whole)))
    assert f"memory block '{first.name}'" in str(corrupt.value)
    assert "pages of 0 bytes" in str(corrupt.value)
