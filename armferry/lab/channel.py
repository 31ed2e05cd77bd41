"""The talk between a lab host and the program that booted it, sans-I/O.

Both ends send frames over one byte stream (a virtio console port): big-endian u32 length of a JSON
object, u32 length of a payload, then the two. The booter asks, the host's agent
(`armferry.lab.agent`) answers each request in order. This module knows frames only, and is all
that the two ends share.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from armferry.errors import EnvironmentFault

__all__ = ["ChannelFault", "Frame", "FrameReader", "encode"]

_LENGTHS = struct.Struct(">II")
_HEADER_LIMIT = 1 << 20
_PAYLOAD_LIMIT = 1 << 30


class ChannelFault(EnvironmentFault):
    """The other end of the channel does not speak frames."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One request or answer: `header` says what, `payload` is a file's or a stream's content."""

    header: dict[str, object]
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    header = json.dumps(frame.header).encode()
    return _LENGTHS.pack(len(header), len(frame.payload)) + header + frame.payload


class FrameReader:
    """Takes bytes as they come, gives whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that `chunk` completes. Raises `ChannelFault`."""
        self._buffer += chunk
        while len(self._buffer) >= _LENGTHS.size:
            header_size, payload_size = _LENGTHS.unpack_from(self._buffer)
            if header_size > _HEADER_LIMIT or payload_size > _PAYLOAD_LIMIT:
                raise ChannelFault(
                    f"a frame on the lab channel announces {header_size} + {payload_size} bytes:"
                    " something else is writing to the port; boot the host again"
                )
            middle = _LENGTHS.size + header_size
            end = middle + payload_size
            if len(self._buffer) < end:
                return
            header = json.loads(self._buffer[_LENGTHS.size : middle])
            payload = bytes(self._buffer[middle:end])
            del self._buffer[:end]
            yield Frame(header, payload)
