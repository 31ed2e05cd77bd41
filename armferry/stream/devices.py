"""The device state cut into sections: by the description, and by structure alone.

Knows section headers and footers; refuses to know what a payload means. By the description each
payload has an exact length. Without one, a payload ends where its own footer stands and
something that can follow a section comes next; that is a search, not a parse, so where both
ways exist their results are compared.
"""

from dataclasses import replace

from armferry.stream.description import DeviceLayout
from armferry.stream.errors import CorruptStream, TruncatedStream
from armferry.stream.events import DeviceSection
from armferry.stream.section import (
    FOOTER_LENGTH,
    HEADER_LENGTH,
    footer,
    is_proper_name,
    read_section_header,
    section_header_whole,
)
from armferry.stream.wire import BE16, Buffer, Command, SectionType

__all__ = [
    "cut_by_description",
    "cut_by_structure",
    "cut_packaged",
    "find_early_section",
    "state_length",
]


def state_length(layouts: tuple[DeviceLayout, ...]) -> int:
    """Bytes that sections with these layouts take, headers and footers included."""
    return sum(_section_length(layout) for layout in layouts)


def _section_length(layout: DeviceLayout) -> int:
    return HEADER_LENGTH + len(layout.name.encode()) + layout.state.length + FOOTER_LENGTH


def cut_by_description(
    state: bytes, offset: int, layouts: tuple[DeviceLayout, ...]
) -> tuple[DeviceSection, ...]:
    """The sections of `state`, which lies at `offset` of the stream and ends with a footer.

    `layouts` are the description's. Devices saved before guest memory stand first in it and
    are not part of `state`; they are left out. Raises CorruptStream when the two disagree by
    one byte.
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
    sections = []
    position = 0
    for layout in layouts[first:]:
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
        sections.append(_with_payload(section, state[start:end], layout))
        position = end + FOOTER_LENGTH
    return tuple(sections)


def cut_by_structure(
    state: bytes, offset: int, *, strict: bool
) -> tuple[DeviceSection, ...] | None:
    """The sections of `state`, whose last byte must be the end mark.

    None when it is not whole. With `strict` a section that cannot be is a CorruptStream
    instead of None.
    """
    if not state or state[-1] != SectionType.END:
        return None
    sections, position = _cut(state, 0, offset, strict)
    return sections if position == len(state) - 1 else None


def cut_packaged(packaged: bytes, offset: int) -> tuple[tuple[DeviceSection, ...], int, int]:
    """(sections, first byte, byte after the last) of the device state in a packaged stream.

    A packaged stream is commands, full sections, commands, with no end mark and no
    description. Raises CorruptStream or TruncatedStream.
    """
    position = begin = _skip_commands(packaged, 0)
    sections, position = _cut(packaged, position, offset, strict=True)
    rest = _skip_commands(packaged, position)
    if rest != len(packaged):
        raise TruncatedStream("the packaged stream ends inside a section", offset=offset + rest)
    return sections, begin, position


def find_early_section(view: Buffer, position: int, offset: int) -> DeviceSection | None:
    """The full section at `position`, which lies at `offset` and before guest memory.

    None while its end is not in `view`. Raises CorruptStream when it cannot be a section.
    """
    state = bytes(view[position:])
    if not section_header_whole(state, 0):
        return None
    section = _header(state, 0, offset)
    if section is None:
        raise CorruptStream("a device section has no proper name", offset=offset)
    start = section.payload_offset - offset
    mark = footer(section.id)
    end = state.find(mark, start)
    while end >= 0:
        follows = _early_can_follow(state, end + FOOTER_LENGTH)
        if follows is None:
            return None
        if follows:
            return _with_payload(section, state[start:end], None)
        end = state.find(mark, end + 1)
    return None


def _cut(
    state: bytes, position: int, offset: int, strict: bool
) -> tuple[tuple[DeviceSection, ...], int]:
    sections = []
    while position < len(state) and state[position] == SectionType.FULL:
        section = _header(state, position, offset)
        if section is None:
            break
        start = section.payload_offset - offset
        end = _find_end(state, start, section.id)
        if end is None:
            if strict:
                raise TruncatedStream(
                    "the section has no end",
                    offset=section.offset,
                    section=section.name,
                    instance=section.instance,
                    advice="save the guest again",
                )
            break
        sections.append(_with_payload(section, state[start:end], None))
        position = end + FOOTER_LENGTH
    return tuple(sections), position


def _header(state: bytes, position: int, offset: int) -> DeviceSection | None:
    """The full section whose header is at `position`, payload empty; None when it is none."""
    if (
        not section_header_whole(state, position)
        or state[position] != SectionType.FULL
        or not is_proper_name(state, position)
    ):
        return None
    return read_section_header(state, position, offset + position)


def _with_payload(
    section: DeviceSection, payload: bytes, layout: DeviceLayout | None
) -> DeviceSection:
    return replace(section, payload=payload, layout=layout)


def _find_end(state: bytes, start: int, number: int) -> int | None:
    """Where the payload that begins at `start` ends: its footer, something valid behind it."""
    mark = footer(number)
    end = state.find(mark, start)
    while end >= 0:
        if _can_follow(state, end + FOOTER_LENGTH):
            return end
        end = state.find(mark, end + 1)
    return None


def _can_follow(state: bytes, position: int) -> bool:
    if position >= len(state):
        return False
    kind = state[position]
    if kind == SectionType.END:
        return position == len(state) - 1
    if kind == SectionType.FULL:
        return _header(state, position, 0) is not None
    if kind == SectionType.COMMAND and len(state) >= position + 5:
        return BE16.unpack_from(state, position + 1)[0] in Command._value2member_map_
    return False


def _early_can_follow(state: bytes, position: int) -> bool | None:
    """Whether what is at `position` can follow an early section; None while that is open.

    Guest memory (its id is never beyond 8 bits), another device, a command.
    """
    if len(state) < position + 5:
        return None
    kind = state[position]
    if kind in (SectionType.PART, SectionType.LAST):
        return state[position + 1 : position + 4] == bytes(3)
    if kind == SectionType.FULL:
        if len(state) < position + 6 or len(state) < position + HEADER_LENGTH + state[position + 5]:
            return None
        return _header(state, position, 0) is not None
    if kind == SectionType.COMMAND:
        return BE16.unpack_from(state, position + 1)[0] in Command._value2member_map_
    return False


def _skip_commands(packaged: bytes, position: int) -> int:
    while len(packaged) >= position + 5 and packaged[position] == SectionType.COMMAND:
        position += 5 + BE16.unpack_from(packaged, position + 3)[0]
    return position
