"""The header and the footer of a section that says its name: start and full sections.

Knows their few bytes; refuses to know what lies between the two.
"""

import re

from armferry.stream.events import DeviceSection
from armferry.stream.wire import BE32, Buffer, SectionType

__all__ = [
    "FOOTER_LENGTH",
    "HEADER_LENGTH",
    "find_bytes",
    "footer",
    "is_proper_name",
    "read_section_header",
    "section_header_whole",
]

HEADER_LENGTH = 1 + 4 + 1 + 4 + 4
"""Bytes of a header beside the section's name."""
FOOTER_LENGTH = 1 + 4
_NAME_LENGTH_AT = 5


def section_header_whole(view: Buffer, position: int) -> bool:
    """Whether all of the header at `position` is in `view`."""
    return (
        len(view) > position + _NAME_LENGTH_AT
        and len(view) >= position + HEADER_LENGTH + view[position + _NAME_LENGTH_AT]
    )


def read_section_header(view: Buffer, position: int, offset: int) -> DeviceSection:
    """The section whose whole header is at `position`, `offset` of the stream; payload empty."""
    length = view[position + _NAME_LENGTH_AT]
    end = position + HEADER_LENGTH + length
    name = bytes(view[position + _NAME_LENGTH_AT + 1 : end - 8])
    return DeviceSection(
        offset=offset,
        id=BE32.unpack_from(view, position + 1)[0],
        name=name.decode("ascii", "backslashreplace"),
        instance=BE32.unpack_from(view, end - 8)[0],
        version=BE32.unpack_from(view, end - 4)[0],
        payload_offset=offset + HEADER_LENGTH + length,
        payload=b"",
        layout=None,
    )


def is_proper_name(view: Buffer, position: int) -> bool:
    """Whether the header at `position` has a name as devices have: printable and not empty."""
    length = view[position + _NAME_LENGTH_AT]
    begin = position + _NAME_LENGTH_AT + 1
    name = bytes(view[begin : begin + length])
    return bool(length) and name.isascii() and name.decode("ascii").isprintable()


def footer(number: int) -> bytes:
    """The end mark of the section with that id."""
    return bytes([SectionType.FOOTER]) + BE32.pack(number)


def find_bytes(view: Buffer, wanted: bytes, begin: int) -> int:
    """Where `wanted` stands next in `view`, from `begin` on; -1 when nowhere. Copies nothing."""
    if isinstance(view, memoryview):  # which cannot search
        found = re.compile(re.escape(wanted)).search(view, begin)
        return -1 if found is None else found.start()
    return view.find(wanted, begin)
