"""What a source's new connection is, by its first bytes.

Main channels begin with `QEVM`; multifd channels with a magic of their own; a postcopy migration
that goes on after its network failed begins with a command; a postcopy-preempt channel says
nothing until a page is urgent. Source: QEMU's migration/channel.c and multifd, and real sources.
"""

import enum

from armferry.stream.wire import MAGIC, SectionType

__all__ = ["FIRST_BYTES", "ChannelKind", "kind_of"]

_MULTIFD_MAGIC = b"\x11\x22\x33\x44"
_TLS_HANDSHAKE = b"\x16\x03"
_COMMAND = bytes([SectionType.COMMAND, 0])

FIRST_BYTES = 4
"""Bytes of a connection that tell what it is."""


class ChannelKind(enum.Enum):
    """What a connection is."""

    MAIN = "main channel"
    RECOVERY = "main channel of a recovery"
    EXTRA = "further channel"
    TLS = "TLS"
    UNKNOWN = "unknown"
    ENDED = "ended before it said anything"


def kind_of(first: bytes, *, silent_is_extra: bool) -> ChannelKind:
    """What begins with `first`, which has FIRST_BYTES, or none of a channel that says nothing.

    With `silent_is_extra` what is not known by its begin is a further channel.
    """
    if first == MAGIC:
        return ChannelKind.MAIN
    if first == _MULTIFD_MAGIC:
        return ChannelKind.EXTRA
    # a preempt channel begins with the address of a page, which is never as high as these two
    if first.startswith(_TLS_HANDSHAKE):
        return ChannelKind.TLS
    if first.startswith(_COMMAND):
        return ChannelKind.RECOVERY
    return ChannelKind.EXTRA if silent_is_extra else ChannelKind.UNKNOWN
