"""The device state while it is still coming in.

Nothing says beforehand how long it is, so everything from the first full section on is held
until it is whole. Two things can say so: the description that follows the end mark, when it
accounts for every byte held before it (`add`), or, where there is none, the structure of the
sections themselves, asked for when nothing more comes (`settle`, `close`).

Rule of this file: a device's payload is partly the guest's to write, so it may hold anything
that looks like the end. Looking for the end costs time linear in the bytes held, whatever they
are and however they are cut. Zeros are counted, not held, until something follows them: a file
that was cut off often ends in a long hole.
"""

import heapq
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from armferry.stream.description import layouts_of, parse_description
from armferry.stream.devices import cut_by_description, cut_by_structure
from armferry.stream.errors import CorruptStream, OversizedStream, StreamError, TruncatedStream
from armferry.stream.events import DeviceSection
from armferry.stream.section import FOOTER_LENGTH
from armferry.stream.wire import MAX_DESCRIPTION, MAX_DEVICE_STATE, Buffer

__all__ = ["DeviceStateBuffer", "WholeDeviceState"]

_MARK = re.compile(rb"\x7e(?=.{4}\x00\x06(.{4})\{ ?\")", re.DOTALL)
"""A footer, the end mark, and the type, length and first bytes of a description.

QEMU 5.2 puts a space behind every bracket, newer ones do not.
"""
_MARK_LENGTH = 14
_TEXT_AHEAD = 6
"""From the end mark to the text of the description."""
_TEXT = re.compile(rb"[ -~\t\r\n]*")
_MAX_MARKS = 4_096
_TOO_MANY_ZEROS = bytes(6)
"""No whole state ends so: the end mark follows a footer, of which four bytes can be zero."""


@dataclass(frozen=True, slots=True)
class WholeDeviceState:
    """The device state cut up. `end_offset` is that of the end mark.

    `text` is the description as it came and `document` what it says; both None without one.
    """

    sections: tuple[DeviceSection, ...]
    end_offset: int
    text: bytes | None
    document: Mapping[str, Any] | None


class DeviceStateBuffer:
    """Holds the device state that begins at `offset` of the stream."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._held = bytearray()
        self._zeros = 0  # that follow what is held
        self._searched = 0
        self._marks: list[tuple[int, int]] = []  # (end of the text, end mark), a heap

    def __len__(self) -> int:
        return len(self._held) + self._zeros

    def add(self, data: Buffer) -> WholeDeviceState | None:
        """Holds `data`; the device state when a description that fits it has come whole.

        Raises CorruptStream when bytes follow that description, OversizedStream when too much
        comes without one.
        """
        if len(self) + len(data) > MAX_DEVICE_STATE + MAX_DESCRIPTION:
            raise OversizedStream(
                f"the device state is longer than {MAX_DEVICE_STATE} bytes", offset=self._offset
            )
        if bytes(data).count(0) == len(data):
            self._zeros += len(data)
            return None
        self._hold_zeros()
        self._held += data
        self._find_marks()
        while self._marks and self._marks[0][0] <= len(self._held):
            text_end, end = heapq.heappop(self._marks)
            whole = self._try_mark(end, text_end)
            if whole is None:
                continue
            if text_end < len(self._held):
                raise CorruptStream(
                    "bytes follow the end of the stream", offset=self._offset + text_end
                )
            return whole
        return None

    def settle(self) -> WholeDeviceState | None:
        """The device state, if what is held could be all of it, without a description."""
        return self._cut(strict=False)

    def close(self) -> WholeDeviceState:
        """The device state of a stream that ends here without a description.

        Raises CorruptStream or TruncatedStream.
        """
        whole = self._cut(strict=True)
        if whole is None:
            raise TruncatedStream(
                "the stream ends inside the device state",
                offset=self._offset + len(self),
                advice="save the guest again",
            )
        return whole

    def _hold_zeros(self) -> None:
        self._held += bytes(self._zeros)
        self._zeros = 0

    def _cut(self, *, strict: bool) -> WholeDeviceState | None:
        many = len(_TOO_MANY_ZEROS)
        last = self._held[-many:] + bytes(min(self._zeros, many))
        if last.endswith(_TOO_MANY_ZEROS):
            return None
        self._hold_zeros()
        sections = cut_by_structure(bytes(self._held), self._offset, strict=strict)
        if sections is None:
            return None
        return WholeDeviceState(sections, self._offset + len(self._held) - 1, None, None)

    def _find_marks(self) -> None:
        """Queues every place that could be the end, by where its description would end."""
        for match in _MARK.finditer(self._held, self._searched):
            length = int.from_bytes(match.group(1), "big")
            if length > MAX_DESCRIPTION:
                continue
            if len(self._marks) == _MAX_MARKS:
                raise CorruptStream(
                    f"the device state has {_MAX_MARKS} places that look like its end",
                    offset=self._offset + match.start(),
                )
            end = match.start() + FOOTER_LENGTH
            heapq.heappush(self._marks, (end + _TEXT_AHEAD + length, end))
            self._searched = match.start() + 1
        self._searched = max(self._searched, len(self._held) - _MARK_LENGTH + 1)

    def _try_mark(self, end: int, text_end: int) -> WholeDeviceState | None:
        """The sections before `end`, if a description from there to `text_end` fits them."""
        start = end + _TEXT_AHEAD
        run = _TEXT.match(self._held, start, text_end)
        if run is None or run.end() < text_end:
            return None
        text = bytes(self._held[start:text_end])
        try:
            document = parse_description(text, self._offset + end + 1)
            layouts = layouts_of(document, self._offset + end + 1)
            sections = cut_by_description(bytes(self._held[:end]), self._offset, layouts)
        except StreamError:
            return None  # this was not the end; a later mark or `close` says what is wrong
        return WholeDeviceState(sections, self._offset + end, text, document)
