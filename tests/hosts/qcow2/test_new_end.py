"""A state given another end: what was not changed, and every moment in between."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from armferry.hosts.files.patch import Patch, Step
from armferry.hosts.files.qcow2.image import Image
from armferry.hosts.files.qcow2.new_end import new_end
from armferry.hosts.files.qcow2.state import SnapshotState
from armferry.stream import NewTail

from .conftest import Bytes, Kind, count, make

KINDS = {
    "64k": Kind(),
    "512 bytes": Kind(cluster_bits=9),
    "4k, 64-bit refcounts": Kind(cluster_bits=12, refcount_order=6),
    "1k, 8-bit refcounts": Kind(cluster_bits=10, refcount_order=3),
    "4-bit refcounts": Kind(cluster_bits=11, refcount_order=2),
    "2-bit refcounts": Kind(cluster_bits=12, refcount_order=1, disk_clusters=0),
    "1-bit refcounts": Kind(cluster_bits=12, refcount_order=0, disk_clusters=0),
    "2M": Kind(cluster_bits=21, disk_clusters=1),
    "version 2": Kind(version=2, cluster_bits=12),
    "version 2 without extra data": Kind(version=2, cluster_bits=12, extra=0),
    "extended L2, 16k": Kind(cluster_bits=14, extended=True),
    "extended L2, 64k": Kind(extended=True),
    "compressed": Kind(cluster_bits=12, compressed=True),
    "compressed, extended L2": Kind(cluster_bits=14, compressed=True, extended=True),
    "large disk": Kind(cluster_bits=9, disk_clusters=300),
    "more extra data than is known": Kind(cluster_bits=12, extra=64),
    "refcount blocks to be made": Kind(cluster_bits=9, refcount_order=6, disk_clusters=30),
    "full refcount table": Kind(cluster_bits=9, full=True),
    "full refcount table of two clusters": Kind(cluster_bits=9, full=True, table_clusters=2),
    "full, 64-bit refcounts": Kind(cluster_bits=9, refcount_order=6, full=True),
    "unknown auto-clear bit": Kind(cluster_bits=12, autoclear=1 << 40 | 1),
}
SLOW = ("2M", "full refcount table of two clusters")
EVERY_KIND = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            replace(kind, resumed=resumed),
            id=f"{name}{', resumed' * resumed}",
            marks=[pytest.mark.full] if name in SLOW else [],
        )
        for name, kind in KINDS.items()
        for resumed in (False, True)[: 1 + bool(kind.refcount_order)]
    ],
)
NAMES = ("first", "second", "third")


def _states(kind: Kind, seed: int = 0) -> dict[str, bytes]:
    content = random.Random(seed)
    length = min(3 * kind.cluster + 77, 400_000)
    return {name: content.randbytes(length + number) for number, name in enumerate(NAMES)}


def _tail(state: bytes, cut: int, grow: int) -> NewTail:
    offset = len(state) - cut
    return NewTail(offset, random.Random(1).randbytes(max(cut + grow, 1)))


def _steps(image: bytes, name: str, tail: NewTail) -> tuple[Step, ...]:
    opened = Image(Bytes(image))
    first = -(-len(image) // opened.header.cluster_bytes)
    return new_end(opened, opened.find(name), tail, first=first)


def _moments(image: bytes, steps: tuple[Step, ...]) -> Iterator[tuple[int, Bytes]]:
    """The image after every write, with the number of the step that it belongs to."""
    file = Bytes(image)
    for number, step in enumerate(steps):
        for patch in step:
            assert file.read(patch.offset, len(patch.new)) == patch.old
            if patch.old != patch.new:
                file.write(patch.offset, patch.new)
                yield number, file


def _state(image: Bytes, name: str) -> bytes:
    opened = Image(image)
    state = SnapshotState(opened, opened.find(name))
    return state.read(0, state.size)


@EVERY_KIND
@pytest.mark.parametrize(
    ("name", "cut", "grow"), [("first", 900, 40), ("third", 1200, -700), ("first", 1, 6000)]
)
def test_the_state_is_old_or_new_after_every_write(
    kind: Kind, name: str, cut: int, grow: int
) -> None:
    states = _states(kind)
    image = make(kind, states)
    before = count(image)
    assert before.broken == before.marks == set()
    tail = _tail(states[name], cut, grow)
    new = states[name][: tail.offset] + tail.data
    seen: list[bool] = []
    steps = _steps(image, name, tail)
    for _, file in _moments(image, steps):
        found = _state(file, name)
        assert found in (states[name], new)
        seen.append(found == new)
        assert count(bytes(file.content)).broken == set()
    assert seen == sorted(seen)
    assert seen[-1]
    final = count(bytes(file.content))
    assert (final.leaked, final.broken, final.marks) == (before.leaked, set(), set())
    for other in states.keys() - {name}:
        assert _state(file, other) == states[other]


@EVERY_KIND
def test_nothing_else_of_the_image_changes(kind: Kind) -> None:
    states = _states(kind)
    image = make(kind, states)
    before = Image(Bytes(image))
    steps = _steps(image, "second", _tail(states["second"], 300, 500))
    *_, (_, file) = _moments(image, steps)
    after = Image(file)
    assert [one.id for one in after.snapshots] == [one.id for one in before.snapshots]
    for old, new in zip(before.snapshots, after.snapshots, strict=True):
        if old.name != "second":
            assert new == old
        else:
            assert (new.date, new.clock, new.disk_size) == (old.date, old.clock, old.disk_size)
            assert new.state_size == old.state_size + 500
    # the disk is where it was: the first clusters after the header
    disk = slice(kind.cluster, (1 + kind.disk_clusters) * kind.cluster)
    assert file.content[disk] == image[disk]
    assert after.header.autoclear == kind.autoclear & 1
    assert file.content[:48] == image[:48]
    assert file.content[60:64] == image[60:64]


@EVERY_KIND
def test_undone_at_any_moment_the_image_is_what_it_was(kind: Kind) -> None:
    states = _states(kind)
    image = make(kind, states)
    steps = _steps(image, "first", _tail(states["first"], 500, 20))
    done: list[Patch] = []
    file = Bytes(image)
    for patch in (patch for step in steps for patch in step):
        file.write(patch.offset, patch.new)
        done.append(patch)
        back = Bytes(file.content)
        for one in reversed(done):
            back.write(one.offset, one.old)
        assert back.content[: len(image)] == image


def test_the_commit_is_one_write_of_eight_bytes() -> None:
    for kind in KINDS.values():
        states = _states(kind)
        image = make(kind, states)
        turning = [
            step
            for step in _steps(image, "second", _tail(states["second"], 300, 500))
            if any(patch.offset == 64 for patch in step)
        ]
        assert [[len(patch.new) for patch in step] for step in turning] == [[8]]


def test_a_longer_state_gets_a_longer_l1_table() -> None:
    kind = Kind(cluster_bits=9)
    states = _states(kind)
    image = make(kind, states)
    tail = _tail(states["first"], 10, 200_000)
    steps = _steps(image, "first", tail)
    *_, (_, file) = _moments(image, steps)
    before, after = Image(Bytes(image)).find("first"), Image(file).find("first")
    assert after.l1_entries > before.l1_entries
    assert _state(file, "first") == states["first"][: tail.offset] + tail.data
    assert count(bytes(file.content)).broken == set()
