"""Guest memory: the blocks that both ends list, compared in the order in which QEMU reads them.

Knows what QEMU does with each block of the stream (`parse_ramblock`, migration/ram.c): one that it
has not, or has in another size, ends the load before any device; one that does not come stays as
it is; the ACPI blobs of firmware grow and shrink. Measured on 5.2.0 to 11.1.3 (docs/memory.md).
Refuses to know pages: only names and sizes are compared.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # a move of two fingerprints reads no stream
    from armferry.stream.events import RamBlock


__all__ = [
    "STEAL_TIME",
    "BlockDifference",
    "BlockKind",
    "BlockProblem",
    "compare_memory",
    "grown_limit",
    "host_page_bytes",
    "kind_of_block",
    "size_text",
]

STEAL_TIME = "pvtime"
"""The block with KVM's record of stolen time."""
_STEAL_TIME_BYTES = 64
"""Bytes of each vCPU in `pvtime`, which is rounded up to a page of the host."""
_PAGES = (4 << 10, 16 << 10, 64 << 10)
"""The page sizes of arm64 kernels in bytes."""
_BOARD = ("mach-virt.ram", "sbsa-ref.ram", "ram")
_GROWING = "/rom@"
"""What firmware reads through fw_cfg: QEMU resizes such a block to what comes."""
_LARGEST = {
    "/rom@etc/acpi/tables": 0x200000,
    "/rom@etc/table-loader": 0x10000,
    "/rom@etc/acpi/rsdp": 0x1000,
}
"""Bytes up to which they grow: hw/acpi/utils.c."""


class BlockKind(enum.Enum):
    """Where a block comes from. The value is the word to print."""

    BOARD = "the board's memory"
    FLASH = "firmware flash"
    TABLES = "tables for the firmware"
    ROM = "boot ROM of a device"
    TAGS = "memory tags"
    SECURE = "secure memory"
    STEAL_TIME = "KVM's stolen-time page"
    DEVICE = "memory of a device"
    BACKEND = "memory backend"


class BlockProblem(enum.Enum):
    """What differs."""

    MISSING = "missing"
    SIZE = "size"
    TOO_LARGE = "too large"
    PAGE_SIZE = "page size"
    ONLY_THERE = "only on the destination"


@dataclass(frozen=True, slots=True)
class BlockDifference:
    """One block that is not the same on both ends; sizes in bytes, None where it is missing.

    For PAGE_SIZE they are page sizes. `of_record` says that the difference is one between the guest
    and the command line with which the destination was recorded, not one of the hosts.
    """

    name: str
    problem: BlockProblem
    here: int | None
    there: int | None
    of_record: bool

    @property
    def kind(self) -> BlockKind:
        """Where the block comes from."""
        return kind_of_block(self.name)

    @property
    def refused(self) -> bool:
        """Whether QEMU ends the load for it."""
        return self.problem is not BlockProblem.ONLY_THERE


def kind_of_block(name: str) -> BlockKind:
    """Where the block called `name` comes from: names are QEMU's, of its Arm boards."""
    if name in _BOARD:
        return BlockKind.BOARD
    if name == STEAL_TIME:
        return BlockKind.STEAL_TIME
    if name.endswith((".tag", "secure-tag")):
        return BlockKind.TAGS
    if name.endswith("secure-ram"):
        return BlockKind.SECURE
    if name.startswith(_GROWING):
        return BlockKind.TABLES
    if ".flash" in name:
        return BlockKind.FLASH
    if name.endswith(".rom"):
        return BlockKind.ROM
    return BlockKind.DEVICE if "/" in name or name.endswith("vram") else BlockKind.BACKEND


def compare_memory(
    source: Sequence[RamBlock], destination: Sequence[RamBlock], *, whole: bool
) -> tuple[BlockDifference, ...]:
    """Every block that differs, in the order of the stream; those only on the destination last.

    `whole` says that the destination was recorded with the guest's own memory and devices.
    """
    return tuple(_differences(source, {block.name: block for block in destination}, whole))


def _differences(
    source: Sequence[RamBlock], there: dict[str, RamBlock], whole: bool
) -> Iterator[BlockDifference]:
    for block in source:
        of_record = not whole and kind_of_block(block.name) in _OF_THE_COMMAND_LINE
        own = there.pop(block.name, None)
        if own is None:
            yield BlockDifference(block.name, BlockProblem.MISSING, block.length, None, of_record)
        elif own.length != block.length:
            problem = BlockProblem.SIZE
            if block.name.startswith(_GROWING):
                if block.length <= _LARGEST.get(block.name, own.length):
                    continue
                problem = BlockProblem.TOO_LARGE
            yield BlockDifference(block.name, problem, block.length, own.length, of_record)
        elif block.page_size and own.page_size and own.page_size != block.page_size:
            yield BlockDifference(
                block.name, BlockProblem.PAGE_SIZE, block.page_size, own.page_size, of_record
            )
    for name, own in there.items():
        of_record = not whole and kind_of_block(name) in _OF_THE_COMMAND_LINE
        yield BlockDifference(name, BlockProblem.ONLY_THERE, None, own.length, of_record)


_OF_THE_COMMAND_LINE = (
    BlockKind.BOARD,
    BlockKind.ROM,
    BlockKind.DEVICE,
    BlockKind.BACKEND,
)
"""What `-m`, `-device` and `-object` decide; the rest hangs on the machine type, its properties,
the CPU and the host, which every record is of."""


def host_page_bytes(blocks: Sequence[RamBlock], vcpus: int) -> int | None:
    """The page size of the host that has these blocks, as far as `pvtime` tells it; else None."""
    for block in blocks:
        if block.name == STEAL_TIME:
            needed = vcpus * _STEAL_TIME_BYTES
            fitting = [page for page in _PAGES if -(-needed // page) * page == block.length]
            return fitting[0] if len(fitting) == 1 else None
    return None


def grown_limit(name: str) -> int:
    """Bytes up to which QEMU lets the block called `name` grow; 0 for one that does not grow."""
    return _LARGEST.get(name, 0)


def size_text(size: int) -> str:
    """A size as people write it: `64 MiB`, `1536 KiB`, `4097 bytes`."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and not size % (1 << shift):
            return f"{size >> shift} {unit}"
    return f"{size} bytes"
