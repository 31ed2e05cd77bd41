"""Entries of L1 and L2 tables: what they lead to.

Source of the format: QEMU's docs/interop/qcow2.rst.
"""

import enum
from dataclasses import dataclass

from armferry.hosts.files.qcow2.format import Header
from armferry.stream import CorruptStream

__all__ = ["COPIED", "Cluster", "ClusterKind", "data_entry", "l2_offset", "read_cluster"]

COPIED = 1 << 63
"""In an entry of an active L1 or L2 table: what it leads to is used by nothing else."""

_OFFSET = 0x00FF_FFFF_FFFF_FE00
_RESERVED_L1 = (0x7F << 56) | 0x1FF
_RESERVED_L2 = (0x3F << 56) | 0x1FE
_COMPRESSED = 1 << 62
_ZERO = 1
_SUBCLUSTERS = 32
_ALL_SUBCLUSTERS = (1 << _SUBCLUSTERS) - 1
_SECTOR = 512


class ClusterKind(enum.Enum):
    """What an L2 entry leads to."""

    ABSENT = "nothing"
    ZEROS = "zeros"
    DATA = "data"
    COMPRESSED = "compressed data"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What an L2 entry says. `offset` and `length` are those of the bytes in the image file.

    A preallocated cluster that reads as zeros has both. `absent` has a bit for each of 32
    subclusters that is in a backing file if anywhere, `zeros` for each that reads as zeros.
    """

    kind: ClusterKind
    offset: int
    length: int
    absent: int = 0
    zeros: int = 0


def l2_offset(entry: int, header: Header, at: int) -> int:
    """Where the L2 table of an L1 `entry` is, 0 for none. Raises CorruptStream.

    `at` is where the entry stands.
    """
    offset = entry & _OFFSET
    if entry & _RESERVED_L1 or offset % header.cluster_bytes:
        raise CorruptStream(f"{entry:#018x} is no L1 entry of a qcow2 image", offset=at)
    return offset


def read_cluster(entry: bytes, header: Header, at: int) -> Cluster:
    """What the L2 `entry` says, which stands at `at`. Raises CorruptStream."""
    word = int.from_bytes(entry[:8], "big")
    if word & _COMPRESSED:
        bits = 62 - (header.cluster_bits - 8)
        offset = word & ((1 << bits) - 1)
        sectors = (word >> bits & ((1 << (62 - bits)) - 1)) + 1
        return Cluster(ClusterKind.COMPRESSED, offset, sectors * _SECTOR - offset % _SECTOR)
    offset = word & _OFFSET
    reserved = _RESERVED_L2 | (_ZERO if header.extended or header.version == 2 else 0)
    if word & reserved or offset % header.cluster_bytes:
        raise CorruptStream(f"{word:#018x} is no L2 entry of a qcow2 image", offset=at)
    length = header.cluster_bytes if offset else 0
    if header.extended:
        return _read_extended(int.from_bytes(entry[8:], "big"), offset, length, at)
    if word & _ZERO:
        return Cluster(ClusterKind.ZEROS, offset, length, zeros=_ALL_SUBCLUSTERS)
    if not offset:
        return Cluster(ClusterKind.ABSENT, 0, 0, absent=_ALL_SUBCLUSTERS)
    return Cluster(ClusterKind.DATA, offset, length)


def _read_extended(bitmap: int, offset: int, length: int, at: int) -> Cluster:
    present, zeros = bitmap & _ALL_SUBCLUSTERS, bitmap >> _SUBCLUSTERS
    if present & zeros or (present and not offset):
        raise CorruptStream(f"{bitmap:#018x} is no bitmap of subclusters", offset=at)
    absent = _ALL_SUBCLUSTERS & ~present & ~zeros
    kind = ClusterKind.DATA if present else ClusterKind.ZEROS if zeros else ClusterKind.ABSENT
    return Cluster(kind, offset, length, absent=absent, zeros=zeros)


def data_entry(offset: int, header: Header) -> bytes:
    """An L2 entry of a snapshot for a whole cluster of data at `offset`."""
    entry = offset.to_bytes(8, "big")
    return entry + _ALL_SUBCLUSTERS.to_bytes(8, "big") if header.extended else entry
