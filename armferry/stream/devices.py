"""The device state cut into sections: by the description, and by structure alone.

Knows section headers and footers; refuses to know what a payload means. By the description each
payload has an exact length. Without one, a payload ends where its own footer stands and
something that can follow a section comes next; that is a search, not a parse, so where both
ways exist their results are compared.

Rule of this file: no byte is searched twice, however the bytes came. A place that cannot be an
end is passed for good; one that more bytes could still decide is looked at again, and only the
last few hundred bytes have such places.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from armferry.stream.description import DeviceLayout
from armferry.stream.errors import CorruptStream, OversizedStream, TruncatedStream
from armferry.stream.events import DeviceSection
from armferry.stream.section import (
    FOOTER_LENGTH,
    HEADER_LENGTH,
    find_bytes,
    footer,
    is_proper_name,
    read_section_header,
    section_header_whole,
)
from armferry.stream.wire import BE16, MAX_SECTIONS, Buffer, Command, SectionType

__all__ = [
    "EarlySection",
    "SectionWalk",
    "cut_by_description",
    "cut_packaged",
    "has_no_end",
    "state_length",
]

_Bounds = tuple[DeviceSection, int, int, DeviceLayout | None]
"""A section without its payload, where that begins and ends, and what describes it."""


def state_length(layouts: tuple[DeviceLayout, ...]) -> int:
    """Bytes that sections with these layouts take, headers and footers included."""
    return sum(_section_length(layout) for layout in layouts)


def _section_length(layout: DeviceLayout) -> int:
    return HEADER_LENGTH + len(layout.name.encode()) + layout.state.length + FOOTER_LENGTH


def cut_by_description(
    state: Buffer, offset: int, layouts: tuple[DeviceLayout, ...]
) -> tuple[DeviceSection, ...]:
    """The sections of `state`, which lies at `offset` of the stream and ends with a footer.

    `layouts` are the description's. Devices saved before guest memory stand first in it and
    are not part of `state`; they are left out. Raises CorruptStream when the two disagree by
    one byte; nothing is copied before every section stands where it should.
    """
    first, length = len(layouts), 0
    while first and length < len(state):
        first -= 1
        length += _section_length(layouts[first])
    if length != len(state):
        raise CorruptStream(
            f"the description gives the device state {length} bytes, it has {len(state)}",
            offset=offset,
        )
    found = []
    position = 0
    for layout in layouts[first:]:
        bounds = _described(state, position, offset, layout)
        found.append(bounds)
        position = bounds[2] + FOOTER_LENGTH
    return _with_payloads(state, found)


def _described(state: Buffer, position: int, offset: int, layout: DeviceLayout) -> _Bounds:
    section = _header(state, position, offset)
    if section is None or (section.name, section.instance) != (layout.name, layout.instance):
        found = "none" if section is None else f"'{section.name}'"
        raise CorruptStream(
            f"the description puts a section '{layout.name}' here, found {found}",
            offset=offset + position,
            section=layout.name,
            instance=layout.instance,
        )
    # what is no vmstate has no version in the description
    if layout.version not in (0, section.version):
        raise CorruptStream(
            f"the section has version {section.version}, its description {layout.version}",
            offset=offset + position,
            section=layout.name,
            instance=layout.instance,
        )
    start = section.payload_offset - offset
    end = start + layout.state.length
    if state[end : end + FOOTER_LENGTH] != footer(section.id):
        raise CorruptStream(
            "the section does not end where the description says",
            offset=offset + end,
            section=layout.name,
            instance=layout.instance,
        )
    return section, start, end, layout


class SectionWalk:
    """Full sections one behind the other, cut by structure, in a buffer that grows.

    `offset` is that of the buffer's first byte in the stream; the first section begins at
    `position` of the buffer. Between two calls the buffer may only get longer.
    """

    def __init__(self, offset: int, position: int = 0) -> None:
        self._offset = offset
        self._position = position  # where the section begins whose end is looked for
        self._searched = 0
        self._found: list[_Bounds] = []

    def whole(self, state: Buffer) -> tuple[DeviceSection, ...] | None:
        """The sections, if `state` ends with an end mark right behind the last of them.

        Costs no more than what has come since the last call. Raises OversizedStream.
        """
        if not len(state) or state[-1] != SectionType.END:
            return None
        self._go_on(state, _can_follow)
        # what is found from here on counts only if nothing more comes
        rest = SectionWalk(self._offset, self._position)
        rest._searched = self._searched
        rest._go_on(state, _can_follow_at_last)
        if rest._position != len(state) - 1:
            return None
        return _with_payloads(state, (*self._found, *rest._found))

    def unfinished(self, state: Buffer) -> DeviceSection | None:
        """The section in which `state` ends, its payload left out; None between two."""
        return _header(state, self._position, self._offset)

    def packaged(self, state: Buffer) -> tuple[tuple[DeviceSection, ...], int]:
        """(sections, where they end) in `state`, which is whole and in which commands follow.

        Raises OversizedStream, TruncatedStream.
        """
        self._go_on(state, _can_follow_at_last)
        section = self.unfinished(state)
        if section is not None:
            raise has_no_end(section)
        return _with_payloads(state, self._found), self._position

    def _go_on(self, state: Buffer, follows: "_Follows") -> None:
        while (section := _header(state, self._position, self._offset)) is not None:
            start = section.payload_offset - self._offset
            begin = max(start, self._searched)
            end, decided = _find_end(state, begin, footer(section.id), follows)
            if not decided:
                self._searched = end
                return
            if len(self._found) == MAX_SECTIONS:
                raise OversizedStream(
                    f"the device state has more than {MAX_SECTIONS} sections",
                    offset=section.offset,
                )
            self._found.append((section, start, end, None))
            self._position = end + FOOTER_LENGTH
            self._searched = 0


def has_no_end(section: DeviceSection) -> TruncatedStream:
    """The error for a section that the stream ends in."""
    return TruncatedStream(
        "the section has no end",
        offset=section.offset,
        section=section.name,
        instance=section.instance,
        advice="save the guest again",
    )


def cut_packaged(packaged: bytes, offset: int) -> tuple[tuple[DeviceSection, ...], int, int]:
    """(sections, first byte, byte after the last) of the device state in a packaged stream.

    A packaged stream is commands, full sections, commands, with no end mark and no
    description. Raises CorruptStream, OversizedStream or TruncatedStream.
    """
    begin = _skip_commands(packaged, 0)
    sections, end = SectionWalk(offset, begin).packaged(packaged)
    rest = _skip_commands(packaged, end)
    if rest != len(packaged):
        raise TruncatedStream("the packaged stream ends inside a section", offset=offset + rest)
    return sections, begin, end


class EarlySection:
    """The full section at `offset` of the stream, before guest memory, while it comes in."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._searched = 0

    def find(self, view: Buffer, position: int) -> DeviceSection | None:
        """The section, which begins at `position` of `view`; None while its end is not there.

        Raises CorruptStream when it cannot be a section.
        """
        if not section_header_whole(view, position):
            return None
        base = self._offset - position
        section = _header(view, position, base)
        if section is None:
            raise CorruptStream("a device section has no proper name", offset=self._offset)
        start = section.payload_offset - base
        begin = max(start, position + self._searched)
        end, decided = _find_end(view, begin, footer(section.id), _early_can_follow)
        self._searched = end - position
        return _with_payload(view, (section, start, end, None)) if decided else None


_Follows = Callable[[Buffer, int], bool | None]
"""Whether what is at that place can follow a section; None while more bytes could decide it."""


def _find_end(state: Buffer, begin: int, mark: bytes, follows: _Follows) -> tuple[int, bool]:
    """(where a payload ends, True), or (where to search on when more has come, False).

    A payload ends where its `mark` stands with something behind it that can follow.
    """
    at = find_bytes(state, mark, begin)
    while at >= 0:
        verdict = follows(state, at + FOOTER_LENGTH)
        if verdict is not False:
            return at, verdict is True
        at = find_bytes(state, mark, at + 1)
    return max(begin, len(state) - FOOTER_LENGTH + 1), False


def _header(state: Buffer, position: int, offset: int) -> DeviceSection | None:
    """The full section whose header is at `position`, payload empty; None when it is none."""
    if (
        not section_header_whole(state, position)
        or state[position] != SectionType.FULL
        or not is_proper_name(state, position)
    ):
        return None
    return read_section_header(state, position, offset + position)


def _with_payloads(state: Buffer, found: Iterable[_Bounds]) -> tuple[DeviceSection, ...]:
    with memoryview(state) as view:
        return tuple(_with_payload(view, bounds) for bounds in found)


def _with_payload(view: Buffer, bounds: _Bounds) -> DeviceSection:
    section, start, end, layout = bounds
    return replace(section, payload=bytes(view[start:end]), layout=layout)


def _can_follow(state: Buffer, position: int) -> bool | None:
    """Whether what is at `position` can follow a section: an end mark, a section, a command."""
    if position >= len(state):
        return None
    kind = state[position]
    if kind == SectionType.END:
        return None if position == len(state) - 1 else False
    if kind == SectionType.FULL:
        return is_proper_name(state, position) if section_header_whole(state, position) else None
    if kind == SectionType.COMMAND:
        return _is_command(state, position) if len(state) >= position + 5 else None
    return False


def _can_follow_at_last(state: Buffer, position: int) -> bool:
    """The same, when nothing more comes."""
    if position == len(state) - 1 and state[position] == SectionType.END:
        return True
    return _can_follow(state, position) is True


def _early_can_follow(state: Buffer, position: int) -> bool | None:
    """Whether what is at `position` can follow an early section.

    Guest memory (its id is never beyond 8 bits), another device, a command.
    """
    if len(state) < position + 5:
        return None
    if state[position] in (SectionType.PART, SectionType.LAST):
        return state[position + 1 : position + 4] == bytes(3)
    if state[position] in (SectionType.FULL, SectionType.COMMAND):
        return _can_follow(state, position)
    return False


def _is_command(state: Buffer, position: int) -> bool:
    return BE16.unpack_from(state, position + 1)[0] in Command._value2member_map_


def _skip_commands(packaged: bytes, position: int) -> int:
    while len(packaged) >= position + 5 and packaged[position] == SectionType.COMMAND:
        position += 5 + BE16.unpack_from(packaged, position + 3)[0]
    return position
