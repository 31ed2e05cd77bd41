"""The destination's last word, found among everything else that it answers."""

import random
import struct

import pytest

from armferry.gateway.return_path import ReturnPath

LOADED, FAILED = (struct.pack(">HHI", 1, 4, result) for result in (0, 1))
PONG = struct.pack(">HHI", 2, 4, 3)
NAMED = b"mach-virt.ram"
PAGES = struct.pack(">HHQIB", 3, 13 + len(NAMED), 0x1000, 4096, len(NAMED)) + NAMED
MORE_PAGES = struct.pack(">HHQI", 4, 12, 0x2000, 4096)
RESUMED = struct.pack(">HHI", 6, 4, 1)
SWITCH = struct.pack(">HH", 7, 0)


def bitmap(size: int) -> bytes:
    """As a destination sends it in a recovery; its bytes look like last words."""
    name = struct.pack(">HHB", 5, 1 + len(NAMED), len(NAMED)) + NAMED
    return name + struct.pack(">Q", size) + LOADED * (size // 8) + bytes.fromhex("0123456789abcdef")


WORDS = {
    "nothing": (b"", None),
    "a move": (PONG + SWITCH + LOADED, 0),
    "a failure": (PONG + FAILED, 1),
    "postcopy": (PONG + PAGES + MORE_PAGES * 100 + LOADED, 0),
    "a recovery": (bitmap(4_096) + bitmap(64) + RESUMED + MORE_PAGES + LOADED, 0),
    "a recovery that goes on": (bitmap(4_096) + RESUMED + MORE_PAGES, None),
    "no messages at all": (b"HTTP/1.1 400 Bad Request" + LOADED, None),
    "a bitmap larger than any guest": (bitmap(0)[:-16] + b"\xff" * 8 + LOADED, None),
}


@pytest.mark.parametrize("words", WORDS)
def test_last_word_is_found_however_the_bytes_are_cut(words: str) -> None:
    data, result = WORDS[words]
    randomness = random.Random(1)
    for mean in (1, 3, 50, 100_000):
        path = ReturnPath()
        at = 0
        while at < len(data):
            step = 1 if mean == 1 else randomness.randint(1, mean)
            path.watch(data[at : at + step])
            at += step
        assert path.result == result


def test_nothing_of_a_bitmap_is_kept() -> None:
    path = ReturnPath()
    path.watch(bitmap(0)[:-16] + struct.pack(">Q", 1 << 30))
    for _ in range(1 << 10):
        path.watch(bytes(1 << 20))
    path.watch(bytes(8) + LOADED)
    assert path.result == 0
