"""Who uses which cluster of an image: refcounts read, clusters taken and given back.

Changes are kept here until they are handed over as patches; nothing is written. Clusters are
taken past the last used one, holes before it are QEMU's to fill. A refcount block that is missing
is made; a refcount table that is full is replaced by one of twice its length.
"""

import struct
from collections.abc import Iterable

from armferry.hosts.files.patch import Patch
from armferry.hosts.files.qcow2.format import MAX_REFCOUNT_TABLE_BYTES, REFCOUNT_TABLE_AT
from armferry.hosts.files.qcow2.image import Image
from armferry.stream import CorruptStream, UnsupportedStream

__all__ = ["Refcounts"]

_TABLE_RESERVED = 0x1FF
_REPAIR = "repair the image on a copy first: qemu-img check -r all IMAGE"


class Refcounts:
    """The refcounts of `image`; new clusters come from cluster number `first` on.

    Raises StreamError, as does every method.
    """

    def __init__(self, image: Image, first: int) -> None:
        header = image.header
        self._image = image
        self._cluster_bytes = header.cluster_bytes
        bits = 1 << header.refcount_order
        self._bits = bits
        self._most = (1 << bits) - 1
        self._entry_bytes = max(1, bits // 8)
        self._per_block = header.cluster_bytes * 8 // bits
        self._table = image.table(
            header.refcount_offset, header.refcount_clusters << header.cluster_bits
        )
        self._entries = len(self._table) // 8
        self._check_table()
        self._next = first
        self._fresh: dict[int, tuple[int, bytearray]] = {}  # block -> its offset and content
        self._before: dict[int, bytes] = {}  # offset of a changed entry -> as it is on disk
        self._now: dict[int, bytes] = {}

    @property
    def end(self) -> int:
        """Bytes of the image up to the last cluster that was taken."""
        return self._next * self._cluster_bytes

    def of(self, cluster: int) -> int:
        """How many use cluster number `cluster`."""
        block, byte, shift = self._place(cluster)
        return int.from_bytes(self._read(block, byte), "big") >> shift & self._most

    def last_used(self) -> int:
        """The number of the last cluster that anything uses."""
        for block in reversed(range(len(self._table) // 8)):
            offset = self._offset_of(block)
            data = self._image.table(offset, self._cluster_bytes).rstrip(b"\0") if offset else b""
            if data:
                last = (block + 1) * self._per_block - 1
                last -= (self._cluster_bytes - len(data)) * 8 // self._bits
                while not self.of(last):
                    last -= 1
                return last
        raise CorruptStream("no cluster of the qcow2 image is in use", offset=REFCOUNT_TABLE_AT)

    def take(self, count: int) -> int:
        """Takes `count` clusters in a row that nothing uses; where they begin, in bytes."""
        while True:
            first = self._next_free()
            last = first + count - 1
            blocks = range(first // self._per_block, last // self._per_block + 1)
            missing = [block for block in blocks if not self._offset_of(block)]
            used = [cluster for cluster in range(first, last + 1) if self.of(cluster)]
            if not missing and not used:
                break
            for block in missing:
                self._make_block(block)
            if used:
                self._next = max(self._next, used[-1] + 1)
        for cluster in range(first, last + 1):
            self._set(cluster, 1)
        self._next = last + 1
        return first * self._cluster_bytes

    def give_back(self, offset: int, length: int = 1) -> list[int]:
        """One user less of each cluster that `length` bytes from `offset` touch.

        Returns the offsets of those that nothing uses any more.
        """
        free: list[int] = []
        last = (offset + length - 1) // self._cluster_bytes
        for cluster in range(offset // self._cluster_bytes, last + 1):
            count = self.of(cluster)
            if not count:
                raise CorruptStream(
                    "a cluster of the saved state is said to be free",
                    offset=cluster * self._cluster_bytes,
                    advice=_REPAIR,
                )
            self._set(cluster, count - 1)
            if count == 1:
                free.append(cluster * self._cluster_bytes)
        return free

    def patches(self) -> list[Patch]:
        """The changes since the last call to refcount blocks that the image has."""
        merged: list[tuple[int, bytearray, bytearray]] = []
        for at in sorted(self._before):
            if not merged or merged[-1][0] + len(merged[-1][1]) != at:
                merged.append((at, bytearray(), bytearray()))
            merged[-1][1].extend(self._before[at])
            merged[-1][2].extend(self._now[at])
        self._before.clear()
        return [Patch(at, bytes(old), bytes(new)) for at, old, new in merged if old != new]

    def table(self) -> tuple[int, bytes] | None:
        """The new refcount table, offset and content; None while the old one has room.

        To be called after everything has been taken: takes the clusters of the table itself.
        """
        if self._entries * 8 == len(self._table):
            return None
        while True:
            entries = self._entries
            offset = self.take(entries * 8 // self._cluster_bytes)
            if entries == self._entries:
                break
            self.give_back(offset, entries * 8)  # it grew while its own clusters were taken
        table = bytearray(self._table) + bytes(entries * 8 - len(self._table))
        for at, entry in self._new_entries():
            table[at : at + 8] = entry
        return offset, bytes(table)

    def entries(self) -> list[Patch]:
        """What the old refcount table says of blocks that were made."""
        where = self._image.header.refcount_offset
        return [Patch(where + at, bytes(8), entry) for at, entry in self._new_entries()]

    def blocks(self) -> list[tuple[int, bytes]]:
        """The refcount blocks that were made, offset and content."""
        return [(offset, bytes(content)) for offset, content in self._fresh.values()]

    def _check_table(self) -> None:
        """Raises CorruptStream when a block stands in the table twice.

        One block full of counts, led to a million times, would be looked through for days.
        """
        offsets = [entry for (entry,) in struct.iter_unpack(">Q", self._table) if entry]
        if len(set(offsets)) < len(offsets):
            raise CorruptStream(
                "the refcount table leads to the same block twice",
                offset=self._image.header.refcount_offset,
                advice=_REPAIR,
            )

    def _new_entries(self) -> Iterable[tuple[int, bytes]]:
        for block, (offset, _) in sorted(self._fresh.items()):
            yield 8 * block, offset.to_bytes(8, "big")

    def _next_free(self) -> int:
        while self.of(self._next):
            self._next += 1
        return self._next

    def _make_block(self, block: int) -> None:
        if self._offset_of(block):
            return
        while block >= self._entries:
            self._entries *= 2
            if self._entries * 8 > MAX_REFCOUNT_TABLE_BYTES:
                raise UnsupportedStream(
                    "the qcow2 image cannot grow: its refcount table would be larger than "
                    f"{MAX_REFCOUNT_TABLE_BYTES} bytes",
                    offset=REFCOUNT_TABLE_AT,
                    advice="copy the state out: armferry ferry IMAGE#NAME OUT --to DEST",
                )
        at = self._next_free()
        own = at // self._per_block
        if own != block and not self._offset_of(own):
            self._make_block(own)
            at = self._next_free()
        self._fresh[block] = (at * self._cluster_bytes, bytearray(self._cluster_bytes))
        self._set(at, 1)
        self._next = at + 1

    def _place(self, cluster: int) -> tuple[int, int, int]:
        """Block, byte in the block, and bits to shift."""
        block, index = divmod(cluster, self._per_block)
        byte, shift = divmod(index * self._bits, 8)
        return block, byte, shift

    def _offset_of(self, block: int) -> int:
        """Where refcount block number `block` is, 0 when there is none."""
        if block in self._fresh:
            return self._fresh[block][0]
        entry = self._table[8 * block : 8 * block + 8]
        offset = int.from_bytes(entry, "big")
        if offset & _TABLE_RESERVED or offset % self._cluster_bytes:
            raise CorruptStream(
                f"{offset:#018x} is no entry of a refcount table",
                offset=self._image.header.refcount_offset + 8 * block,
            )
        return offset

    def _read(self, block: int, byte: int) -> bytes:
        if block in self._fresh:
            return bytes(self._fresh[block][1][byte : byte + self._entry_bytes])
        offset = self._offset_of(block)
        if not offset:
            return b"\0"
        known = self._now.get(offset + byte)
        return known or self._image.table(offset + byte, self._entry_bytes)

    def _set(self, cluster: int, count: int) -> None:
        block, byte, shift = self._place(cluster)
        data = self._read(block, byte)
        word = int.from_bytes(data, "big") & ~(self._most << shift) | count << shift
        new = word.to_bytes(self._entry_bytes, "big")
        if block in self._fresh:
            self._fresh[block][1][byte : byte + self._entry_bytes] = new
            return
        at = self._offset_of(block) + byte
        self._before.setdefault(at, data)
        self._now[at] = new
