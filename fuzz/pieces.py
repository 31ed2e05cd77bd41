"""Bytes as the targets read them: cut anywhere, or at offsets."""

import random
import zlib
from collections.abc import Iterator

__all__ = ["Content", "pieces"]


class Content(bytes):
    """Bytes in memory: a `Window`."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes at an offset."""
        return self[offset : offset + length]


def pieces(data: bytes) -> Iterator[bytes]:
    """`data` cut at random, the same way each time."""
    rng = random.Random(zlib.crc32(data))
    mean = rng.choice((1, 5, 100, 4000)) if len(data) < 4000 else rng.choice((50, 1000, 9000))
    at = 0
    while at < len(data):
        step = 1 + int(rng.expovariate(1 / mean))
        yield data[at : at + step]
        at += step
