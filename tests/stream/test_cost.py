"""What a peer can make the stream room work: counted, never timed.

Counted are the lines of the room that run, and the bytes that its searches and its JSON parser are
given. The bound is stated for each byte that came, whatever the bytes are and however they are cut.
"""

import json
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytest

from armferry.stream import StreamError, StreamParser, device_state, devices
from armferry.stream.description import parse_description
from armferry.stream.devices import cut_by_description
from armferry.stream.errors import CorruptStream, OversizedStream
from armferry.stream.reading import read_saved
from armferry.stream.saved_state import SavedCollector
from armferry.stream.section import find_bytes

Named = Callable[[str], bytes]

LINES_FOR_A_BYTE = 60
LINES_FOR_A_PIECE = 200
SEARCHED_FOR_A_BYTE = 6


@dataclass
class Work:
    """Lines of the room that ran; bytes that were searched or parsed by C code it calls."""

    lines: int = 0
    searched: int = 0


class CountingPattern:
    def __init__(self, pattern: re.Pattern[bytes], work: Work) -> None:
        self._pattern, self._work = pattern, work

    def finditer(self, held: bytes, begin: int) -> Iterator[re.Match[bytes]]:
        for found in self._pattern.finditer(held, begin):
            self._work.searched += found.end() - begin
            begin = found.end()
            yield found
        self._work.searched += len(held) - begin

    def match(self, held: bytes, begin: int, end: int) -> re.Match[bytes] | None:
        found = self._pattern.match(held, begin, end)
        self._work.searched += 0 if found is None else found.end() - begin
        return found


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    work = Work()

    def find(view: Any, wanted: bytes, begin: int) -> int:
        at = find_bytes(view, wanted, begin)
        work.searched += (len(view) if at < 0 else at) - begin
        return at

    def parse(text: bytes, offset: int) -> dict[str, Any]:
        work.searched += len(text)
        return parse_description(text, offset)

    def cut(state: Any, offset: int, layouts: Any) -> Any:
        sections = cut_by_description(state, offset, layouts)
        work.searched += len(state)
        return sections

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if "armferry/stream" not in frame.f_code.co_filename:
            return None
        work.lines += event == "line"
        return trace

    with monkeypatch.context() as patch:
        patch.setattr(devices, "find_bytes", find)
        patch.setattr(device_state, "parse_description", parse)
        patch.setattr(device_state, "cut_by_description", cut)
        patch.setattr(device_state, "_MARK", CountingPattern(device_state._MARK, work))
        patch.setattr(device_state, "_TEXT", CountingPattern(device_state._TEXT, work))
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield work
        finally:
            sys.settrace(before)


def be(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


HEAD = b"QEVM" + be(3) + b"\x07" + be(4) + b"virt"
RAM_START = b"\x01" + be(2) + b"\x03ram" + be(0, 4) + struct.pack(">Q", 4096 | 4)
RAM_START += b"\x03mem" + struct.pack(">QQ", 4096, 0x10) + b"\x7e" + be(2)
RAM_LAST = b"\x03" + be(2) + struct.pack(">Q", 0x10) + b"\x7e" + be(2)
MEMORY = HEAD + RAM_START + RAM_LAST
"""A guest without memory that matters; its device state may follow."""
SECTION = b"\x04" + be(9) + b"\x03foo" + be(0, 1)


def end_mark(text: bytes, claimed: int | None = None) -> bytes:
    return b"\x7e" + be(9) + b"\0\x06" + be(len(text) if claimed is None else claimed) + text


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


EMPTY = b'{"devices":[]}'
LONG = b'{"devices":[]' + b" " * 200 + b"}"
HOSTILE = {
    "ends that fit nothing": MEMORY + SECTION + end_mark(EMPTY) * 200,
    "ends that fit nothing behind much": MEMORY + SECTION + b"A" * 9_000 + end_mark(EMPTY) * 60,
    "ends that claim megabytes": MEMORY + SECTION + end_mark(b'{"', (4 << 20) - 9) * 200,
    "ends that claim what is text": MEMORY + SECTION + end_mark(LONG, 9_000) * 15 + b"A" * 9_000,
    "ends in the text of others": MEMORY + SECTION + (end_mark(LONG, 190) + b"\xff") * 20,
    "footers that end nothing": MEMORY + SECTION + (b"\x7e" + be(9) + b"\xff") * 700,
    "sections without number": MEMORY + (SECTION + b"\x7e" + be(9)) * 200,
    "an early section that never ends": HEAD + SECTION + b"A" * 4000,
    "an early section of false footers": HEAD + SECTION + (b"\x7e" + be(9) + b"\xff") * 500,
    "early sections without number": HEAD + (SECTION + b"\x7e" + be(9)) * 150,
    "capabilities": HEAD + b"\x05\x1aconfiguration/capabilities" + be(1, 64) + b"\xff" * 4000,
    "zeros that turn out to be none": MEMORY + SECTION + (bytes(200) + b"A") * 25,
    "a package that never comes": MEMORY + b"\x08\0\x07\0\x04" + be(200 << 20) + b"A" * 4000,
    "blocks of one byte": HEAD
    + RAM_START[:15]
    + struct.pack(">Q", (1 << 40) | 4)
    + (b"\x01m" + struct.pack(">Q", 1)) * 400,
}


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("name", HOSTILE)
def test_work_is_bounded_for_each_byte(
    name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = HOSTILE[name]
    parser = StreamParser()
    fed = count = 0
    with counted(monkeypatch) as work:
        try:
            for piece in pieces(data, size):
                fed += len(piece)
                count += 1
                parser.feed(piece)
                parser.settle()
        except StreamError:
            pass
    assert work.lines < LINES_FOR_A_BYTE * fed + LINES_FOR_A_PIECE * count + 1000
    assert work.searched < SEARCHED_FOR_A_BYTE * fed + 400 * count + 1000


@pytest.mark.parametrize("size", [1, 64])
def test_settling_over_and_over_costs_what_has_come_since(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = StreamParser()
    parser.feed(MEMORY + SECTION + b"A" * (1 << 20) + b"\x7e" + be(10))
    with counted(monkeypatch) as work:
        for _ in range(200):
            parser.feed(b"\1" * (size - 1) + b"\0")
            assert parser.settle() == []
    # the bytes held are searched once, not two hundred times
    assert work.searched < 2 * (1 << 20) + 200 * 300


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_settling_in_between_changes_no_event(stream_named: Named, size: int) -> None:
    """Where the state could be whole, it is; nothing that more bytes decide is decided before."""
    stream = stream_named("suppress-vmdesc")
    parser, whole = StreamParser(), StreamParser()
    expected = [*whole.feed(stream), *whole.close()]
    begin = next(event.offset for event in expected if type(event).__name__ == "DeviceStateBegins")
    events = parser.feed(stream[:begin])
    for piece in pieces(stream[begin:-1], size):
        events += parser.feed(piece)
        assert parser.settle() == []
    events += parser.feed(stream[-1:])
    events += parser.settle()
    assert [*events, *parser.close()] == expected


def cpu_payload(words: Iterable[int]) -> bytes:
    return bytes(8) + b"".join(struct.pack(">Q", word) for word in words)


def test_a_register_list_is_searched_in_one_pass(
    stream_named: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each eighth byte begins what looks like a list of thousands and ends badly."""
    from armferry.stream import cpu

    numbers = [number for number in range(0x0101, 0x1D00) if number & 0xFF]
    indexes = [(0x6030 << 48) | (number << 32) | 8000 for number in numbers]
    payload = cpu_payload([*indexes, 0]) + bytes(64_000)
    with counted(monkeypatch) as work:
        assert cpu._by_structure(payload) is None
    assert work.lines < 10 * len(payload)


def test_the_same_part_of_the_configuration_twice() -> None:
    part = b"\x05\x1econfiguration/target-page-bits" + be(1, 12)
    parser = StreamParser()
    with pytest.raises(CorruptStream) as caught:
        parser.feed(HEAD + part * 4000)
    assert str(caught.value) == (
        "the configuration has its part 'configuration/target-page-bits' twice "
        f"(at byte {len(HEAD) + len(part)})"
    )


def test_a_description_of_nothing_but_values() -> None:
    text = b'{"a": [' + b"[]," * 400_000 + b"0]}"
    with pytest.raises(OversizedStream) as caught:
        parse_description(text, 7)
    assert str(caught.value) == (
        f"the description has too many values for its {len(text)} bytes (at byte 7)"
    )


def with_description(stream: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    at = stream.rindex(b"\0\x06")
    document = json.loads(stream[at + 6 :])
    change(document)
    text = json.dumps(document).encode()
    return stream[: at + 2] + be(len(text)) + text


def read_both_ways(stream: bytes, window_on: Callable[[bytes], Any]) -> list[str]:
    """What a reader of both ends and one of a pipe say of `stream`."""
    said = []
    for read in (lambda: read_saved(window_on(stream)), lambda: _piped(stream)):
        with pytest.raises(StreamError) as caught:
            read()
        said.append(str(caught.value))
    return said


def _piped(stream: bytes) -> None:
    parser, collector = StreamParser(), SavedCollector()
    collector.take(parser.feed(stream))
    collector.take(parser.close())
    collector.saved(len(stream))


def test_a_device_described_twice(stream_named: Named, window_on: Callable[[bytes], Any]) -> None:
    """An early `cpu` without fields must not pass for the real one."""

    def add(document: dict[str, Any]) -> None:
        early = {"name": "cpu", "instance_id": 0, "version": 22}
        document["devices"].insert(0, early)

    stream = with_description(stream_named("tcg_11.1.3_virt-10.0_cortex-a57_1"), add)
    said = read_both_ways(stream, window_on)
    assert "the description has the same device twice" in said[0]
    assert "section 'cpu' instance 0" in said[0]


def test_the_same_vcpu_twice(stream_named: Named, window_on: Callable[[bytes], Any]) -> None:
    stream = stream_named("suppress-vmdesc")
    parser = StreamParser()
    events = [*parser.feed(stream), *parser.close()]
    one = next(e for e in events if getattr(e, "name", "") == "cpu")
    section = stream[one.offset : one.end + 5]  # type: ignore[union-attr]
    doubled = stream[: one.offset] + section + stream[one.offset :]
    for said in read_both_ways(doubled, window_on):
        assert said.startswith("the same vCPU comes twice (at byte ")


@pytest.mark.parametrize("extra", [0x1000, 0x7FFF_FFFF_F000])
def test_an_end_of_section_has_no_address(
    extra: int, stream_named: Named, window_on: Callable[[bytes], Any]
) -> None:
    """Of both readers, the one that walks memory must not take what the other refuses."""
    stream = stream_named("suppress-vmdesc")
    end = struct.pack(">Q", 0x10) + b"\x7e"
    at = stream.rindex(end)
    changed = stream[:at] + struct.pack(">Q", 0x10 | extra) + stream[at + 8 :]
    for said in read_both_ways(changed, window_on):
        assert said.startswith("a record of guest memory has the flags 0x10 (at byte ")


def test_marks_of_a_description_in_a_file_are_not_copied(
    window_on: Callable[[bytes], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three thousand places that say they reach to the end of the file."""
    count = 3_000
    tail = b"".join(b"\0\x06" + be(6 * (count - number - 1) + 1) for number in range(count)) + b"}"
    with counted(monkeypatch) as work, pytest.raises(StreamError):
        read_saved(window_on(MEMORY + SECTION + tail))
    assert work.lines < 40 * len(tail)
