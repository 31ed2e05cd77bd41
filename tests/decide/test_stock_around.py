"""What stock QEMU says of a guest before any register: machine type, memory, vCPUs, devices."""

from dataclasses import replace

import pytest

from armferry.decide import MessageClass, stock_verdict
from armferry.ends import End, Move
from armferry.registers import Accelerator
from armferry.stream.description import DeviceLayout, FieldLayout, StructLayout
from armferry.stream.events import RamBlock

RAM = RamBlock("mach-virt.ram", 64 << 20)
EINVAL = "load of migration failed: Invalid argument"
IN_RAM = "error while loading state for instance 0x0 of device 'ram'"
OWN_LINE, ONE_LINE = "10.0.13", "11.1.3"


def move(
    qemu: str,
    machines: tuple[str, str] = ("virt-10.0", "virt-10.0"),
    memory: tuple[tuple[RamBlock, ...], tuple[RamBlock, ...]] = ((), ()),
    devices: tuple[DeviceLayout, ...] = (),
    vcpus: tuple[int, int] = (1, 1),
    *,
    whole: bool = True,
) -> Move:
    lists: tuple[dict[int, int], ...] = ({},)
    accelerator = Accelerator.TCG
    guest = End(
        "GUEST",
        lists * vcpus[0],
        accelerator,
        False,
        guest=True,
        machine=machines[0],
        memory=memory[0],
        devices=devices,
    )
    host = End(
        "HOST",
        lists * vcpus[1],
        accelerator,
        True,
        whole=whole,
        machine=machines[1],
        memory=memory[1],
        devices=devices,
    )
    return Move.between(guest, host, qemu=qemu)


def test_another_machine_type() -> None:
    names = ("virt-9.2", "virt-10.0")
    cause = "Machine type received is 'virt-9.2' and local is 'virt-10.0'"
    older, newer = (stock_verdict(move(qemu, names)) for qemu in (OWN_LINE, ONE_LINE))
    assert older.message_class is newer.message_class is MessageClass.MACHINE_TYPE
    assert not older.loads
    assert older.message == f"{cause}\n{EINVAL}"
    assert newer.message == (
        f"{EINVAL}: post load hook failed for: configuration, version_id: 1, minimum_version: 0: "
        f"{cause}"
    )
    assert stock_verdict(move(OWN_LINE)).loads


@pytest.mark.parametrize(
    ("here", "there", "group", "cause"),
    [
        (
            RamBlock("mem1", 1),
            None,
            MessageClass.UNKNOWN_BLOCK,
            'Unknown ramblock "mem1", cannot accept migration',
        ),
        (
            RAM,
            RamBlock("mach-virt.ram", 32 << 20),
            MessageClass.BLOCK_SIZE,
            "Size mismatch: mach-virt.ram: 0x4000000 != 0x2000000: Invalid argument",
        ),
        (
            RamBlock("/rom@etc/acpi/rsdp", 0x2000),
            RamBlock("/rom@etc/acpi/rsdp", 0x800),
            MessageClass.BLOCK_SIZE,
            "Size too large: /rom@etc/acpi/rsdp: 0x2000 > 0x1000: Invalid argument",
        ),
        (
            RamBlock("mach-virt.ram", 64 << 20, 4096),
            RamBlock("mach-virt.ram", 64 << 20, 2 << 20),
            MessageClass.BLOCK_SIZE,
            "Mismatched RAM page size mach-virt.ram (local) 2097152 != 4096",
        ),
    ],
)
def test_another_block_of_memory(
    here: RamBlock, there: RamBlock | None, group: MessageClass, cause: str
) -> None:
    memory = ((here,), (there,) if there else ())
    older, newer = (stock_verdict(move(qemu, memory=memory)) for qemu in (OWN_LINE, ONE_LINE))
    assert (older.loads, older.message_class, newer.message_class) == (False, group, group)
    assert older.message == f"{cause}\n{IN_RAM}\n{EINVAL}"
    assert newer.message == (
        f"{cause}\n{EINVAL}: {IN_RAM}: Failed to load vmstate version_id: 4, ret: -22"
    )


def test_what_only_the_record_lacks_or_only_the_destination_has_loads() -> None:
    for memory, whole in (
        (((RAM,), (RamBlock("mach-virt.ram", 1),)), False),
        (((), (RAM,)), True),
    ):
        assert stock_verdict(move(OWN_LINE, memory=memory, whole=whole)).loads


def device(name: str, *parts: StructLayout, inner: StructLayout | None = None) -> DeviceLayout:
    field = FieldLayout("queue", "struct" if inner else "uint64", 8, 1, inner)
    return DeviceLayout(name, 0, 1, StructLayout(name, 1, (field,), parts))


def test_another_number_of_vcpus_with_a_gicv3() -> None:
    gic = (device("arm_gicv3"),)
    other = stock_verdict(move(OWN_LINE, devices=gic, vcpus=(2, 1)))
    assert (other.loads, other.message_class) == (False, MessageClass.VCPUS)
    for same in (
        move(OWN_LINE, devices=gic, vcpus=(2, 2)),
        move(OWN_LINE, devices=gic, vcpus=(2, 1), whole=False),
        move(OWN_LINE, devices=(device("arm_gic"),), vcpus=(2, 1)),
    ):
        assert stock_verdict(same).loads


@pytest.mark.parametrize("qemu", [OWN_LINE, "5.2.0"])
def test_a_subsection_of_a_device_that_the_release_does_not_know(qemu: str) -> None:
    part = StructLayout("arm_gicv3/gicd_nmi", 1, (), ())
    known = qemu != "5.2.0"
    outer = stock_verdict(move(qemu, devices=(device("arm_gicv3", part),)))
    assert outer.loads is known
    inside = StructLayout("arm_gicv3/irq", 1, (), (part,))
    nested = stock_verdict(move(qemu, devices=(device("arm_gicv3", inner=inside),)))
    assert nested.loads is known
    if not known:
        assert outer.message_class is nested.message_class is MessageClass.UNKNOWN_SUBSECTION
        assert outer.message == (
            "error while loading state for instance 0x0 of device 'arm_gicv3'\n"
            "load of migration failed: No such file or directory"
        )
        assert nested.message == f"Failed to load arm_gicv3:queue\n{outer.message}"


def test_the_first_refused_block_behind_one_of_the_record_is_named() -> None:
    there = (RamBlock("mach-virt.ram", 1), RamBlock("pvtime", 4096))
    here = (RAM, RamBlock("pvtime", 65536))
    verdict = stock_verdict(move(OWN_LINE, memory=(here, there), whole=False))
    assert verdict.message.startswith("Size mismatch: pvtime: 0x10000 != 0x1000: ")


@pytest.mark.parametrize(
    ("name", "whole", "loads"),
    [
        ("0000:00:01.0/virtio-net", False, True),
        ("0000:00:01.0/virtio-net", True, False),
        ("pl031", False, False),
    ],
)
def test_a_device_of_the_command_line_is_there_unless_the_record_is_whole(
    name: str, whole: bool, loads: bool
) -> None:
    made = move(OWN_LINE, devices=(device("pl011"),), whole=whole)
    guest = replace(made.source, devices=(device("pl011"), device(name)))
    assert stock_verdict(replace(made, source=guest)).loads is loads


def test_a_newer_release_names_the_subsection_that_it_does_not_know() -> None:
    """`virtio/128bit_features` came with 11.1."""
    newer = device("virtio", StructLayout("virtio/128bit_features", 1, (), ()))
    assert stock_verdict(move(ONE_LINE, devices=(newer,))).loads
    verdict = stock_verdict(move("11.0.2", devices=(newer,)))
    assert verdict.message_class is MessageClass.UNKNOWN_SUBSECTION
    assert verdict.message == (
        f"{EINVAL}: error while loading state for instance 0x0 of device 'virtio': "
        "VM subsection 'virtio/128bit_features' in 'virtio' does not exist"
    )
