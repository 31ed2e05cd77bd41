"""The saved state of a snapshot, as bytes at offsets.

Kept like the content of a disk, from the first L1 entry on that is past the end of the snapshot's
own disk. Two L2 tables are held at a time, of at most 2 MiB each, and nothing is read before it is
asked for: an image can have 65,536 snapshots with an L1 table of 32 MiB each. Reads only.
"""

import zlib
from functools import lru_cache

from armferry.errors import EnvironmentFault
from armferry.hosts.files.qcow2.entries import Cluster, ClusterKind, l2_offset, read_cluster
from armferry.hosts.files.qcow2.format import Snapshot
from armferry.hosts.files.qcow2.image import Image
from armferry.stream import CorruptStream, OversizedStream, TruncatedStream, UnsupportedStream

__all__ = ["SnapshotState"]

_SUBCLUSTERS = 32
_TABLES_HELD = 2
_OFFSETS_HELD = 8
_LONGEST = 1_040
"""Bytes of state for a byte of the image: more than deflate can make of one (1,032)."""
_ANY_WINDOW = -15  # deflate without a header, whatever window it was made with


class MissingLibrary(EnvironmentFault):
    """A compression that Python has no library for here."""


class SnapshotState:
    """A `Window` on the state of `snapshot`. Raises StreamError."""

    def __init__(self, image: Image, snapshot: Snapshot) -> None:
        header = image.header
        self._image = image
        self._header = header
        disk = header.disk_size if snapshot.disk_size is None else snapshot.disk_size
        reach = header.cluster_bytes * header.l2_entries
        self.size = snapshot.state_size
        self.first_l1 = -(-disk // reach)
        """The entry of the snapshot's L1 table where the state begins."""
        self._l1_at = snapshot.l1_offset + 8 * self.first_l1
        entries = -(-self.size // reach)
        if self.first_l1 + entries > snapshot.l1_entries:
            raise CorruptStream(
                f"the snapshot {snapshot.name!r} is said to hold {self.size} bytes of state and "
                f"has no tables for them",
                offset=snapshot.l1_offset,
            )
        if self.size > _LONGEST * image.window.size:
            raise OversizedStream(
                f"the snapshot {snapshot.name!r} is said to hold {self.size} bytes of state in an "
                f"image of {image.window.size}",
                offset=snapshot.l1_offset,
            )
        self._entries = entries
        self._table = lru_cache(_TABLES_HELD)(self._read_table)
        self._offset = lru_cache(_OFFSETS_HELD)(self._read_offset)

    def table_offset(self, number: int) -> int:
        """Where the state's L2 table `number` is in the image, 0 for none. Raises StreamError."""
        return self._offset(number)

    def table(self, number: int) -> bytes:
        """The state's L2 table `number`; zeros past the last one. Raises StreamError."""
        return self._table(number)

    def cluster(self, number: int) -> Cluster:
        """Where the state's cluster `number` is. Raises StreamError."""
        table, index = divmod(number, self._header.l2_entries)
        width = self._header.l2_entry_bytes
        entry = self._table(table)[index * width : (index + 1) * width]
        return read_cluster(entry, self._header, self.table_offset(table) + index * width)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer only at the end. Raises StreamError."""
        end = min(offset + length, self.size)
        parts: list[bytes] = []
        while offset < end:
            number, within = divmod(offset, self._header.cluster_bytes)
            step = min(end - offset, self._header.cluster_bytes - within)
            parts.append(self._piece(self.cluster(number), within, step))
            offset += step
        return b"".join(parts)

    def _read_offset(self, number: int) -> int:
        if number >= self._entries:
            return 0
        at = self._l1_at + 8 * number
        return l2_offset(int.from_bytes(self._image.table(at, 8), "big"), self._header, at)

    def _read_table(self, number: int) -> bytes:
        offset = self.table_offset(number)
        if not offset:
            return bytes(self._header.cluster_bytes)
        return self._image.table(offset, self._header.cluster_bytes)

    def _piece(self, cluster: Cluster, within: int, length: int) -> bytes:
        """`length` bytes of a cluster, `within` bytes from its beginning."""
        if cluster.kind is ClusterKind.COMPRESSED:
            return self._inflated(cluster, within + length)[within:]
        size = self._header.cluster_bytes // _SUBCLUSTERS
        first, last = within // size, (within + length - 1) // size
        wanted = ((1 << (last + 1)) - 1) & ~((1 << first) - 1)
        if cluster.absent & wanted and self._header.backed:
            raise UnsupportedStream(
                "a part of the saved state is not in this image but in the one it is based on",
                offset=cluster.offset,
            )
        if cluster.kind is not ClusterKind.DATA:
            return bytes(length)
        data = self._image.window.read(cluster.offset + within, length)
        if len(data) < length:
            raise TruncatedStream(
                "the qcow2 image ends within the saved state", offset=cluster.offset + within
            )
        empty = (cluster.absent | cluster.zeros) & wanted
        if not empty:
            return data
        blanked = bytearray(data)
        for number in range(first, last + 1):
            if empty >> number & 1:
                begin = max(number * size - within, 0)
                end = min((number + 1) * size - within, length)
                blanked[begin:end] = bytes(end - begin)
        return bytes(blanked)

    def _inflated(self, cluster: Cluster, length: int) -> bytes:
        """The first `length` bytes of a compressed cluster."""
        packed = self._image.window.read(cluster.offset, cluster.length)
        inflate = _unzstd if self._header.zstd else _undeflate
        data = inflate(packed, length)
        if len(data) < length:
            raise CorruptStream("a compressed cluster is damaged", offset=cluster.offset)
        return data


def _undeflate(packed: bytes, length: int) -> bytes:
    try:
        return zlib.decompressobj(_ANY_WINDOW).decompress(packed, length)
    except zlib.error:
        return b""


def _unzstd(packed: bytes, length: int) -> bytes:
    try:
        import zstandard
    except ImportError as missing:
        raise MissingLibrary(
            "the saved state is compressed with zstd inside the image; install the Python "
            "package zstandard"
        ) from missing
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
            data: bytes = reader.read(length)
            return data
    except zstandard.ZstdError:
        return b""
