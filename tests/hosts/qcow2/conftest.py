"""qcow2 images made and counted without the code under test: both know the format on their own."""

import math
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Bytes", "Count", "Kind", "count", "make"]

OFFSET = 0x00FF_FFFF_FFFF_FE00
COPIED = 1 << 63
COMPRESSED = 1 << 62


@dataclass(frozen=True)
class Kind:
    """What sort of image: the numbers of its header."""

    cluster_bits: int = 16
    refcount_order: int = 4
    version: int = 3
    extended: bool = False
    compressed: bool = False
    resumed: bool = False
    """Whether a resume has failed: the active L1 table is then a copy of the snapshot's."""
    disk_clusters: int = 5
    extra: int = 24
    table_clusters: int = 1
    full: bool = False
    """Whether the refcount table has room for no cluster more."""
    autoclear: int = 0

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits

    @property
    def width(self) -> int:
        return 16 if self.extended else 8

    @property
    def per_table(self) -> int:
        return self.cluster // self.width

    @property
    def per_block(self) -> int:
        return self.cluster * 8 >> self.refcount_order


@dataclass
class Image:
    """An image being made: clusters in order, and how often each is referred to."""

    kind: Kind
    content: bytearray = field(default_factory=bytearray)
    references: Counter[int] = field(default_factory=Counter)

    def add(self, data: bytes) -> int:
        """Where `data` is, in clusters of its own."""
        offset = len(self.content)
        self.content += data + bytes(-len(data) % self.kind.cluster)
        return offset

    def refer(self, offset: int, length: int = 1, times: int = 1) -> None:
        for number in range(
            offset // self.kind.cluster, (offset + length - 1) // self.kind.cluster + 1
        ):
            self.references[number] += times

    def state_entries(self, state: bytes) -> list[tuple[bytes, int, int]]:
        """L2 entry, offset and length of every cluster of a state, its content in the image."""
        kind, found = self.kind, []
        pieces = [state[at : at + kind.cluster] for at in range(0, len(state), kind.cluster)]
        if not kind.compressed:
            for piece in pieces:
                at = self.add(piece)
                found.append((self.entry(at), at, kind.cluster))
            return found
        shift = 62 - (kind.cluster_bits - 8)
        for piece in pieces:
            encoder = zlib.compressobj(9, zlib.DEFLATED, -12)
            packed = encoder.compress(piece.ljust(kind.cluster, b"\0")) + encoder.flush()
            at = len(self.content) + 7  # anywhere: compressed data is not aligned
            self.content += bytes(7) + packed
            sectors = (at % 512 + len(packed) - 1) // 512
            word = COMPRESSED | sectors << shift | at
            entry = word.to_bytes(8, "big") + bytes(kind.width - 8)
            found.append((entry, at, (sectors + 1) * 512 - at % 512))
        self.content += bytes(-len(self.content) % kind.cluster)
        return found

    def entry(self, offset: int, flags: int = 0) -> bytes:
        bitmap = (0xFFFF_FFFF).to_bytes(8, "big") if self.kind.extended else b""
        return (offset | flags).to_bytes(8, "big") + bitmap


def make(kind: Kind, states: dict[str, bytes]) -> bytes:
    """An image with a snapshot for each of `states`, one after the other."""
    image = Image(kind)
    image.add(bytes(kind.cluster))
    image.refer(0)
    disk = [
        image.add(bytes([65 + number % 26]) * kind.cluster) for number in range(kind.disk_clusters)
    ]
    disk_size = kind.disk_clusters * kind.cluster
    disk_tables = math.ceil(kind.disk_clusters / kind.per_table)
    users = len(states) + 1
    flag = COPIED if users == 1 else 0
    l1: list[int] = []
    for number in range(disk_tables):
        part = disk[number * kind.per_table : (number + 1) * kind.per_table]
        table = b"".join(image.entry(at, flag) for at in part)
        l1.append(image.add(table.ljust(kind.cluster, b"\0")))
        image.refer(l1[-1], times=users)
    for at in disk:
        image.refer(at, times=users)
    active = list(l1)
    entries = b""
    for number, (name, state) in enumerate(states.items()):
        users = 2 if kind.resumed and number == 0 else 1
        found = image.state_entries(state)
        mine = list(l1)
        for at in range(0, len(found), kind.per_table):
            table = b"".join(entry for entry, _, _ in found[at : at + kind.per_table])
            mine.append(image.add(table.ljust(kind.cluster, b"\0")))
            image.refer(mine[-1], times=users)
        for _, at, length in found:
            image.refer(at, length, users)
        if users == 2:
            active = mine
        table = struct.pack(f">{len(mine)}Q", *mine)
        l1_at = image.add(table)
        image.refer(l1_at, len(table))
        extra = struct.pack(">QQq", len(state), disk_size, -1) + bytes(1000)
        fixed = (l1_at, len(mine), 1, len(name), 1_700_000_000 + number, 5, 10**9, len(state))
        entry = struct.pack(">QIHHIIQII", *fixed, kind.extra) + extra[: kind.extra]
        entry += str(number + 1).encode() + name.encode()
        entries += entry + bytes(-len(entry) % 8)
    table_at = image.add(entries)
    image.refer(table_at, len(entries))
    flags = [COPIED if image.references[at // kind.cluster] == 1 else 0 for at in active]
    table = struct.pack(f">{len(active)}Q", *(a | f for a, f in zip(active, flags, strict=True)))
    active_at = image.add(table)
    image.refer(active_at, len(table))
    rt_at, rt_clusters = _add_refcounts(image)
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", kind.version, 0, 0, kind.cluster_bits, disk_size, 0,
        len(active), active_at, rt_at, rt_clusters, len(states), table_at,
    )  # fmt: skip
    if kind.version == 3:
        features = 16 if kind.extended else 0
        header += struct.pack(">QQQII", features, 0, kind.autoclear, kind.refcount_order, 112)
    image.content[: len(header)] = header
    return bytes(image.content)


def _add_refcounts(image: Image) -> tuple[int, int]:
    kind = image.kind
    if kind.full:  # the file ends with the last cluster that the table has room for
        room = kind.cluster // 8 * kind.table_clusters * kind.per_block
        blocks = room // kind.per_block
        filler = room - len(image.content) // kind.cluster - blocks - kind.table_clusters
        assert filler >= 0, "the image is larger than what its refcount table has room for"
        at = image.add(bytes(filler * kind.cluster))
        image.refer(at, filler * kind.cluster)
    else:
        blocks = 1
        while (
            len(image.content) // kind.cluster + blocks + kind.table_clusters
        ) > blocks * kind.per_block:
            blocks += 1
    first = image.add(bytes(blocks * kind.cluster))
    image.refer(first, blocks * kind.cluster)
    table = b"".join((first + n * kind.cluster).to_bytes(8, "big") for n in range(blocks))
    rt_at = image.add(table.ljust(kind.table_clusters * kind.cluster, b"\0"))
    image.refer(rt_at, kind.table_clusters * kind.cluster)
    bits = 1 << kind.refcount_order
    for number, count in image.references.items():
        assert count < 1 << bits
        bit = number * bits
        at, shift = first + bit // 8, bit % 8
        if bits >= 8:
            image.content[at : at + bits // 8] = count.to_bytes(bits // 8, "big")
        else:
            image.content[at] |= count << shift
    return rt_at, kind.table_clusters


@dataclass
class Count:
    """What counting every reference of an image gives, as `qemu-img check` does it."""

    leaked: set[int] = field(default_factory=set)
    """Clusters whose refcount is too high."""
    broken: set[int] = field(default_factory=set)
    """Clusters whose refcount is too low."""
    marks: set[int] = field(default_factory=set)
    """Clusters that the active tables call shared and that are not, or the other way round."""


def count(image: bytes) -> Count:
    """Every reference of `image` counted and compared with its refcounts."""
    (bits,) = struct.unpack_from(">I", image, 20)
    (l1_n, l1_at, rt_at, rt_n, snapshots, table_at) = struct.unpack_from(">IQQIIQ", image, 36)
    (version,) = struct.unpack_from(">I", image, 4)
    order = struct.unpack_from(">I", image, 96)[0] if version == 3 else 4
    extended = version == 3 and bool(struct.unpack_from(">Q", image, 72)[0] & 16)
    kind = Kind(cluster_bits=bits, refcount_order=order, extended=extended, version=version)
    users: Counter[int] = Counter()

    def use(offset: int, length: int = 1) -> None:
        for number in range(offset >> bits, (offset + length - 1 >> bits) + 1):
            users[number] += 1

    def walk(at: int, entries: int) -> Iterator[tuple[int, int]]:
        """Active or not: every word that leads to a cluster of its own, and which."""
        for index in range(entries):
            (word,) = struct.unpack_from(">Q", image, at + 8 * index)
            if not word & OFFSET:
                continue
            use(word & OFFSET)
            yield word, word & OFFSET
            table = image[word & OFFSET : (word & OFFSET) + kind.cluster].rstrip(b"\0")
            table += bytes(-len(table) % kind.width)
            for entry in struct.unpack(f">{len(table) // 8}Q", table)[:: kind.width // 8]:
                if entry & COMPRESSED:
                    shift = 62 - (bits - 8)
                    offset = entry & ((1 << shift) - 1)
                    sectors = (entry >> shift & ((1 << (62 - shift)) - 1)) + 1
                    use(offset, sectors * 512 - offset % 512)
                elif entry & OFFSET:
                    use(entry & OFFSET)
                    yield entry, entry & OFFSET

    use(0)
    use(rt_at, rt_n * kind.cluster)
    active = list(walk(l1_at, l1_n))
    use(l1_at, 8 * l1_n)
    at = table_at
    for _ in range(snapshots):
        offset, entries, ident, name = struct.unpack_from(">QIHH", image, at)
        (extra,) = struct.unpack_from(">I", image, at + 36)
        list(walk(offset, entries))
        use(offset, 8 * entries)
        at += (40 + extra + ident + name + 7) // 8 * 8
    if snapshots:
        use(table_at, at - table_at)
    blocks = {}
    for index in range(rt_n * kind.cluster // 8):
        (block,) = struct.unpack_from(">Q", image, rt_at + 8 * index)
        if block:
            use(block)
            blocks[index] = block
    counts = {}
    width = 1 << order
    for index, block in blocks.items():
        used = len(image[block : block + kind.cluster].rstrip(b"\0"))
        for number in range(min(used * 8 // width + 1, kind.per_block)):
            where, shift = divmod(number * width, 8)
            data = image[block + where : block + where + max(1, width // 8)]
            value = int.from_bytes(data, "big") >> shift & ((1 << width) - 1)
            if value:
                counts[index * kind.per_block + number] = value
    found = Count()
    for number in {*users, *counts}:
        difference = counts.get(number, 0) - users[number]
        if difference > 0:
            found.leaked.add(number)
        if difference < 0:
            found.broken.add(number)
    found.marks = {
        at >> bits for word, at in active if bool(word & COPIED) != (counts.get(at >> bits) == 1)
    }
    return found


class Bytes:
    """An image in memory: a `Window`."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = bytearray(content)

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.content[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.content += bytes(max(offset + len(data) - len(self.content), 0))
        self.content[offset : offset + len(data)] = data
