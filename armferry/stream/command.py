"""A command section: what the source asks of the destination.

Knows its header and the one command that carries more than its header says: PACKAGED, a be32
length and then that many bytes of a whole stream inside the stream.
"""

from armferry.stream.errors import CorruptStream, OversizedStream, UnsupportedStream
from armferry.stream.events import CommandSeen
from armferry.stream.wire import BE16, BE32, MAX_DEVICE_STATE, Buffer, Command, SectionType

__all__ = ["PACKAGED_HEADER", "begins_package", "read_command"]

_HEADER = 1 + 2 + 2
PACKAGED_HEADER = _HEADER + 4
"""Bytes from the begin of a PACKAGED command to the stream it carries."""
_PACKAGED = bytes([SectionType.COMMAND]) + BE16.pack(Command.PACKAGED)


def begins_package(held: bytearray) -> bool:
    """Whether `held`, the begin of an element, is that of a PACKAGED command."""
    return held.startswith(_PACKAGED)


def read_command(view: Buffer, position: int, offset: int) -> tuple[int, CommandSeen] | None:
    """(bytes, command) at `position`, which lies at `offset` of the stream.

    None while it is not whole. Raises CorruptStream, OversizedStream or UnsupportedStream as
    soon as its header says so.
    """
    if len(view) < position + _HEADER:
        return None
    command = BE16.unpack_from(view, position + 1)[0]
    length: int = BE16.unpack_from(view, position + 3)[0]
    if command not in Command._value2member_map_:
        raise CorruptStream(f"{command} is no known command", offset=offset)
    if command == Command.ENABLE_COLO:
        raise UnsupportedStream("the stream uses COLO", offset=offset, advice="turn x-colo off")
    if command == Command.PACKAGED and length != 4:
        raise CorruptStream("a PACKAGED command has no length", offset=offset)
    begin = position + _HEADER
    end = begin + length
    if len(view) < end:
        return None
    if command == Command.PACKAGED:
        packaged: int = BE32.unpack_from(view, begin)[0]
        if packaged > MAX_DEVICE_STATE:
            raise OversizedStream(
                f"a packaged stream takes {packaged} bytes, more than {MAX_DEVICE_STATE}",
                offset=offset,
            )
        begin, end = end, end + packaged
        if len(view) < end:
            return None
    return end - position, CommandSeen(offset, command, bytes(view[begin:end]))
