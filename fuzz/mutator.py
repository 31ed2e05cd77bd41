"""A plain mutator: what is done to bytes so that they are nearly what they were.

Knows nothing of any format but that lengths are big-endian numbers of 1, 2, 4 or 8 bytes.
"""

import random

__all__ = ["mutated"]

_NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0x7E, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 1 << 16)
_LARGE = (1 << 20, 1 << 22, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63)
_LONGEST = 1 << 16
"""Bytes of an input at most, or as many as its seed has: a longer one finds nothing sooner."""


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """`data` after one to eight changes; `others` are what pieces may be taken from."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4, 8))):
        _CHANGES[rng.randrange(len(_CHANGES))](changed, others, rng)
    return bytes(changed[: max(_LONGEST, len(data))])


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(len(data)) if data else 0


def _number_place(data: bytearray, size: int, rng: random.Random) -> int:
    """Where a number may stand: half of the time aligned, and where there is one already."""
    at = _place(data, rng)
    if rng.random() < 0.5:
        return at
    at -= at % size
    for _ in range(20):
        if any(data[at : at + size]):
            break
        at = _place(data, rng) // size * size
    return at


def _flip(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    if data:
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _byte(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    if data:
        data[_place(data, rng)] = rng.randrange(256)


def _number(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    size = rng.choice((1, 2, 4, 8))
    at = _number_place(data, size, rng)
    number = rng.choice(_NUMBERS + _LARGE) & ((1 << 8 * size) - 1)
    data[at : at + size] = number.to_bytes(size, "big")


def _near(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    """A number a little larger or smaller than it was."""
    size = rng.choice((1, 2, 4, 8))
    at = _number_place(data, size, rng)
    number = int.from_bytes(data[at : at + size], "big") + rng.choice((-8, -2, -1, 1, 2, 8))
    data[at : at + size] = (number & ((1 << 8 * size) - 1)).to_bytes(size, "big")


def _cut(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    del data[at : at + int(rng.expovariate(1 / 20)) + 1]


def _end(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    del data[_place(data, rng) :]


def _repeat(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    piece = data[at : at + int(rng.expovariate(1 / 40)) + 1]
    data[at:at] = piece * rng.choice((1, 1, 2, 16, 300))


def _move(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    piece = data[at : at + int(rng.expovariate(1 / 60)) + 1]
    to = _place(data, rng)
    data[to:to] = piece


def _other(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    """A piece of another input."""
    other = rng.choice(others)
    if other:
        begin = rng.randrange(len(other))
        at = _place(data, rng)
        piece = other[begin : begin + int(rng.expovariate(1 / 100)) + 1]
        data[at : at + rng.choice((0, len(piece)))] = piece


def _cross(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    """The rest of another input."""
    other = rng.choice(others)
    data[_place(data, rng) :] = other[rng.randrange(len(other) + 1) :]


def _noise(data: bytearray, others: list[bytes], rng: random.Random) -> None:
    at = _place(data, rng)
    data[at:at] = rng.randbytes(rng.randrange(1, 17))


_CHANGES = (_flip, _byte, _number, _near, _cut, _end, _repeat, _move, _other, _cross, _noise)
