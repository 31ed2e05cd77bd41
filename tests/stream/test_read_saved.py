"""A saved state read from both ends: the same as parsed, or a StreamError."""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from armferry.stream import (
    CpuEdit,
    SavedState,
    StateEdit,
    StreamError,
    StreamParser,
    Window,
    read_saved,
    rewrite_tail,
)
from armferry.stream.devices import SectionWalk
from armferry.stream.events import DeviceSection, DeviceStateBegins

Named = Callable[[str], bytes]
WindowOn = Callable[[bytes], Window]

FUZZ = settings(
    max_examples=5 * settings().max_examples // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NAMES = (
    "tcg_5.2.0_virt-5.2_cortex-a57_2",
    "kvm_6.17_neoverse-n1_10.0.13",
    "virtio-mem",
    "suppress-vmdesc",
    "postcopy",
)
DESCRIBED = (
    "tcg_5.2.0_virt-5.2_cortex-a57_2",
    "tcg_10.0.13_virt-10.0_cortex-a57_8",
    "kvm_6.12_neoverse-n1_10.0.13",
)


@dataclass
class FileWindow:
    """A window over an open file, which counts what was read."""

    file: BinaryIO
    size: int
    bytes_read: int = 0

    def read(self, offset: int, length: int) -> bytes:
        self.file.seek(offset)
        data = self.file.read(length)
        self.bytes_read += len(data)
        return data


def wire(sections: tuple[DeviceSection, ...]) -> list[tuple[str, int, bytes]]:
    return [(section.name, section.instance, section.payload) for section in sections]


def lists(saved: SavedState) -> list[dict[int, int]]:
    return [dict(cpu.registers) for cpu in saved.cpus]


def test_both_ends_say_what_the_parser_says(recorded: bytes, window_on: WindowOn) -> None:
    saved = read_saved(window_on(recorded))
    parser = StreamParser()
    events = [*parser.feed(recorded), *parser.close()]
    if not saved.postcopy:
        begin = next(seen.offset for seen in events if isinstance(seen, DeviceStateBegins))
        assert saved.sections == tuple(
            seen for seen in events if isinstance(seen, DeviceSection) and seen.offset >= begin
        )
        assert saved.state_offset == begin
        assert recorded[saved.end_offset] == 0
    assert saved.size == len(recorded)
    assert saved.blocks[0].length == 64 << 20
    assert all(len(cpu.registers) > 200 for cpu in saved.cpus)


def test_description_and_structure_cut_alike(recorded: bytes, window_on: WindowOn) -> None:
    saved = read_saved(window_on(recorded))
    if saved.postcopy:
        assert saved.description is None
        return
    state = recorded[saved.state_offset : saved.end_offset + 1]
    cut = SectionWalk(saved.state_offset).whole(state)
    assert cut is not None
    assert wire(cut) == wire(saved.sections)


@pytest.mark.parametrize("name", DESCRIBED)
def test_register_lists_are_found_with_and_without_the_description(
    stream_named: Named, window_on: WindowOn, name: str
) -> None:
    stream = stream_named(name)
    described = read_saved(window_on(stream))
    bare = read_saved(window_on(stream[: described.end_offset + 1]))
    assert described.description is not None
    assert bare.description is None
    assert lists(bare) == lists(described)
    assert [cpu.list_offset for cpu in bare.cpus] == [568] * len(bare.cpus)
    for with_it, without in zip(described.cpus, bare.cpus, strict=True):
        assert with_it.pc == without.pc
        assert with_it.features == without.features
        assert with_it.subsections == without.subsections
        assert "cpu/vfp" in [part.name for part in without.subsections]


@pytest.mark.parametrize(
    ("name", "machine", "cpus", "registers", "fresh"),
    [
        ("tcg_5.2.0_virt-5.2_cortex-a57_2", "virt-5.2", 2, 228, True),
        ("tcg_10.0.13_virt-10.0_cortex-a57_8", "virt-10.0", 8, 275, True),
        ("kvm_6.12_neoverse-n1_10.0.13", "virt-10.0", 1, 258, True),
        ("kvm_6.17_neoverse-n1_10.0.13", "virt-10.0", 1, 256, True),
        ("postcopy", "virt-10.0", 1, 275, False),
    ],
)
def test_what_recorded_guests_are(
    stream_named: Named,
    window_on: WindowOn,
    name: str,
    machine: str,
    cpus: int,
    registers: int,
    fresh: bool,
) -> None:
    saved = read_saved(window_on(stream_named(name)))
    assert (saved.machine, len(saved.cpus), saved.fresh) == (machine, cpus, fresh)
    assert {len(cpu.registers) for cpu in saved.cpus} == {registers}


@pytest.mark.parametrize("vcpu", [0, 1])
@pytest.mark.parametrize("place", [0, 64 + 5 * 8, 64 + 31 * 8])  # R0, X5 and the stack pointer
def test_a_guest_that_ran_is_not_fresh_though_qemu_says_prelaunch(
    stream_named: Named, window_on: WindowOn, vcpu: int, place: int
) -> None:
    """loadvm into a QEMU that was started with -S leaves the run state as it was."""
    stream = bytearray(stream_named("tcg_5.2.0_virt-5.2_cortex-a57_2"))
    fresh = read_saved(window_on(bytes(stream)))
    stream[fresh.cpus[vcpu].section.payload_offset + place] = 1
    ran = read_saved(window_on(bytes(stream)))
    assert (fresh.run_state, fresh.fresh) == ("prelaunch", True)
    assert (ran.run_state, ran.fresh) == ("prelaunch", False)


def test_a_postcopy_recording_is_read_and_never_rewritten(
    stream_named: Named, window_on: WindowOn
) -> None:
    stream = stream_named("postcopy")
    saved = read_saved(window_on(stream))
    assert saved.postcopy
    assert saved.run_state == "running"
    for section in saved.sections:
        assert stream[section.payload_offset :].startswith(section.payload)
    with pytest.raises(StreamError) as caught:
        rewrite_tail(saved, StateEdit([CpuEdit(registers) for registers in lists(saved)]))
    assert str(caught.value) == (
        "this is a recording of a postcopy migration, not a saved state "
        f"(at byte {saved.state_offset}); save the guest to a file instead"
    )


def test_a_mapped_ram_file_is_read_without_its_pages(mapped_ram_file: Path) -> None:
    with mapped_ram_file.open("rb") as file:
        window = FileWindow(file, mapped_ram_file.stat().st_size)
        saved = read_saved(window)
    assert window.size > 190 << 20
    assert window.bytes_read < 2 << 20
    assert saved.configuration is not None
    assert saved.configuration.capabilities == ("mapped-ram",)
    assert [block.name for block in saved.blocks][:3] == [
        "mach-virt.ram",
        "virt.flash0",
        "virt.flash1",
    ]
    assert saved.blocks[0].pages_offset == 0x100000
    assert len(saved.cpus[0].registers) == 275


def test_a_foreign_cpu_is_named(stream_named: Named, window_on: WindowOn) -> None:
    """The cpu section of an x86 guest has version 12."""
    stream = stream_named("suppress-vmdesc")
    header = b"\x03cpu\0\0\0\0\0\0\0\x16"
    assert stream.count(header) == 1
    at = stream.index(header) - 5
    with pytest.raises(StreamError) as caught:
        read_saved(window_on(stream.replace(header, header[:-1] + b"\x0c")))
    assert str(caught.value) == (
        "this is no Arm CPU with a register list: its section has version 12, not 22 "
        f"(at byte {at}, section 'cpu' instance 0); armferry carries aarch64 guests only"
    )


def test_a_stream_without_a_cpu_is_named(stream_named: Named, window_on: WindowOn) -> None:
    stream = stream_named("suppress-vmdesc").replace(b"\x03cpu\0", b"\x03gpu\0")
    begin = read_saved(window_on(stream_named("suppress-vmdesc"))).state_offset
    with pytest.raises(StreamError) as caught:
        read_saved(window_on(stream))
    assert str(caught.value) == (
        f"the stream holds no Arm CPU with a register list (at byte {begin}); "
        "armferry carries aarch64 guests only"
    )


@pytest.mark.parametrize("described", [True, False])
def test_a_subsection_that_is_not_there_is_told_on_reading(
    slim_named: Named, window_on: WindowOn, described: bool
) -> None:
    """Not only when the section is rewritten: by then half of a pipe has been written."""
    stream = slim_named(DESCRIBED[0])
    end = read_saved(window_on(stream)).end_offset
    name = b"cpu/irq-line-state"
    if described:
        at = stream.index(name, end)
        broken = stream[:at] + b"cpu/irq-line=state" + stream[at + len(name) :]
        words = "no subsection 'cpu/irq-line=state' begins where one is expected (at byte "
    else:
        at = stream.index(b"\x05\x07cpu/vfp")
        broken = stream[:at] + b"\x15" + stream[at + 1 : end + 1]
        words = "no subsection 'cpu/' begins where one is expected (at byte "
    with pytest.raises(StreamError) as caught:
        read_saved(window_on(broken))
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the input is empty (at byte 0)"),
        (
            b"#!/bin/sh\n",
            "this is no QEMU migration stream: it begins with b'#!/b', not b'QEVM' (at byte 0)",
        ),
    ],
)
def test_no_stream_at_all(window_on: WindowOn, data: bytes, message: str) -> None:
    with pytest.raises(StreamError) as caught:
        read_saved(window_on(data))
    assert str(caught.value) == message


@pytest.mark.parametrize("head", [b"", b"QEVM\0\0\0\3"])
def test_ten_gigabytes_of_zeros_are_told_at_once(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(10 << 30)
    tracemalloc.start()
    try:
        with path.open("rb") as opened:
            window = FileWindow(opened, 10 << 30)
            with pytest.raises(StreamError):
                read_saved(window)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert window.bytes_read < 16 << 20
    assert peak < 16 << 20


@pytest.mark.parametrize("name", DESCRIBED[:2])
def test_a_cut_in_the_device_state_before_a_long_hole_is_told_at_once(
    slim_named: Named, window_on: WindowOn, name: str, tmp_path: Path
) -> None:
    """A disk that filled up under a file whose room was taken beforehand leaves this."""
    stream = slim_named(name)
    begin = read_saved(window_on(stream)).state_offset
    path = tmp_path / "hole"
    for cut in (begin + 1, begin + 50, begin + 9_000):
        with path.open("wb") as file:
            file.write(stream[:cut])
            file.truncate(200 << 20)
        tracemalloc.start()
        try:
            with path.open("rb") as opened, pytest.raises(StreamError) as caught:
                read_saved(FileWindow(opened, 200 << 20))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert str(caught.value) == (
            "neither an end mark nor a description stands at the end "
            f"(at byte {200 << 20}); save the guest again"
        )
        assert peak < 16 << 20


@pytest.mark.parametrize("name", DESCRIBED[:2])
def test_a_flip_in_any_header_or_footer_is_named(
    slim_named: Named, window_on: WindowOn, name: str
) -> None:
    """No section, and so no vCPU, goes missing for want of one bit."""
    stream = bytearray(slim_named(name))
    saved = read_saved(window_on(bytes(stream)))
    assert len(saved.cpus) > 1
    for section in saved.sections:
        for at in (
            *range(section.offset, section.payload_offset),
            *range(section.end, section.end + 5),
        ):
            for bit in (1 << at % 8, 1 << (at + 3) % 8):
                stream[at] ^= bit
                with pytest.raises(StreamError):
                    read_saved(window_on(bytes(stream)))
                stream[at] ^= bit


@given(name=st.sampled_from(DESCRIBED), data=st.data())
@FUZZ
def test_a_flip_in_the_description_loses_no_section(
    slim_named: Named, window_on: WindowOn, name: str, data: st.DataObject
) -> None:
    stream = bytearray(slim_named(name))
    saved = read_saved(window_on(bytes(stream)))
    at = data.draw(st.integers(saved.end_offset + 6, len(stream) - 1))
    stream[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        again = read_saved(window_on(bytes(stream)))
    except StreamError:
        event("refused")
    else:
        assert wire(again.sections) == wire(saved.sections)
        assert lists(again) == lists(saved)
        event("read")


@pytest.mark.parametrize("name", NAMES)
def test_cut_anywhere_raises_a_stream_error(
    slim_named: Named, window_on: WindowOn, name: str
) -> None:
    stream = slim_named(name)
    saved = read_saved(window_on(stream))
    for cut in (*range(600), *range(600, len(stream), 97)):
        if cut == saved.end_offset + 1:
            continue
        with pytest.raises(StreamError):
            read_saved(window_on(stream[:cut]))


@given(name=st.sampled_from(NAMES), data=st.data())
@FUZZ
def test_flipped_bits_read_or_raise_a_stream_error(
    slim_named: Named, window_on: WindowOn, name: str, data: st.DataObject
) -> None:
    stream = bytearray(slim_named(name))
    low = data.draw(st.sampled_from([0, len(stream) - 14_000, len(stream) - 30_000]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(low, len(stream) - 1))
        stream[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        saved = read_saved(window_on(bytes(stream)))
        for cpu in saved.cpus:
            assert cpu.features < 1 << 64
            assert len(cpu.subsections) <= 64
    except StreamError:
        event("refused")
    else:
        event("read")
