"""The qcow2 format: header and snapshot table; bytes in, values out, and back.

Knows where which number stands and what it may be, entries of tables aside (`entries`); refuses
to know files. Every length is checked before anything of that length is read. Source of the format:
QEMU's docs/interop/qcow2.rst; of the limits: what QEMU itself opens (up to 11.1).
"""

import enum
import struct
from dataclasses import dataclass
from datetime import UTC, datetime

from armferry.stream import (
    CorruptStream,
    OversizedStream,
    TruncatedStream,
    UnsupportedStream,
    Window,
)

__all__ = [
    "AUTOCLEAR_AT",
    "HEADER_BYTES",
    "MAGIC",
    "MAX_L1_ENTRIES",
    "MAX_REFCOUNT_TABLE_BYTES",
    "REFCOUNT_TABLE_AT",
    "SNAPSHOTS_OFFSET_AT",
    "Header",
    "Snapshot",
    "is_qcow2",
    "read_header",
    "read_snapshots",
]

MAGIC = b"QFI\xfb"
HEADER_BYTES = 112
"""Bytes of the header that are looked at: all that version 3 defines so far."""
REFCOUNT_TABLE_AT = 48
"""Where the header has the refcount table's offset (be64) and its clusters (be32)."""
SNAPSHOTS_OFFSET_AT = 64
"""Where the header has the snapshot table's offset (be64)."""
AUTOCLEAR_AT = 88
"""Where the header has the auto-clear features (be64)."""
MAX_L1_ENTRIES = (32 << 20) // 8
MAX_REFCOUNT_TABLE_BYTES = 8 << 20

_FIXED = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES = struct.Struct(">QQQII")
_V2_BYTES = 72
_V3_BYTES = 104
_CLUSTER_BITS = range(9, 22)
_EXTENDED_CLUSTER_BITS = 14
_REFCOUNT_ORDER_V2 = 4
_MAX_REFCOUNT_ORDER = 6
_BITMAPS_CONSISTENT = 1
_NANOSECONDS = 1_000_000_000

_MAX_SNAPSHOTS = 65_536
_MAX_SNAPSHOT_TABLE = 16 << 20
_MAX_EXTRA = 1_024
_ENTRY = struct.Struct(">QIHHIIQII")
_SMALL_SIZE_AT = 32
_EXTRA_SIZE_AT = 36
_STATE_SIZE_END = 8  # in the extra data, as the next
_DISK_SIZE_END = 16


class _Incompatible(enum.IntFlag):
    """Features that a program that opens the image must know."""

    DIRTY = 1
    CORRUPT = 2
    DATA_FILE = 4
    COMPRESSION = 8
    EXTENDED_L2 = 16


_REPAIR = "repair it on a copy first: qemu-img check -r all IMAGE"


@dataclass(frozen=True, slots=True)
class Header:
    """What an image's header says; offsets and sizes in bytes.

    `extended` is whether L2 entries have a second word for subclusters, `zstd` whether compressed
    clusters are so and not deflated. `unknown_autoclear` are auto-clear bits that nothing here
    understands: a program that writes to the image has to clear them.
    """

    version: int
    backed: bool
    cluster_bits: int
    disk_size: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    autoclear: int
    refcount_order: int
    zstd: bool
    extended: bool

    @property
    def cluster_bytes(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_entry_bytes(self) -> int:
        """Bytes of an L2 entry."""
        return 16 if self.extended else 8

    @property
    def l2_entries(self) -> int:
        """Entries of an L2 table."""
        return self.cluster_bytes // self.l2_entry_bytes

    @property
    def unknown_autoclear(self) -> int:
        """Auto-clear bits other than that of the dirty bitmaps, which no state is part of."""
        return self.autoclear & ~_BITMAPS_CONSISTENT


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An entry of the snapshot table.

    `date` is in nanoseconds since the epoch, `clock` in nanoseconds of guest time; `state_size`
    in bytes, 0 without a saved state; `disk_size` in bytes, None where the entry has none. `entry`
    is all of it as it stands on disk.
    """

    l1_offset: int
    l1_entries: int
    id: str
    name: str
    date: int
    clock: int
    state_size: int
    disk_size: int | None
    entry: bytes

    @property
    def taken(self) -> str:
        """When it was taken, UTC, in ISO 8601: 2025-11-24T16:00:00Z."""
        return f"{datetime.fromtimestamp(self.date // _NANOSECONDS, UTC):%Y-%m-%dT%H:%M:%SZ}"

    @property
    def longest_state(self) -> int:
        """The largest state size, in bytes, that the entry can name."""
        return (1 << (64 if self._has_large_size else 32)) - 1

    def moved(self, l1_offset: int, l1_entries: int, state_size: int) -> bytes:
        """The entry on disk with another L1 table and state, everything else as it came."""
        entry = bytearray(self.entry)
        struct.pack_into(">QI", entry, 0, l1_offset, l1_entries)
        struct.pack_into(">I", entry, _SMALL_SIZE_AT, state_size & 0xFFFF_FFFF)
        if self._has_large_size:
            struct.pack_into(">Q", entry, _ENTRY.size, state_size)
        return bytes(entry)

    @property
    def _has_large_size(self) -> bool:
        return int.from_bytes(self.entry[_EXTRA_SIZE_AT : _ENTRY.size], "big") >= _STATE_SIZE_END


def is_qcow2(start: bytes) -> bool:
    """Whether a file that begins with `start` is a qcow2 image."""
    return start[: len(MAGIC)] == MAGIC


def read_header(data: bytes, size: int) -> Header:
    """The header in the first HEADER_BYTES of an image file of `size` bytes.

    Raises StreamError: an image that is damaged, in use or of a kind that cannot hold a state
    that armferry reads is named so.
    """
    if len(data) < _V2_BYTES:
        raise TruncatedStream("the qcow2 image ends within its header", offset=len(data))
    (_, version, backing, _, bits, disk, crypt, *tables) = _FIXED.unpack_from(data)
    l1_entries, l1_offset, rt_offset, rt_clusters, snapshots, snapshots_offset = tables
    if version not in (2, 3):
        raise UnsupportedStream(
            f"the qcow2 image has version {version}", offset=4, advice="armferry reads 2 and 3"
        )
    incompatible, autoclear, order, compression = 0, 0, _REFCOUNT_ORDER_V2, 0
    if version == 3:
        incompatible, autoclear, order, compression = _read_features(data)
    _check_features(incompatible, crypt)
    extended = bool(incompatible & _Incompatible.EXTENDED_L2)
    if bits not in _CLUSTER_BITS or (extended and bits < _EXTENDED_CLUSTER_BITS):
        raise CorruptStream(f"the qcow2 image has clusters of 2^{bits} bytes", offset=20)
    if order > _MAX_REFCOUNT_ORDER:
        raise CorruptStream(f"the qcow2 image has refcounts of 2^{order} bits", offset=96)
    header = Header(
        version,
        bool(backing),
        bits,
        disk,
        l1_entries,
        l1_offset,
        rt_offset,
        rt_clusters,
        snapshots,
        snapshots_offset,
        autoclear,
        order,
        bool(compression),
        extended,
    )
    _check_tables(header, size)
    return header


def _read_features(data: bytes) -> tuple[int, int, int, int]:
    """Incompatible and auto-clear features, refcount order and compression of version 3."""
    if len(data) < _V3_BYTES:
        raise TruncatedStream("the qcow2 image ends within its header", offset=len(data))
    incompatible, _, autoclear, order, length = _FEATURES.unpack_from(data, _V2_BYTES)
    if length < _V3_BYTES or length % 8:
        raise CorruptStream(f"the qcow2 header claims {length} bytes", offset=100)
    compression = data[_V3_BYTES] if length > _V3_BYTES and len(data) > _V3_BYTES else 0
    declared = bool(incompatible & _Incompatible.COMPRESSION)
    if declared != bool(compression) or compression > 1:
        raise UnsupportedStream(
            f"the qcow2 image has compression {compression}"
            + ("" if declared else ", which it does not declare"),
            offset=_V3_BYTES,
            advice="armferry reads deflate (0) and zstd (1)",
        )
    return incompatible, autoclear, order, compression


def _check_features(incompatible: int, crypt: int) -> None:
    if crypt:
        raise UnsupportedStream(
            "the qcow2 image is encrypted, and the saved state in it", offset=32, advice=_NO_KEY
        )
    if incompatible & _Incompatible.CORRUPT:
        raise CorruptStream("the qcow2 image is marked as corrupt", offset=72, advice=_REPAIR)
    if incompatible & _Incompatible.DIRTY:
        raise CorruptStream(
            "the qcow2 image is marked as dirty: it was not closed, or is in use",
            offset=72,
            advice=f"end the QEMU that uses it; if there is none, {_REPAIR}",
        )
    if incompatible & _Incompatible.DATA_FILE:
        raise UnsupportedStream(
            "the qcow2 image has its data in another file", offset=72, advice=_NO_SNAPSHOTS
        )
    unknown = incompatible & ~sum(_Incompatible)
    if unknown:
        raise UnsupportedStream(
            f"the qcow2 image has the incompatible features {unknown:#x}, unknown to armferry",
            offset=72,
            advice="a newer armferry may know them",
        )


_NO_KEY = "armferry has no key; save the guest to a file instead"
_NO_SNAPSHOTS = "QEMU keeps no snapshots in such an image; look in the machine's other images"


def _check_tables(header: Header, size: int) -> None:
    """Raises unless every table that the header names is aligned, bounded and in the file."""
    for name, at, offset, length, limit in (
        ("L1 table", 40, header.l1_offset, header.l1_entries * 8, MAX_L1_ENTRIES * 8),
        (
            "refcount table",
            REFCOUNT_TABLE_AT,
            header.refcount_offset,
            header.refcount_clusters << header.cluster_bits,
            MAX_REFCOUNT_TABLE_BYTES,
        ),
        (
            "snapshot table",
            SNAPSHOTS_OFFSET_AT,
            header.snapshots_offset,
            header.snapshots * _ENTRY.size,
            _MAX_SNAPSHOTS * _ENTRY.size,
        ),
    ):
        if length > limit:
            raise OversizedStream(f"the {name} of the qcow2 image has {length} bytes", offset=at)
        if length and (offset % header.cluster_bytes or not offset or offset + length > size):
            raise CorruptStream(
                f"the {name} of the qcow2 image is said to be at byte {offset}, "
                f"{'outside the file' if offset + length > size else 'where none can be'}",
                offset=at,
            )


def read_snapshots(window: Window, header: Header) -> tuple[tuple[Snapshot, ...], int]:
    """The snapshot table and its length in bytes. Raises StreamError."""
    found: list[Snapshot] = []
    at = header.snapshots_offset
    for _ in range(header.snapshots):
        found.append(_read_snapshot(window, header, at))
        at += len(found[-1].entry)
        if at - header.snapshots_offset > _MAX_SNAPSHOT_TABLE:
            raise OversizedStream(
                f"the snapshot table of the qcow2 image is longer than {_MAX_SNAPSHOT_TABLE} bytes",
                offset=header.snapshots_offset,
            )
    return tuple(found), at - header.snapshots_offset


def _read_snapshot(window: Window, header: Header, at: int) -> Snapshot:
    fixed = window.read(at, _ENTRY.size)
    if len(fixed) < _ENTRY.size:
        raise TruncatedStream("the qcow2 image ends within its snapshot table", offset=at)
    l1_offset, l1_entries, ident, name, seconds, nanoseconds, clock, small, more = _ENTRY.unpack(
        fixed
    )
    if more > _MAX_EXTRA or l1_entries > MAX_L1_ENTRIES:
        raise OversizedStream(
            f"an entry of the snapshot table claims {more} bytes of extra data and "
            f"{l1_entries} L1 entries",
            offset=at,
        )
    rest = window.read(at + _ENTRY.size, more + ident + name)
    if len(rest) < more + ident + name:
        raise TruncatedStream("the qcow2 image ends within its snapshot table", offset=at)
    if l1_entries and (
        l1_offset % header.cluster_bytes or l1_offset + 8 * l1_entries > window.size
    ):
        raise CorruptStream(f"a snapshot's L1 table is said to be at byte {l1_offset}", offset=at)
    extra, names = rest[:more], rest[more:]
    disk = extra[_STATE_SIZE_END:_DISK_SIZE_END]
    return Snapshot(
        l1_offset,
        l1_entries,
        _text(names[:ident]),
        _text(names[ident:]),
        seconds * 1_000_000_000 + nanoseconds,
        clock,
        int.from_bytes(extra[:_STATE_SIZE_END], "big") if more >= _STATE_SIZE_END else small,
        int.from_bytes(disk, "big") if more >= _DISK_SIZE_END else None,
        fixed + rest + bytes(-(len(fixed) + len(rest)) % 8),
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
