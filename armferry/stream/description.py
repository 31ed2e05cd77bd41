"""The JSON description at the end of a stream: the layout of every device section.

Knows what QEMU says of fields and subsections and how many bytes they take. Refuses to know
what any field means. QEMU measures `size` while it writes, so the sum of a device's fields and
subsections is the length of its payload to the byte; a compressed array has one entry with
`array_len`. Specified by what scripts/analyze-migration.py of QEMU reads.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from armferry.stream.errors import CorruptStream, OversizedStream
from armferry.stream.wire import MAX_DESCRIPTION, MAX_DEVICE_STATE, MAX_NESTING

__all__ = [
    "SUBSECTION_HEADER",
    "DeviceLayout",
    "FieldLayout",
    "StructLayout",
    "layouts_of",
    "parse_description",
]

SUBSECTION_HEADER = 6
"""Bytes of a subsection's header beside its name: type, name length, be32 version."""

_ALLOWANCE = 64 << 10
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
# a string that never ends is taken to the end at once: searching it again from each quote inside
# would take quadratic time
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """One field: `count` elements of `size` bytes; `struct` for a nested structure."""

    name: str
    type: str
    size: int
    count: int
    struct: "StructLayout | None" = None

    @property
    def length(self) -> int:
        """Bytes on the wire."""
        return self.size * self.count


@dataclass(frozen=True, slots=True)
class StructLayout:
    """A vmstate: the device itself, a subsection, or a structure inside."""

    name: str
    version: int
    fields: tuple[FieldLayout, ...]
    subsections: tuple["StructLayout", ...]

    @property
    def fields_length(self) -> int:
        """Bytes of the fields alone; subsections of the same structure follow them."""
        return sum(field.length for field in self.fields)

    @property
    def length(self) -> int:
        """Bytes on the wire, subsections and their headers included."""
        return self.fields_length + sum(
            SUBSECTION_HEADER + len(part.name.encode()) + part.length for part in self.subsections
        )


@dataclass(frozen=True, slots=True)
class DeviceLayout:
    """One device section: its name and instance on the wire, and its vmstate."""

    name: str
    instance: int
    version: int
    state: StructLayout


def parse_description(text: bytes, offset: int) -> dict[str, Any]:
    """The JSON object in `text`, which lies at `offset` of the stream.

    Raises OversizedStream (too long, too deep) or CorruptStream (not JSON, not an object).
    """
    if len(text) > MAX_DESCRIPTION:
        raise OversizedStream(
            f"the description is {len(text)} bytes long, more than {MAX_DESCRIPTION}",
            offset=offset,
        )
    # each takes memory of its own; what QEMU writes has 45 bytes for a bracket, 19 for a comma
    allowed = len(text) + _ALLOWANCE
    if 16 * (text.count(b"[") + text.count(b"{")) > allowed or 8 * text.count(b",") > allowed:
        raise OversizedStream(
            f"the description has too many values for its {len(text)} bytes", offset=offset
        )
    if _depth(text) > MAX_NESTING:
        raise OversizedStream(f"the description nests deeper than {MAX_NESTING}", offset=offset)
    try:
        # QEMU writes ASCII; UTF-16, which json would detect by itself, hides brackets from above
        document = json.loads(text.decode("utf-8"))
    except ValueError as error:
        raise CorruptStream(f"the description is not JSON: {error}", offset=offset) from None
    if not isinstance(document, dict):
        raise CorruptStream("the description is not a JSON object", offset=offset)
    return document


def _depth(text: bytes) -> int:
    """How deep the brackets of `text` nest; at most one more than MAX_NESTING is counted."""
    if b"\\" in text:
        return _depth_token_by_token(text)
    # without escapes, every other piece between quotes is a string
    brackets = b"".join(text.split(b'"')[::2]).translate(None, _NO_BRACKETS)
    depth = 0
    while brackets and depth <= MAX_NESTING:
        inside = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if inside == brackets:
            return _depth_token_by_token(text)
        brackets = inside
        depth += 1
    return depth


def _depth_token_by_token(text: bytes) -> int:
    """The same, slowly, for a text with escapes or with brackets that do not match."""
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        byte = token.group()[0]
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def layouts_of(document: Mapping[str, Any], offset: int) -> tuple[DeviceLayout, ...]:
    """The devices of a description, in the order of their sections in the stream.

    Raises CorruptStream when the document lacks what QEMU always writes.
    """
    devices = document.get("devices")
    if not isinstance(devices, list):
        raise CorruptStream("the description has no list of devices", offset=offset)
    layouts = tuple(_device(entry, offset) for entry in devices)
    seen: set[tuple[str, int]] = set()
    for layout in layouts:
        if (layout.name, layout.instance) in seen:
            raise CorruptStream(
                "the description has the same device twice",
                offset=offset,
                section=layout.name,
                instance=layout.instance,
            )
        seen.add((layout.name, layout.instance))
    return layouts


def _device(entry: Any, offset: int) -> DeviceLayout:
    try:
        return DeviceLayout(
            name=_text(entry["name"]),
            instance=_number(entry["instance_id"], 1 << 32),
            # a device that is no vmstate ("data" of a given size) has no version of its own
            version=_number(entry.get("version", 0), 1 << 32),
            state=_structure(entry, _text(entry.get("vmsd_name", entry["name"])), offset),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptStream(
            f"the description of a device is malformed: {error!r}", offset=offset
        ) from None


def _structure(entry: Any, name: str, offset: int) -> StructLayout:
    # parse_description bounds the depth, so this recursion is bounded by MAX_NESTING
    layout = StructLayout(
        name=name,
        version=_number(entry.get("version", 0), 1 << 32),
        fields=tuple(_field(field, offset) for field in entry.get("fields", ())),
        subsections=tuple(
            _structure(part, _text(part["vmsd_name"]), offset)
            for part in entry.get("subsections", ())
        ),
    )
    if layout.length > MAX_DEVICE_STATE:
        raise OversizedStream(
            f"the description gives '{name}' {layout.length} bytes, more than {MAX_DEVICE_STATE}",
            offset=offset,
        )
    return layout


def _field(entry: Any, offset: int) -> FieldLayout:
    # a field that occurs zero times is listed with its number of elements and no bytes
    size = _number(entry["size"], 1 << 32)
    struct = entry.get("struct")
    return FieldLayout(
        name=_text(entry["name"]),
        type=_text(entry.get("type", "")),
        size=size,
        count=_number(entry.get("array_len", 1), 1 << 32),
        struct=None
        if struct is None
        else _structure(struct, _text(struct.get("vmsd_name", "")), offset),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii():
        raise TypeError(f"{value!r} is no name")
    return value


def _number(value: Any, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise ValueError(f"{value!r} is no number from 0 to {limit - 1}")
    return value
