"""Blocks of guest memory that differ: what is refused, what only the record has, what to do."""

from dataclasses import replace

import pytest

from armferry.decide import Weight, compare_circumstances
from armferry.decide.circumstance import CircumstanceKind
from armferry.decide.memory import (
    BlockKind,
    BlockProblem,
    compare_memory,
    grown_limit,
    host_page_bytes,
    kind_of_block,
    size_text,
)
from armferry.ends import End, Move
from armferry.policy import EMPTY
from armferry.registers import Accelerator
from armferry.stream.events import RamBlock

RAM = RamBlock("mach-virt.ram", 64 << 20)
MIB = 1 << 20


def said(
    here: tuple[RamBlock, ...],
    there: tuple[RamBlock, ...],
    *,
    whole: bool = True,
    vcpus: int = 1,
) -> list[tuple[Weight, bool, str]]:
    cpus: tuple[dict[int, int], ...] = ({},) * vcpus
    guest = End("GUEST", cpus, Accelerator.KVM, False, guest=True, memory=here)
    host = End("HOST", cpus, Accelerator.KVM, True, whole=whole, memory=there)
    return [
        (one.weight, one.of_record, str(one))
        for one in compare_circumstances(Move.between(guest, host), EMPTY.accepted)
        if one.kind is CircumstanceKind.MEMORY
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mach-virt.ram", BlockKind.BOARD),
        ("sbsa-ref.ram", BlockKind.BOARD),
        ("ram", BlockKind.BOARD),
        ("pvtime", BlockKind.STEAL_TIME),
        ("mach-virt.tag", BlockKind.TAGS),
        ("mach-virt.secure-tag", BlockKind.TAGS),
        ("virt.secure-ram", BlockKind.SECURE),
        ("/rom@etc/acpi/tables", BlockKind.TABLES),
        ("virt.flash0", BlockKind.FLASH),
        ("0000:00:01.0/virtio-net-pci.rom", BlockKind.ROM),
        ("0000:00:02.0/vram", BlockKind.DEVICE),
        ("vga.vram", BlockKind.DEVICE),
        ("mem0", BlockKind.BACKEND),
    ],
)
def test_where_a_block_comes_from(name: str, kind: BlockKind) -> None:
    assert kind_of_block(name) is kind


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1 << 30, "1 GiB"),
        (3 << 29, "1536 MiB"),
        (64 << 20, "64 MiB"),
        (1536 << 10, "1536 KiB"),
        (4097, "4097 bytes"),
        (0, "0 bytes"),
    ],
)
def test_sizes_as_people_write_them(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("length", "vcpus", "page"),
    [
        (4 << 10, 1, 4 << 10),
        (16 << 10, 1, 16 << 10),
        (64 << 10, 1, 64 << 10),
        (8 << 10, 128, 4 << 10),
        (8 << 10, 65, 4 << 10),
        (64 << 10, 1024, None),  # fits each of them
        (5 << 10, 1, None),
    ],
)
def test_stolen_time_tells_the_hosts_pages(length: int, vcpus: int, page: int | None) -> None:
    assert host_page_bytes((RAM, RamBlock("pvtime", length)), vcpus) == page
    assert host_page_bytes((RAM,), vcpus) is None


def test_tables_of_the_firmware_grow_so_far() -> None:
    name = "/rom@etc/table-loader"
    assert grown_limit(name) == 64 << 10
    assert grown_limit("mach-virt.ram") == 0
    own = (RamBlock(name, 4 << 10),)
    assert compare_memory((RamBlock(name, 64 << 10),), own, whole=True) == ()
    (beyond,) = compare_memory((RamBlock(name, (64 << 10) + 1),), own, whole=True)
    assert (beyond.problem, beyond.refused) == (BlockProblem.TOO_LARGE, True)
    # one that is not known may shrink to nothing, but not grow
    other = RamBlock("/rom@etc/other", 4096)
    assert compare_memory((replace(other, length=1),), (other,), whole=True) == ()
    assert compare_memory((replace(other, length=4097),), (other,), whole=True) != ()


def test_equal_memory_is_not_mentioned() -> None:
    assert said((RAM,), (RAM,)) == []
    assert said((RAM,), (replace(RAM, page_size=2 * MIB),)) == []
    assert said((replace(RAM, page_size=2 * MIB),), (replace(RAM, page_size=2 * MIB),)) == []


@pytest.mark.parametrize(
    ("here", "there", "text"),
    [
        (
            RAM,
            replace(RAM, length=128 << 20),
            (
                "memory block mach-virt.ram (the board's memory) has 64 MiB here, 128 MiB on the "
                "destination: start the destination with -m 64M"
            ),
        ),
        (
            replace(RAM, length=(64 << 20) + 1024),
            RAM,
            (
                "memory block mach-virt.ram (the board's memory) has 65537 KiB here, 64 MiB on "
                "the destination: start the destination with -m 65537K"
            ),
        ),
        (
            RAM,
            None,
            (
                "memory block mach-virt.ram (64 MiB, the board's memory) is not on the "
                "destination: start the destination with the same memory and devices as the "
                "source"
            ),
        ),
        (
            None,
            RamBlock("mem1", 1 << 30),
            (
                "memory block mem1 (1 GiB, memory backend) is only on the destination: QEMU lets "
                "it be, it keeps what it holds there"
            ),
        ),
        (
            replace(RAM, page_size=2 * MIB),
            replace(RAM, page_size=1 << 30),
            (
                "memory block mach-virt.ram is made of pages of 2 MiB here, of 1 GiB on the "
                "destination: start the destination with -m 2M"
            ),
        ),
        (
            RamBlock("0000:00:01.0/nic.rom", 256 << 10),
            None,
            (
                "memory block 0000:00:01.0/nic.rom (256 KiB, boot ROM of a device) is not on the "
                "destination: start the destination with the same device, and give that a boot "
                "ROM of this size: romfile=FILE; nothing of the guest is in it, QEMU fills it "
                "from the file"
            ),
        ),
        (
            RamBlock("0000:00:01.0/nic.rom", 256 << 10),
            RamBlock("0000:00:01.0/nic.rom", 512 << 10),
            (
                "memory block 0000:00:01.0/nic.rom (boot ROM of a device) has 256 KiB here, 512 "
                "KiB on the destination: the device's boot ROM is another file; give the "
                "destination's device romfile=FILE with the source's, or romsize=262144 where "
                "its own is smaller"
            ),
        ),
        (
            RamBlock("mach-virt.tag", 2 * MIB),
            None,
            (
                "memory block mach-virt.tag (2 MiB, memory tags) is not on the destination: the "
                "guest was started with mte=on: start the destination with -machine mte=on; if the "
                "guest never touched it, armferry ferry --leave-out mach-virt.tag"
            ),
        ),
        (
            RamBlock("virt.secure-ram", 16 * MIB),
            None,
            (
                "memory block virt.secure-ram (16 MiB, secure memory) is not on the destination: "
                "the guest was started with secure=on: start the destination with -machine "
                "secure=on; if the guest never touched it, armferry ferry --leave-out "
                "virt.secure-ram"
            ),
        ),
        (
            RamBlock("pvtime", 4096),
            None,
            (
                "memory block pvtime (4 KiB, KVM's stolen-time page) is not on the destination: "
                "its kernel or QEMU does not account stolen time, or it was started with "
                "kvm-steal-time=off: give the destination -cpu host,kvm-steal-time=on, or the "
                "guest kvm-steal-time=off from its start"
            ),
        ),
        (
            RamBlock("pvtime", 4096),
            RamBlock("pvtime", 64 << 10),
            (
                "memory block pvtime (KVM's stolen-time page) has 4 KiB here, 64 KiB on the "
                "destination: the hosts' kernels have pages of 4 KiB and 64 KiB; move the guest "
                "to a host whose kernel has the same page size, or start it with -cpu "
                "host,kvm-steal-time=off on both"
            ),
        ),
        (
            RamBlock("/rom@etc/acpi/rsdp", 4096),
            None,
            (
                "memory block /rom@etc/acpi/rsdp (4 KiB, tables for the firmware) is not on the "
                "destination: the guest has ACPI tables: start the destination without acpi=off"
            ),
        ),
        (
            RamBlock("/rom@etc/acpi/rsdp", 8192),
            RamBlock("/rom@etc/acpi/rsdp", 4096),
            (
                "memory block /rom@etc/acpi/rsdp (tables for the firmware) has 8 KiB here, 4 KiB "
                "on the destination: start the destination with the same memory and devices as "
                "the source"
            ),
        ),
        (
            RamBlock("virt.flash0", 64 << 20),
            RamBlock("virt.flash0", 32 << 20),
            (
                "memory block virt.flash0 (firmware flash) has 64 MiB here, 32 MiB on the "
                "destination: start the destination with the same memory and devices as the "
                "source"
            ),
        ),
    ],
)
def test_what_differs_and_what_to_do(
    here: RamBlock | None, there: RamBlock | None, text: str
) -> None:
    ((weight, of_record, words),) = said((here,) if here else (), (there,) if there else ())
    assert words == text
    assert weight is (Weight.REFUSED if here else Weight.NOTED)
    assert not of_record


def test_pages_that_stolen_time_does_not_tell() -> None:
    odd = said((RamBlock("pvtime", 5 << 10),), (RamBlock("pvtime", 4 << 10),))
    assert "have pages of another size and 4 KiB; move" in odd[0][2]


def test_a_record_without_the_guests_memory_says_so() -> None:
    nic = RamBlock("0000:00:01.0/nic.rom", 256 << 10)
    more = RamBlock("mem1", 1 << 30)
    here, there = (RAM, nic, RamBlock("virt.flash0", 1)), (replace(RAM, length=MIB), more)
    (board, flash) = said(here, there, whole=False)
    assert board == (
        Weight.NOTED,
        True,
        (
            "memory block mach-virt.ram (the board's memory) has 64 MiB here, 1 MiB on the "
            "destination: that comes from the fingerprint, made without the guest's own command "
            "line; start the destination with -m 64M"
        ),
    )
    # the flash is of the machine type, which every record is of
    assert (flash[0], flash[1]) == (Weight.REFUSED, False)
    assert [weight for weight, _, _ in said(here, there)] == [
        *(Weight.REFUSED, Weight.REFUSED, Weight.REFUSED, Weight.NOTED)
    ]


def test_memory_of_the_board_that_only_a_record_has_is_not_worth_a_word() -> None:
    assert said((), (RAM,), whole=False) == []
    assert said((), (RAM,)) != []


def test_memory_tags_of_another_size_cannot_be_left_out() -> None:
    here, there = RamBlock("mach-virt.tag", 2 * MIB), RamBlock("mach-virt.tag", 4 * MIB)
    assert said((here,), (there,)) == [
        (
            Weight.REFUSED,
            False,
            (
                "memory block mach-virt.tag (memory tags) has 2 MiB here, 4 MiB on the "
                "destination: the guest was started with mte=on: start the destination with "
                "-machine mte=on"
            ),
        )
    ]
