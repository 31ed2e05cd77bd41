"""A qcow2 image with one snapshot, made around a saved state of any size.

In order: header, the state's clusters, L2 tables, L1 tables, snapshot table, refcount blocks and
table. The disk is one empty cluster.
"""

import os
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

__all__ = ["write_image"]

_BITS = 16
_CLUSTER = 1 << _BITS
_ENTRIES = _CLUSTER // 8
_COUNTS = _CLUSTER // 2  # refcounts of 16 bits in a block


def write_image(image: Path, state: Path, name: str) -> None:
    """Writes `image` with the saved state in the file `state` as snapshot `name`; on disk then."""
    size = state.stat().st_size
    clusters = -(-size // _CLUSTER)
    with image.open("wb") as file:
        file.seek(_CLUSTER)
        with state.open("rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)

        def put(data: bytes) -> int:
            at = -(-file.tell() // _CLUSTER) * _CLUSTER
            file.seek(at)
            file.write(data.ljust(-(-len(data) // _CLUSTER) * _CLUSTER, b"\0"))
            return at

        tables = [
            put(_words((1 + number) * _CLUSTER for number in range(begin, end)))
            for begin, end in _pieces(clusters, _ENTRIES)
        ]
        l1 = [0, *tables]  # the disk takes the first entry
        l1_at = put(_words(l1))
        active_at = put(_words([0]))
        fixed = (l1_at, len(l1), 1, len(name), 0, 0, 0, size & 0xFFFF_FFFF, 16)
        entry = struct.pack(">QIHHIIQIIQQ", *fixed, size, _CLUSTER) + b"1" + name.encode()
        snapshots_at = put(entry)
        first = file.tell() // _CLUSTER
        blocks = 1
        while first + blocks + 1 > blocks * _COUNTS:
            blocks += 1
        used = first + blocks + 1
        places = [
            put(struct.pack(">H", 1) * (end - begin)) for begin, end in _pieces(used, _COUNTS)
        ]
        table_at = put(_words(places))
        file.seek(0)
        numbers = (b"QFI\xfb", 3, 0, 0, _BITS, _CLUSTER, 0, 1, active_at, table_at, 1, 1)
        file.write(struct.pack(">4sIQIIQIIQQIIQ", *numbers, snapshots_at))
        file.write(struct.pack(">QQQII", 0, 0, 0, 4, 104))
        file.flush()
        os.fsync(file.fileno())


def _pieces(count: int, size: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + size, count)) for begin in range(0, count, size)]


def _words(values: Iterable[int]) -> bytes:
    numbers = list(values)
    return struct.pack(f">{len(numbers)}Q", *numbers)
