"""Subsections of any device's section: where they stand in its bytes, and the section without some.

The description says the layout; every subsection that it names is looked for where it must begin.
A subsection may belong to the device or to a structure inside it, one for each element.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from armferry.stream.description import SUBSECTION_HEADER, StructLayout
from armferry.stream.errors import CorruptStream
from armferry.stream.events import DeviceSection
from armferry.stream.wire import SectionType

__all__ = ["PlacedSubsection", "described_without", "payload_without", "subsections_of"]


@dataclass(frozen=True, slots=True)
class PlacedSubsection:
    """One subsection: `begin` and `end` are offsets in the payload, header included.

    `content` is what it holds, without subsections of its own being taken apart.
    """

    name: str
    begin: int
    end: int
    content: bytes


def subsections_of(section: DeviceSection) -> tuple[PlacedSubsection, ...]:
    """Every subsection of a section, at any depth, in the order of the stream.

    Empty for a section without a description. Raises CorruptStream.
    """
    if section.layout is None:
        return ()
    return tuple(_walk(section, section.layout.state, 0))


def payload_without(section: DeviceSection, names: Set[str]) -> bytes:
    """The section's payload without its subsections called `names`. Raises CorruptStream."""
    kept = []
    at = 0
    for part in subsections_of(section):
        if part.name in names and part.begin >= at:
            kept.append(section.payload[at : part.begin])
            at = part.end
    return b"".join((*kept, section.payload[at:]))


def described_without(struct: Mapping[str, Any], names: Set[str]) -> dict[str, Any]:
    """What the description says of a device, or of a structure in it, without `names`."""
    new = dict(struct)
    new["fields"] = [_field_without(field, names) for field in struct["fields"]]
    if "subsections" in struct:
        parts = [part for part in struct["subsections"] if part["vmsd_name"] not in names]
        new["subsections"] = [described_without(part, names) for part in parts]
        if not parts:
            del new["subsections"]
    return new


def _field_without(field: Mapping[str, Any], names: Set[str]) -> Mapping[str, Any]:
    if "struct" not in field:
        return field
    struct = described_without(field["struct"], names)
    shorter = _described_length(field["struct"]) - _described_length(struct)
    return {**field, "size": field["size"] - shorter, "struct": struct} if shorter else field


def _described_length(struct: Mapping[str, Any]) -> int:
    length = sum(int(field["size"]) * int(field.get("array_len", 1)) for field in struct["fields"])
    for part in struct.get("subsections", ()):
        length += SUBSECTION_HEADER + len(part["vmsd_name"]) + _described_length(part)
    return length


def _walk(section: DeviceSection, struct: StructLayout, at: int) -> Iterator[PlacedSubsection]:
    """The subsections of a structure that begins at `at`."""
    for field in struct.fields:
        if field.struct is None or not _has_subsections(field.struct):
            at += field.length
            continue
        for _ in range(field.count):
            yield from _walk(section, field.struct, at)
            at += field.size
    for part in struct.subsections:
        begin = at
        name = part.name.encode()
        expected = bytes([SectionType.SUBSECTION, len(name)]) + name
        if not section.payload.startswith(expected, begin):
            raise CorruptStream(
                f"no subsection '{part.name}' begins where one is expected",
                offset=section.payload_offset + begin,
                section=section.name,
                instance=section.instance,
            )
        content = begin + SUBSECTION_HEADER + len(name)
        at = content + part.length
        yield PlacedSubsection(part.name, begin, at, section.payload[content:at])
        yield from _walk(section, part, content)


def _has_subsections(struct: StructLayout) -> bool:
    return bool(struct.subsections) or any(
        field.struct is not None and _has_subsections(field.struct) for field in struct.fields
    )
