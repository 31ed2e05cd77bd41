"""The configuration section: machine type, page size, capabilities, UUID.

Its subsections have no length on the wire, so each known one is laid out here and an unknown
one is refused by name. Rule of this file: a part that has been read is never read again, and
each name comes once. Source: the streams themselves and QEMU's vmstate_configuration.
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

__all__ = ["ConfigurationReader"]

_PAGE_BITS = "configuration/target-page-bits"
_CAPABILITIES = "configuration/capabilities"
_UUID = "configuration/uuid"
_UUID_LENGTH = 16
_MAX_CAPABILITIES = 64
_DEFAULT_PAGE_BITS = 12


class ConfigurationReader:
    """Reads the configuration that begins at `offset` of the stream, one part after the other."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._machine: str | None = None
        self._page_bits = _DEFAULT_PAGE_BITS
        self._capabilities: tuple[str, ...] = ()
        self._parts: list[Subsection] = []
        self._ended = False

    @property
    def whole(self) -> Configuration | None:
        """The configuration, once the byte that follows it has come."""
        if self._machine is None or not self._ended:
            return None
        return Configuration(
            self._offset,
            self._machine,
            1 << self._page_bits,
            self._capabilities,
            tuple(self._parts),
        )

    def read(self, view: Buffer, position: int, base: int) -> int | None:
        """Reads the part at `position`; returns where it ends, None while it is not whole.

        At least its first byte has come; `base` is the stream offset of `view[0]`. Raises
        CorruptStream, OversizedStream or UnsupportedStream.
        """
        if self._machine is None:
            return self._read_machine(view, position)
        if view[position] != SectionType.SUBSECTION:
            self._ended = True
            return position
        part = _subsection(view, position, base)
        if part is None:
            return None
        if any(part.name == known.name for known in self._parts):
            raise CorruptStream(
                f"the configuration has its part '{part.name}' twice", offset=part.offset
            )
        if part.name == _PAGE_BITS:
            self._page_bits = BE32.unpack(part.payload)[0]
            if not MIN_PAGE_BITS <= self._page_bits <= MAX_PAGE_BITS:
                raise CorruptStream(f"pages of 2^{self._page_bits} bytes", offset=part.offset)
        elif part.name == _CAPABILITIES:
            self._capabilities = _capabilities(part.payload)
        self._parts.append(part)
        return position + 6 + len(part.name) + len(part.payload)

    def _read_machine(self, view: Buffer, position: int) -> int | None:
        if len(view) < position + 5:
            return None
        length = BE32.unpack_from(view, position + 1)[0]
        if not 0 < length <= MAX_MACHINE_NAME:
            raise OversizedStream(
                f"the machine type's name is {length} bytes long", offset=self._offset + 1
            )
        start = position + 5
        end: int = start + length
        if len(view) < end:
            return None
        name = bytes(view[start:end])
        if not name.isascii() or not name.decode("ascii").isprintable():
            raise CorruptStream(f"{name!r} is no machine type", offset=self._offset + 5)
        self._machine = name.decode("ascii")
        return end


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
