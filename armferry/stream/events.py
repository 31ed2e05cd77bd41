"""What the parser says it has seen.

Every event carries `offset`, the position of its first byte in the stream. Payloads of pages
are never part of an event: a caller that forwards the stream has the bytes already.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from armferry.stream.description import DeviceLayout

__all__ = [
    "CommandSeen",
    "Configuration",
    "Description",
    "DeviceSection",
    "DeviceStateBegins",
    "EndOfStream",
    "Event",
    "Footer",
    "Header",
    "RamBlock",
    "RamBlocks",
    "RamRecord",
    "RamRecordKind",
    "SectionBegins",
    "Subsection",
]


@dataclass(frozen=True, slots=True)
class Header:
    """`QEVM` and the version, 8 bytes."""

    offset: int
    version: int


@dataclass(frozen=True, slots=True)
class Subsection:
    """A named, versioned part of a section; `payload` is what follows its header."""

    offset: int
    name: str
    version: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Configuration:
    """The machine type and what both sides must agree on before anything else.

    `page_size` is the unit of the RAM records in bytes. `capabilities` are those that QEMU
    wants equal on both sides (x-ignore-shared, mapped-ram).
    """

    offset: int
    machine: str
    page_size: int
    capabilities: tuple[str, ...]
    subsections: tuple[Subsection, ...]


@dataclass(frozen=True, slots=True)
class SectionBegins:
    """Start, part or last section of an iterable device (guest memory)."""

    offset: int
    kind: int
    id: int
    name: str
    instance: int
    version: int


@dataclass(frozen=True, slots=True)
class RamBlock:
    """One block of guest memory, as the start section lists it; sizes in bytes.

    `page_size` is sent for blocks on huge pages when postcopy is possible, `address` with
    x-ignore-shared; the last three only with mapped-ram (offsets in the file).
    """

    name: str
    length: int
    page_size: int | None = None
    address: int | None = None
    bitmap_offset: int | None = None
    pages_offset: int | None = None


@dataclass(frozen=True, slots=True)
class RamBlocks:
    """The block list; `total` is the sum of their lengths in bytes."""

    offset: int
    total: int
    blocks: tuple[RamBlock, ...]


class RamRecordKind(enum.Enum):
    """One record of guest memory."""

    ZERO = "zero page"
    PAGE = "page"
    XBZRLE = "xbzrle"
    COMPRESSED = "compressed page"
    MULTIFD_FLUSH = "multifd flush"
    END = "end of section"


@dataclass(frozen=True, slots=True)
class RamRecord:
    """A RAM record, only reported when asked for. `address` is within `block`, in bytes."""

    offset: int
    kind: RamRecordKind
    address: int
    block: str
    length: int
    """Bytes of the record in the stream, header included."""


@dataclass(frozen=True, slots=True)
class CommandSeen:
    """A command section. `payload` of a PACKAGED command is the whole packaged stream."""

    offset: int
    command: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class DeviceStateBegins:
    """The first byte of the device state is next; nothing of it has a length."""

    offset: int


@dataclass(frozen=True, slots=True)
class DeviceSection:
    """A full section: one device's state.

    `offset` is that of the section's first byte, `payload_offset` of its payload. `layout` is
    what the description says of it, None without one.
    """

    offset: int
    id: int
    name: str
    instance: int
    version: int
    payload_offset: int
    payload: bytes
    layout: DeviceLayout | None

    @property
    def end(self) -> int:
        """Offset just after the payload, where the footer begins."""
        return self.payload_offset + len(self.payload)


@dataclass(frozen=True, slots=True)
class Footer:
    """The end mark of a section, with its id."""

    offset: int
    id: int


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """The end mark; only a description may follow."""

    offset: int


@dataclass(frozen=True, slots=True)
class Description:
    """The JSON that describes the devices' layout. `text` is as it came."""

    offset: int
    text: bytes
    document: Mapping[str, Any]


Event = (
    Header
    | Configuration
    | SectionBegins
    | RamBlocks
    | RamRecord
    | CommandSeen
    | DeviceStateBegins
    | DeviceSection
    | Footer
    | EndOfStream
    | Description
)
