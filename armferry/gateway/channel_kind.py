"""What a source's new connection is, told from its first bytes.

Main channels begin with `QEVM`; multifd channels with a magic of their own; a postcopy migration
that goes on after its network failed begins with a command; a postcopy-preempt channel says
nothing until a page is urgent. Source: QEMU's migration/channel.c and multifd, and real sources.
"""

import enum
import time
from collections.abc import Callable

from armferry.gateway.channel import Channel
from armferry.stream.wire import MAGIC, SectionType

__all__ = ["ChannelKind", "classify"]

_MULTIFD_MAGIC = b"\x11\x22\x33\x44"
_TLS_HANDSHAKE = b"\x16\x03"
_COMMAND = bytes([SectionType.COMMAND, 0])
_LENGTH = 4
_TICK = 0.02
_SILENCE = 0.1


class ChannelKind(enum.Enum):
    """What a connection is."""

    MAIN = "main channel"
    RECOVERY = "main channel of a recovery"
    EXTRA = "further channel"
    TLS = "TLS"
    UNKNOWN = "unknown"
    ENDED = "ended before it said anything"


def classify(channel: Channel, silent_is_extra: Callable[[], bool], limit: float) -> ChannelKind:
    """Waits for the first bytes of `channel`, which stay to be received.

    A channel that says nothing is EXTRA as soon as `silent_is_extra`; after `limit` seconds
    without one it is UNKNOWN. Raises OSError.
    """
    began = time.monotonic()
    first = bytearray()
    piece = memoryview(bytearray(_LENGTH))
    while len(first) < _LENGTH:
        waited = time.monotonic() - began
        if channel.wait(_TICK):
            count = channel.receive_into(piece[: _LENGTH - len(first)])
            if not count:
                return ChannelKind.ENDED
            first += piece[:count]
        elif not first and waited > _SILENCE and silent_is_extra():
            return ChannelKind.EXTRA
        elif waited > limit:
            break
    channel.push_back(bytes(first))
    return _meaning(bytes(first), silent_is_extra)


def _meaning(first: bytes, silent_is_extra: Callable[[], bool]) -> ChannelKind:
    if first == MAGIC:
        return ChannelKind.MAIN
    if first == _MULTIFD_MAGIC:
        return ChannelKind.EXTRA
    # a preempt channel begins with the address of a page, which is never as high as these two
    if first.startswith(_TLS_HANDSHAKE):
        return ChannelKind.TLS
    if first.startswith(_COMMAND):
        return ChannelKind.RECOVERY
    return ChannelKind.EXTRA if silent_is_extra() else ChannelKind.UNKNOWN
