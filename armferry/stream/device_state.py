"""The device state while it is still coming in.

Nothing says beforehand how long it is, so everything from the first full section on is held
until it is whole. Two things can say so: the description that follows the end mark, when it
accounts for every byte held before it (`add`), or, where there is none, the structure of the
sections themselves, asked for when nothing more comes (`settle`, `close`).

Rule of this file: a device's payload is partly the guest's to write, so it may hold anything
that looks like the end. Looking for the end costs time linear in the bytes that came, whatever
they are and however they are cut: each byte is searched once for a mark and once for what is no
text, and the texts that are read never overlap, for a mark is itself no text. Zeros are counted,
not held, until something follows them: a file that was cut off often ends in a long hole.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from armferry.stream.description import layouts_of, parse_description
from armferry.stream.devices import SectionWalk, cut_by_description, has_no_end
from armferry.stream.errors import CorruptStream, OversizedStream, StreamError, TruncatedStream
from armferry.stream.events import DeviceSection
from armferry.stream.section import FOOTER_LENGTH
from armferry.stream.wire import MAX_DESCRIPTION, MAX_DEVICE_STATE, Buffer, SectionType

__all__ = ["DeviceStateBuffer", "WholeDeviceState"]

_MARK = re.compile(rb"\x7e(?=.{4}\x00\x06(.{4})\{ ?\")", re.DOTALL)
"""A footer, the end mark, and the type, length and first bytes of a description.

QEMU 5.2 puts a space behind every bracket, newer ones do not.
"""
_MARK_LENGTH = 14
_TEXT_AHEAD = 6
"""From the end mark to the text of the description."""
_TEXT = re.compile(rb"[ -~\t\r\n]*")
_END = bytes([SectionType.END])
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
    """Holds the device state that begins at `offset` of the stream.

    With `more_behind`, bytes may follow the description: they are none of the stream's.
    """

    def __init__(self, offset: int, *, more_behind: bool = False) -> None:
        self._offset = offset
        self._more_behind = more_behind
        self._held = bytearray()
        self._zeros = 0  # that follow what is held
        self._searched = 0
        self._end: int | None = None  # of the state, if the text that comes now describes it
        self._read = 0  # how far that text has been seen to be text
        self._text_end = 0
        self._walk = SectionWalk(offset)

    def __len__(self) -> int:
        return len(self._held) + self._zeros

    def add(self, data: Buffer) -> WholeDeviceState | None:
        """Holds `data`; the device state when a description that fits it has come whole.

        Raises CorruptStream when bytes follow that description and may not, OversizedStream when
        too much comes without one.
        """
        if len(self) + len(data) > MAX_DEVICE_STATE + MAX_DESCRIPTION:
            raise OversizedStream(
                f"the device state is longer than {MAX_DEVICE_STATE} bytes", offset=self._offset
            )
        if not any(data[:1]) and bytes(data).count(0) == len(data):
            self._zeros += len(data)
            return None
        self._hold_zeros()
        self._held += data
        return self._search()

    def settle(self) -> WholeDeviceState | None:
        """The device state, if what is held could be all of it, without a description."""
        if self._in_a_hole():
            return None
        self._hold_zeros()
        sections = self._walk.whole(self._held)
        if sections is None:
            return None
        return WholeDeviceState(sections, self._offset + len(self._held) - 1, None, None)

    def close(self) -> WholeDeviceState:
        """The device state of a stream that ends here without a description.

        Raises OversizedStream or TruncatedStream.
        """
        whole = self.settle()
        if whole is not None:
            return whole
        section = self._walk.unfinished(self._held)
        if section is not None and self._held[-1:] == _END and not self._in_a_hole():
            raise has_no_end(section)
        raise TruncatedStream(
            "the stream ends inside the device state",
            offset=self._offset + len(self),
            advice="save the guest again",
        )

    def _in_a_hole(self) -> bool:
        many = len(_TOO_MANY_ZEROS)
        return (self._held[-many:] + bytes(min(self._zeros, many))).endswith(_TOO_MANY_ZEROS)

    def _hold_zeros(self) -> None:
        self._held += bytes(self._zeros)
        self._zeros = 0

    def _search(self) -> WholeDeviceState | None:
        """Looks at what has come for a mark and for the end of the text behind one."""
        while self._end is not None or self._next_mark():
            assert self._end is not None
            run = _TEXT.match(self._held, self._read, min(self._text_end, len(self._held)))
            assert run is not None
            self._read = run.end()
            if self._read == self._text_end:
                whole = self._try(self._end, self._text_end)
                behind = self._text_end < len(self._held)
                if whole is not None and behind and not self._more_behind:
                    raise CorruptStream(
                        "bytes follow the end of the stream", offset=self._offset + self._text_end
                    )
                if whole is not None:
                    return whole
            elif self._read == len(self._held):
                return None
            self._end = None
        return None

    def _next_mark(self) -> bool:
        """Finds the next place that could be the end; its text is then read from `_read` on."""
        for match in _MARK.finditer(self._held, self._searched):
            length = int.from_bytes(match.group(1), "big")
            if length <= MAX_DESCRIPTION:
                self._searched = match.start() + 1
                self._end = match.start() + FOOTER_LENGTH
                self._read = self._end + _TEXT_AHEAD
                self._text_end = self._read + length
                return True
        self._searched = max(self._searched, len(self._held) - _MARK_LENGTH + 1)
        return False

    def _try(self, end: int, text_end: int) -> WholeDeviceState | None:
        """The sections before `end`, if the description from there to `text_end` fits them."""
        at = self._offset + end + 1
        text = bytes(self._held[end + _TEXT_AHEAD : text_end])
        try:
            document = parse_description(text, at)
            layouts = layouts_of(document, at)
            with memoryview(self._held) as held, held[:end] as state:
                sections = cut_by_description(state, self._offset, layouts)
        except StreamError:
            return None  # this was not the end; a later mark or `close` says what is wrong
        return WholeDeviceState(sections, self._offset + end, text, document)
