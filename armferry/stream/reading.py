"""A saved state read from both ends of a file.

Guest memory lies between the two and is never read here: the description at the end of the
stream says how long the device state is, so it is found from the end backwards. Knows bytes at
offsets (`Window`), not files. A stream without a description, and one that other bytes follow, is
walked from its head instead.
"""

import re
from collections.abc import Iterator
from typing import Any, Protocol

from armferry.stream.description import DeviceLayout, layouts_of, parse_description
from armferry.stream.devices import cut_by_description, state_length
from armferry.stream.errors import CorruptStream, TruncatedStream
from armferry.stream.parser import StreamParser
from armferry.stream.saved_state import SavedCollector, SavedState, cpus_of
from armferry.stream.wire import MAX_DESCRIPTION, MAX_DEVICE_STATE, SectionType

__all__ = ["Window", "read_saved"]

_HEAD_BYTES = 64 << 10
_TAIL_BYTES = 64 << 10
_MAX_HEAD_BYTES = 4 << 20
_MAX_TAIL_BYTES = MAX_DESCRIPTION + 6
_WALK_BYTES = 1 << 20
_END_OF_MEMORY = re.compile(rb"\0{7}\x10\x7e.{4}(?:\x08\0.\0(?:\0|\x04.{4}))*\Z", re.DOTALL)
"""What stands before the device state: guest memory's last record and footer, then commands."""
_BEFORE_STATE = 256
_END = re.compile(rb"\x7e.{4}\0", re.DOTALL)
"""What a stream without a description ends with: its last section's footer and the end mark."""
_END_LENGTH = 6
_HELD_UNSEEN = 16 << 20
"""Bytes of device state that are read, and held, without a look at how they end."""


class Window(Protocol):
    """Bytes that can be read at any offset."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer only at the end."""


def read_saved(window: Window, origin: int = 0, *, volume: bool = False) -> SavedState:
    """The saved state in `window`, whose stream begins at `origin`. Raises StreamError.

    Every offset of the result counts from the start of the window, as those that QEMU writes
    into a mapped-ram stream do. A `volume` may hold an older state behind the stream: what stands
    at its end says nothing.
    """
    if volume:
        return _walk(window, origin)
    head = _read_head(window, origin)
    tail = _find_description(window, origin)
    if tail is None:
        return _walk(window, origin)
    document, text, end = tail
    layouts = layouts_of(document, end + 1)
    length = _late_length(window, layouts, end)
    begin = end - length
    sections = cut_by_description(window.read(begin, length), begin, layouts)
    return SavedState(
        head.configuration,
        head.blocks,
        sections,
        cpus_of(sections, begin),
        begin,
        end,
        document,
        text,
        window.size,
    )


def _read_head(window: Window, origin: int) -> SavedCollector:
    """What stands before guest memory; a stream that ends sooner is told apart later."""
    head = SavedCollector()
    parser = StreamParser(origin=origin)
    offset, read = origin, 0
    while not head.blocks and head.begin < 0 and read < _MAX_HEAD_BYTES:
        data = window.read(offset, _HEAD_BYTES)
        if not data:
            break
        head.take(parser.feed(data))
        read += len(data)
        offset = _after_pages(parser, offset + len(data), window.size)
    if parser.offset == origin:
        parser.close()
    return head


def _after_pages(parser: StreamParser, offset: int, size: int) -> int:
    """Where to read on: content of pages is passed over, in a mapped-ram file all of it."""
    length = min(parser.ahead, max(0, size - offset))
    parser.pass_over(length)
    return offset + length


def _find_description(window: Window, origin: int) -> tuple[dict[str, Any], bytes, int] | None:
    """(document, its text, offset of the end mark before it), None when there is none."""
    length = _TAIL_BYTES
    while True:
        length = min(length, window.size - origin, _MAX_TAIL_BYTES)
        begin = window.size - length
        tail = window.read(begin, length)
        for at in _description_marks(tail):
            if tail.startswith(b"{", at + 6):
                text = tail[at + 6 :]
                document = parse_description(text, begin + at + 1)
                if "devices" in document:
                    return document, text, begin + at
        if length in (window.size - origin, _MAX_TAIL_BYTES) or not tail.endswith(b"}"):
            return None
        length *= 4


def _description_marks(tail: bytes) -> Iterator[int]:
    """Where an end mark and a description that ends exactly at the end could stand."""
    end = bytes([SectionType.END, SectionType.DESCRIPTION])
    at = tail.rfind(end)
    while at >= 0:
        if int.from_bytes(tail[at + 2 : at + 6], "big") == len(tail) - at - 6:
            yield at
        at = tail.rfind(end, 0, at + 1)


def _late_length(window: Window, layouts: tuple[DeviceLayout, ...], end: int) -> int:
    """Bytes of the device state that ends at `end`: every device but those saved early."""
    length = 0
    for layout in reversed(layouts):
        step = state_length((layout,))
        begin = end - length - step
        name = layout.name.encode()
        if begin < 0 or window.read(begin, 6 + len(name)) != (
            bytes([SectionType.FULL]) + window.read(begin + 1, 4) + bytes([len(name)]) + name
        ):
            break
        length += step
    # a section that the description does not fit would otherwise pass for one saved early, and a
    # vCPU in it for none
    before = window.read(max(0, end - length - _BEFORE_STATE), min(_BEFORE_STATE, end - length))
    if not length or not _END_OF_MEMORY.search(before):
        raise CorruptStream(
            "the description does not match the device state before it", offset=end - length
        )
    if length > MAX_DEVICE_STATE:
        raise CorruptStream(f"the device state takes {length} bytes", offset=end - length)
    return length


def _walk(window: Window, origin: int) -> SavedState:
    """The saved state of a stream whose end is not that of the window, guest memory walked."""
    collector = SavedCollector()
    parser = StreamParser(origin=origin, more_behind=True)
    offset = origin
    while not parser.done and (data := window.read(offset, _WALK_BYTES)):
        collector.take(parser.feed(data))
        if parser.in_device_state and parser.held > _HELD_UNSEEN:
            _require_end(window)
        offset = _after_pages(parser, offset + len(data), window.size)
    collector.take(parser.close())
    return collector.saved(parser.offset)


def _require_end(window: Window) -> None:
    """Raises TruncatedStream when `window`, which ends with no description, has no end mark."""
    if not _END.fullmatch(window.read(window.size - _END_LENGTH, _END_LENGTH)):
        raise TruncatedStream(
            "neither an end mark nor a description stands at the end",
            offset=window.size,
            advice="save the guest again",
        )
