"""A block of guest memory left out of a stream."""

import lzma
from pathlib import Path

import pytest

from armferry.hosts.files.locked import FileWindow
from armferry.stream import StreamParser, UnsupportedStream, read_saved
from armferry.stream.events import Event, RamBlocks, RamRecord, RamRecordKind
from armferry.stream.left_out import Cut, cuts_of

CASE = Path(__file__).parents[1] / "cli" / "cases" / "ram-mte-tag" / "mte.a.xz"
TAGS = frozenset({"mach-virt.tag"})


def events_of(data: bytes) -> list[Event]:
    parser = StreamParser(ram_records=True)
    return [*parser.feed(data), *parser.close()]


def cut(data: bytes, cuts: list[Cut]) -> bytes:
    made, at = bytearray(), 0
    for one in cuts:
        assert one.offset >= at  # in order, and none twice
        made += data[at : one.offset] + one.instead
        at = one.offset + one.length
    return bytes(made + data[at:])


def test_stream_without_its_memory_tags_is_the_same_in_all_else() -> None:
    data = lzma.decompress(CASE.read_bytes())
    before = events_of(data)
    after = events_of(cut(data, list(cuts_of(before, TAGS))))
    (here,), (there,) = ([e for e in one if isinstance(e, RamBlocks)] for one in (before, after))
    assert there.total == here.total - (2 << 20)
    assert there.blocks == tuple(one for one in here.blocks if one.name not in TAGS)
    here_pages, there_pages = (
        [
            (e.kind, e.block, e.address)
            for e in one
            if isinstance(e, RamRecord) and e.kind in (RamRecordKind.ZERO, RamRecordKind.PAGE)
        ]
        for one in (before, after)
    )
    assert there_pages == [one for one in here_pages if one[1] not in TAGS]
    assert len(here_pages) - len(there_pages) == 512


def test_block_that_holds_something_stays() -> None:
    events = events_of(lzma.decompress(CASE.read_bytes()))
    touched = [
        RamRecord(e.offset, RamRecordKind.PAGE, e.address, e.block, e.length)
        if isinstance(e, RamRecord) and e.block in TAGS and e.address == 0x1000
        else e
        for e in events
    ]
    with pytest.raises(UnsupportedStream, match=r"mach-virt\.tag holds something at 0x1000"):
        list(cuts_of(touched, TAGS))


def test_block_that_is_not_there() -> None:
    events = events_of(lzma.decompress(CASE.read_bytes()))
    with pytest.raises(UnsupportedStream, match=r"there is no memory block none\.tag in it"):
        list(cuts_of(events, frozenset({"none.tag"})))


def test_pages_at_fixed_offsets_cannot_be_cut_out(mapped_ram_file: Path) -> None:
    with FileWindow(mapped_ram_file) as window:
        blocks = read_saved(window).blocks
    listed = RamBlocks(200, sum(one.length for one in blocks), blocks)
    with pytest.raises(UnsupportedStream) as caught:
        list(cuts_of([listed], frozenset({"virt.flash0"})))
    assert str(caught.value) == (
        "its pages lie at fixed offsets (mapped-ram) (at byte 200, section 'ram'); "
        "save the guest without mapped-ram to leave a memory block out"
    )
