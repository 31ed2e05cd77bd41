"""Images that are read: what each says, what is refused by name, and that nothing else happens."""

import contextlib
import struct
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armferry.hosts.files.qcow2.image import Image, NoSuchSnapshot
from armferry.hosts.files.qcow2.new_end import new_end
from armferry.hosts.files.qcow2.state import SnapshotState
from armferry.stream import NewTail, StreamError

from .conftest import Bytes, Kind, make

STATE = bytes(range(251)) * 60
SMALL = make(Kind(cluster_bits=9), {"suspend": STATE, "other": STATE[::-1]})


def _with(at: int, data: bytes) -> bytes:
    return SMALL[:at] + data + SMALL[at + len(data) :]


def _state_of(content: bytes, name: str) -> bytes:
    image = Image(Bytes(content))
    state = SnapshotState(image, image.find(name))
    return state.read(0, state.size)


def test_what_a_snapshot_says() -> None:
    image = Image(Bytes(SMALL))
    first, second = image.states
    assert (first.id, first.name, first.state_size) == ("1", "suspend", len(STATE))
    assert (second.id, second.name) == ("2", "other")
    assert first.date == 1_700_000_000_000_000_005
    assert first.clock == 10**9
    assert first.disk_size == 5 * 512
    assert image.find("2") is second
    assert image.find("suspend") is first


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (511, 2), (5_000, 3_000), (15_000, 999)])
def test_any_piece_is_what_was_saved(offset: int, length: int) -> None:
    image = Image(Bytes(SMALL))
    state = SnapshotState(image, image.find("suspend"))
    assert state.read(offset, length) == STATE[offset : offset + length]


@pytest.mark.parametrize("extended", [False, True])
def test_clusters_of_zstd(extended: bool) -> None:
    """As qcow2's compression type 1 stores them: a frame, whatever follows it."""
    import zstandard

    kind = Kind(cluster_bits=14, extended=extended, compressed=True)
    plain = make(kind, {"suspend": STATE})
    image = Image(Bytes(plain))
    entry = SnapshotState(image, image.find("suspend")).cluster(0)
    packed = zstandard.ZstdCompressor().compress(STATE.ljust(kind.cluster, b"\0"))
    assert len(packed) <= entry.length
    content = bytearray(plain)
    content[entry.offset : entry.offset + len(packed)] = packed
    content[72:80] = (8 | (16 if extended else 0)).to_bytes(8, "big")
    content[104] = 1
    assert _state_of(bytes(content), "suspend") == STATE


REFUSED = {
    "version 4": (4, struct.pack(">I", 4), "the qcow2 image has version 4"),
    "encrypted": (32, struct.pack(">I", 2), "the qcow2 image is encrypted"),
    "dirty": (72, struct.pack(">Q", 1), "the qcow2 image is marked as dirty"),
    "corrupt": (72, struct.pack(">Q", 2), "the qcow2 image is marked as corrupt"),
    "data file": (72, struct.pack(">Q", 4), "the qcow2 image has its data in another file"),
    "unknown": (72, struct.pack(">Q", 1 << 40), "the incompatible features 0x10000000000"),
    "compression": (104, b"\1", "has compression 1, which it does not declare"),
    "undeclared": (72, struct.pack(">Q", 8), "has compression 0"),
    "clusters": (20, struct.pack(">I", 30), "clusters of 2^30 bytes"),
    "refcounts": (96, struct.pack(">I", 9), "refcounts of 2^9 bits"),
    "header": (100, struct.pack(">I", 105), "the qcow2 header claims 105 bytes"),
    "L1": (36, struct.pack(">I", 0xFFFFFFFF), "the L1 table of the qcow2 image has 343597"),
    "L1 outside": (40, struct.pack(">Q", 1 << 40), "the L1 table of the qcow2 image is said to be"),
    "refcount table": (56, struct.pack(">I", 1 << 20), "the refcount table of the qcow2 image has"),
    "snapshots": (60, struct.pack(">I", 1 << 30), "the snapshot table of the qcow2 image has"),
    "snapshot table": (64, struct.pack(">Q", 7), "said to be at byte 7, where none can be"),
}  # fmt: skip


@pytest.mark.parametrize(("at", "data", "words"), REFUSED.values(), ids=list(REFUSED))
def test_refused_by_name(at: int, data: bytes, words: str) -> None:
    with pytest.raises(StreamError) as fault:
        Image(Bytes(_with(at, data)))
    assert words in str(fault.value)


def test_names_that_are_not_there() -> None:
    image = Image(Bytes(SMALL))
    with pytest.raises(NoSuchSnapshot) as fault:
        image.find("nowhere")
    assert str(fault.value) == (
        "there is no snapshot 'nowhere'; those with a saved state: 'suspend', 'other'"
    )
    with pytest.raises(NoSuchSnapshot) as fault:
        image.only_state(lambda one: f"{one.name} of {one.taken}")
    assert str(fault.value) == (
        "2 snapshots hold a saved state: give one as IMAGE#NAME: "
        "suspend of 2023-11-14T22:13:20Z, other of 2023-11-14T22:13:21Z"
    )
    many = Image(Bytes(make(Kind(cluster_bits=9), {f"s{n}": STATE for n in range(25)})))
    with pytest.raises(NoSuchSnapshot, match=r": s0, s1, .* and 5 more: armferry inspect "):
        many.only_state(lambda one: one.name)
    twice = Image(Bytes(make(Kind(cluster_bits=9), {"suspend": STATE, "x" * 7: STATE})))
    renamed = bytes(twice.window.read(0, twice.window.size)).replace(b"x" * 7, b"suspend")
    with pytest.raises(NoSuchSnapshot) as fault:
        Image(Bytes(renamed)).find("suspend")
    assert str(fault.value) == "2 snapshots have the name 'suspend': give one of the ids 1, 2"
    with pytest.raises(NoSuchSnapshot) as fault:
        Image(Bytes(make(Kind(cluster_bits=9), {}))).only_state(repr)
    assert str(fault.value).startswith("no snapshot in this qcow2 image holds a saved state. QEMU ")


def _uses(content: bytes) -> None:
    """Everything that a command does with an image."""
    image = Image(Bytes(content))
    for snapshot in image.states[:3]:
        state = SnapshotState(image, snapshot)
        state.read(0, 1 << 16)
        state.read(max(0, state.size - 1000), 1000)
        tail = NewTail(max(0, state.size - 100), bytes(200))
        if state.size < 1 << 20:
            new_end(image, snapshot, tail, first=-(-len(content) // image.header.cluster_bytes))


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_bytes_are_read_or_refused(data: st.DataObject) -> None:
    """Numbers of header and tables changed to anything: a named error, or the state."""
    content = bytearray(SMALL)
    tables = [0, *(at for at in range(0, len(SMALL), 512) if SMALL[at : at + 512].strip(b"\0"))]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(tables)) + data.draw(st.integers(0, 63)) * 8
        width = data.draw(st.sampled_from([1, 2, 4, 8]))
        value = data.draw(
            st.one_of(
                st.integers(0, 2 ** (8 * width) - 1),
                st.sampled_from([0, 1, 512, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)]),
            )
        )
        value %= 2 ** (8 * width)
        content[at : at + width] = value.to_bytes(width, "big")
    with contextlib.suppress(StreamError, NoSuchSnapshot):
        _uses(bytes(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: struct.pack_into(">I", content, 60, 65_536),
        lambda content: struct.pack_into(">I", content, 36, 4 << 20),
        lambda content: struct.pack_into(">I", content, 56, 16 << 10),
    ],
)
def test_claims_are_not_believed_in_memory(change: Callable[[bytearray], None]) -> None:
    content = bytearray(SMALL)
    change(content)
    tracemalloc.start()
    with pytest.raises(StreamError):
        _uses(bytes(content))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
