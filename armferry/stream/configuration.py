"""The configuration section: machine type, page size, capabilities, UUID.

Its subsections have no length on the wire, so each known one is laid out here and an unknown
one is refused by name. Source: the streams themselves and QEMU's vmstate_configuration.
"""

from armferry.stream.errors import CorruptStream, OversizedStream, UnsupportedStream
from armferry.stream.events import Configuration, Subsection
from armferry.stream.wire import (
    BE32,
    MAX_MACHINE_NAME,
    MAX_PAGE_BITS,
    MIN_PAGE_BITS,
    Buffer,
    SectionType,
)

__all__ = ["read_configuration"]

_PAGE_BITS = "configuration/target-page-bits"
_CAPABILITIES = "configuration/capabilities"
_UUID = "configuration/uuid"
_UUID_LENGTH = 16
_MAX_CAPABILITIES = 64
_DEFAULT_PAGE_BITS = 12


def read_configuration(
    view: Buffer, position: int, offset: int
) -> tuple[int, Configuration] | None:
    """(bytes, configuration) at `position`, which lies at `offset` of the stream.

    None while it is not whole, which needs the byte that follows it.
    Raises CorruptStream, OversizedStream or UnsupportedStream.
    """
    base = offset - position
    if len(view) < position + 5:
        return None
    length = BE32.unpack_from(view, position + 1)[0]
    if not 0 < length <= MAX_MACHINE_NAME:
        raise OversizedStream(f"the machine type's name is {length} bytes long", offset=offset + 1)
    start = position + 5
    end = start + length
    if len(view) < end:
        return None
    name = bytes(view[start:end])
    if not name.isascii() or not name.decode("ascii").isprintable():
        raise CorruptStream(f"{name!r} is no machine type", offset=base + start)
    page_bits = _DEFAULT_PAGE_BITS
    capabilities: tuple[str, ...] = ()
    subsections: list[Subsection] = []
    while True:
        if len(view) <= end:
            return None
        if view[end] != SectionType.SUBSECTION:
            break
        part = _subsection(view, end, base)
        if part is None:
            return None
        if part.name == _PAGE_BITS:
            page_bits = BE32.unpack(part.payload)[0]
            if not MIN_PAGE_BITS <= page_bits <= MAX_PAGE_BITS:
                raise CorruptStream(f"pages of 2^{page_bits} bytes", offset=part.offset)
        elif part.name == _CAPABILITIES:
            capabilities = _capabilities(part.payload)
        subsections.append(part)
        end += 6 + len(part.name) + len(part.payload)
    return end - position, Configuration(
        offset, name.decode("ascii"), 1 << page_bits, capabilities, tuple(subsections)
    )


def _subsection(view: Buffer, position: int, base: int) -> Subsection | None:
    if len(view) < position + 2:
        return None
    payload_at = position + 2 + view[position + 1] + 4
    if len(view) < payload_at:
        return None
    name = bytes(view[position + 2 : payload_at - 4]).decode("ascii", "backslashreplace")
    if name == _PAGE_BITS:
        length: int | None = 4
    elif name == _UUID:
        length = _UUID_LENGTH
    elif name == _CAPABILITIES:
        length = _capabilities_length(view, payload_at, base)
    else:
        raise UnsupportedStream(
            f"the configuration has a part '{name}' that armferry does not know",
            offset=base + position,
        )
    if length is None or len(view) < payload_at + length:
        return None
    return Subsection(
        base + position,
        name,
        BE32.unpack_from(view, payload_at - 4)[0],
        bytes(view[payload_at : payload_at + length]),
    )


def _capabilities_length(view: Buffer, position: int, base: int) -> int | None:
    """be32 count, then each: u8 length and name."""
    if len(view) < position + 4:
        return None
    count = BE32.unpack_from(view, position)[0]
    if count > _MAX_CAPABILITIES:
        raise OversizedStream(f"{count} capabilities are listed", offset=base + position)
    end = position + 4
    for _ in range(count):
        if len(view) <= end:
            return None
        end += 1 + view[end]
    return end - position


def _capabilities(payload: bytes) -> tuple[str, ...]:
    names = []
    position = 4
    while position < len(payload):
        end = position + 1 + payload[position]
        names.append(payload[position + 1 : end].decode("ascii", "backslashreplace"))
        position = end
    return tuple(names)
