"""What a move may take: bytes that are held, seconds that are waited for."""

from dataclasses import dataclass

from armferry.gateway.session import DEFAULT_STATE_LIMIT

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """`state` in bytes of device state held; `stall` in seconds without a byte on any channel.

    `connect` in seconds for a connection to the destination, and for a source that connects to
    say what it wants.
    """

    state: int = DEFAULT_STATE_LIMIT
    stall: float = 120.0
    connect: float = 10.0
