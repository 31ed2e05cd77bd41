"""The writes that give a snapshot's state another end, copy on write.

A failed resume has copied the snapshot's L1 table into the active one, so its clusters may have
two users: nothing that is in use is overwritten. In order, each on disk before the next:

1. new clusters past the last used one: the end of the state, its L2 tables, the snapshot's L1
   table, the snapshot table, refcount blocks where they are missing
2. the refcounts of all those
3. a larger refcount table, where the old one was full (12 bytes of the header)
4. the new snapshot table (8 bytes of the header): before it the old state, after it the new one
5. refcounts of what nothing uses any more
6. in active tables, the mark of clusters that they now have alone

Whatever stops in between leaves clusters that are used by nothing, or marks that are missing:
QEMU then copies once more than it had to. Knows tables; refuses to know files and journals.
"""

from armferry.hosts.files.patch import Patch, Step
from armferry.hosts.files.qcow2.entries import (
    COPIED,
    ClusterKind,
    data_entry,
    l2_offset,
    read_cluster,
)
from armferry.hosts.files.qcow2.format import (
    AUTOCLEAR_AT,
    MAX_L1_ENTRIES,
    REFCOUNT_TABLE_AT,
    SNAPSHOTS_OFFSET_AT,
    Snapshot,
)
from armferry.hosts.files.qcow2.image import Image
from armferry.hosts.files.qcow2.refcounts import Refcounts
from armferry.hosts.files.qcow2.state import SnapshotState
from armferry.stream import NewTail, OversizedStream

__all__ = ["new_end"]


def new_end(image: Image, snapshot: Snapshot, tail: NewTail, *, first: int) -> tuple[Step, ...]:
    """The steps after which the state of `snapshot` ends with `tail`.

    New clusters come from cluster number `first` on. Raises StreamError.
    """
    return _NewEnd(image, snapshot, tail, first).steps()


class _NewEnd:
    def __init__(self, image: Image, snapshot: Snapshot, tail: NewTail, first: int) -> None:
        self._image = image
        self._header = image.header
        self._snapshot = snapshot
        self._state = SnapshotState(image, snapshot)
        self._tail = tail
        self._size = tail.offset + len(tail.data)
        if self._size > snapshot.longest_state:
            raise OversizedStream(
                f"a state of {self._size} bytes does not fit the snapshot's entry", offset=0
            )
        self._refcounts = Refcounts(image, first)
        self._contents: list[tuple[int, bytes]] = []
        self._left: list[tuple[int, int]] = []  # offset and length of what is given up
        self._tables: list[tuple[int, int, dict[int, int]]] = []
        """Entry of the L1 table, old L2 table, and which of its entries led to what is given up."""

    def steps(self) -> tuple[Step, ...]:
        """All steps, without those that have nothing to do."""
        table_at = self._new_snapshot_table()
        blocks: list[Patch] = []
        header: list[Patch] = []
        table = self._refcounts.table()
        if table is None:
            blocks = self._refcounts.entries()
        else:
            self._contents.append(table)
            header.append(self._table_moved(*table))
        self._contents += self._refcounts.blocks()
        contents = [self._filled(offset, data) for offset, data in sorted(self._contents)]
        counts = self._refcounts.patches()
        commit = _word(SNAPSHOTS_OFFSET_AT, self._header.snapshots_offset, table_at)
        released = self._release()
        # a refcount block is counted before the table leads to it
        before = (self._cleared(), contents, counts, blocks, header)
        steps = (*before, [commit], released, self._marks())
        return tuple(step for step in steps if step)

    # -- what is new

    def _new_snapshot_table(self) -> int:
        snapshot, header = self._snapshot, self._header
        l1 = self._new_l1()
        if len(l1) > 8 * MAX_L1_ENTRIES:
            raise OversizedStream("the snapshot's L1 table would be too large", offset=0)
        l1_at = self._add(l1)
        self._left.append((snapshot.l1_offset, 8 * snapshot.l1_entries))
        entry = snapshot.moved(l1_at, len(l1) // 8, self._size)
        table = b"".join(entry if one is snapshot else one.entry for one in self._image.snapshots)
        self._left.append((header.snapshots_offset, self._image.snapshot_table_bytes))
        return self._add(table)

    def _new_l1(self) -> bytes:
        """The snapshot's L1 table, with another L2 table for every part that changes."""
        state, cluster_bytes = self._state, self._header.cluster_bytes
        first = self._tail.offset // cluster_bytes
        last = (self._size - 1) // cluster_bytes
        until = max(last, (state.size - 1) // cluster_bytes)
        start = first * cluster_bytes
        data_at = self._add(state.read(start, self._tail.offset - start) + self._tail.data)
        places = {
            number: data_at + number * cluster_bytes - start for number in range(first, last + 1)
        }
        l1 = bytearray(self._image.table(self._snapshot.l1_offset, 8 * self._snapshot.l1_entries))
        per_table = self._header.l2_entries
        for number in range(first // per_table, until // per_table + 1):
            clusters = range(
                max(first, number * per_table), min(until + 1, (number + 1) * per_table)
            )
            at = 8 * (state.first_l1 + number)
            l1 += bytes(max(at + 8 - len(l1), 0))
            l1[at : at + 8] = self._new_l2(number, clusters, places).to_bytes(8, "big")
        return bytes(l1)

    def _new_l2(self, number: int, clusters: range, places: dict[int, int]) -> int:
        """Where a new L2 table `number` is, with its `clusters` at new places or nowhere."""
        state, width = self._state, self._header.l2_entry_bytes
        table = bytearray(state.table(number))
        given_up: dict[int, int] = {}
        for cluster in clusters:
            index = cluster % self._header.l2_entries
            old = state.cluster(cluster)
            if old.length:
                self._left.append((old.offset, old.length))
                given_up[index] = old.offset
            place = places.get(cluster)
            entry = bytes(width) if place is None else data_entry(place, self._header)
            table[index * width : (index + 1) * width] = entry
        old_table = state.table_offset(number)
        if old_table:
            self._left.append((old_table, 1))
            self._tables.append((state.first_l1 + number, old_table, given_up))
        return self._add(bytes(table))

    def _add(self, data: bytes) -> int:
        """Where `data` will be, in clusters of its own."""
        padded = data + bytes(-len(data) % self._header.cluster_bytes)
        offset = self._refcounts.take(len(padded) // self._header.cluster_bytes)
        self._contents.append((offset, padded))
        return offset

    # -- the writes

    def _filled(self, offset: int, data: bytes) -> Patch:
        return Patch(offset, self._image.window.read(offset, len(data)), data)

    def _cleared(self) -> list[Patch]:
        """Auto-clear features that are unknown here: a writer has to clear them."""
        old = self._header.autoclear
        new = old & ~self._header.unknown_autoclear
        return [] if old == new else [_word(AUTOCLEAR_AT, old, new)]

    def _table_moved(self, offset: int, table: bytes) -> Patch:
        header = self._header
        bits = header.cluster_bits
        self._left.append((header.refcount_offset, header.refcount_clusters << bits))
        old = header.refcount_offset.to_bytes(8, "big") + header.refcount_clusters.to_bytes(
            4, "big"
        )
        new = offset.to_bytes(8, "big") + (len(table) >> bits).to_bytes(4, "big")
        return Patch(REFCOUNT_TABLE_AT, old, new)

    def _release(self) -> list[Patch]:
        free = [at for left in self._left for at in self._refcounts.give_back(*left)]
        # what was in them must still be there when this is finished later, or they are not free
        contents = [self._image.window.read(at, self._header.cluster_bytes) for at in free]
        unchanged = [Patch(at, data, data) for at, data in zip(free, contents, strict=True)]
        return unchanged + self._refcounts.patches()

    def _marks(self) -> list[Patch]:
        """COPIED in the active tables: exactly where the refcount is 1 now."""
        found: list[Patch] = []
        for entry, old_table, given_up in self._tables:
            if entry >= self._header.l1_entries:
                continue
            at = self._header.l1_offset + 8 * entry
            word = self._word_at(at)
            table = l2_offset(word, self._header, at)
            if not table:
                continue
            if table == old_table:
                found += self._marked(at, word, table)
            for index, offset in given_up.items():
                at = table + index * self._header.l2_entry_bytes
                data = self._image.table(at, self._header.l2_entry_bytes)
                cluster = read_cluster(data, self._header, at)
                if cluster.offset == offset and cluster.kind is not ClusterKind.COMPRESSED:
                    found += self._marked(at, int.from_bytes(data[:8], "big"), offset)
        return found

    def _marked(self, at: int, word: int, offset: int) -> list[Patch]:
        alone = self._refcounts.of(offset >> self._header.cluster_bits) == 1
        return [_word(at, word, word | COPIED)] if alone and not word & COPIED else []

    def _word_at(self, at: int) -> int:
        return int.from_bytes(self._image.table(at, 8), "big")


def _word(at: int, old: int, new: int) -> Patch:
    return Patch(at, old.to_bytes(8, "big"), new.to_bytes(8, "big"))
