"""Register lists of HVF: in the order of QEMU's table, which is kept."""

from collections.abc import Callable

import pytest

from armferry.facts.hvf import hvf_order
from armferry.registers import Accelerator, accelerator_of, parse_register
from armferry.stream import CpuEdit, StateEdit, Window, read_saved, rewrite_tail

from .hvf_streams import HVF_INDEXES, hvf_stream

Named = Callable[[str], bytes]
WindowOn = Callable[[bytes], Window]
GUEST = "tcg_10.0.13_virt-10.0_cortex-a57_8"
MDSCR = parse_register("MDSCR_EL1")


@pytest.mark.parametrize("qemu", ["6.2.0", "10.1.4"])
def test_up_to_10_1_one_register_stands_behind_the_identification_registers(qemu: str) -> None:
    order = hvf_order(HVF_INDEXES, qemu)
    assert [index for index in order if index != MDSCR] == sorted({*HVF_INDEXES} - {MDSCR})
    place = order.index(MDSCR)
    assert order[place - 1] == parse_register("ID_AA64MMFR2_EL1")
    assert order[place + 1] == parse_register("SCTLR_EL1")


@pytest.mark.parametrize("qemu", ["10.2.0", "11.1.3", "10.1.91"])
def test_from_10_2_on_they_ascend(qemu: str) -> None:
    assert hvf_order(HVF_INDEXES, qemu) == HVF_INDEXES


@pytest.mark.parametrize("qemu", ["10.1.0", "10.2.0"])
def test_list_is_read_in_its_own_order_and_told_from_tcgs(
    qemu: str, stream_named: Named, window_on: WindowOn
) -> None:
    stream = hvf_stream(window_on(stream_named(GUEST)), qemu)
    saved = read_saved(window_on(stream))
    assert len(saved.cpus) == 8
    for cpu in saved.cpus:
        assert tuple(cpu.registers) == hvf_order(HVF_INDEXES, qemu)
        assert accelerator_of(cpu.registers) is Accelerator.HVF
    assert saved.sections[-1].name == "hvf-vtimer"


def test_list_is_written_in_the_order_that_is_asked_for(
    stream_named: Named, window_on: WindowOn
) -> None:
    old = hvf_stream(window_on(stream_named(GUEST)), "10.1.0")
    saved = read_saved(window_on(old))
    edits = [
        CpuEdit({index: cpu.registers[index] for index in hvf_order(cpu.registers, "10.2.0")})
        for cpu in saved.cpus
    ]
    tail = rewrite_tail(saved, StateEdit(edits))
    assert tail is not None
    new = read_saved(window_on(old[: tail.offset] + tail.data))
    assert [tuple(cpu.registers) for cpu in new.cpus] == [HVF_INDEXES] * 8
    assert [dict(cpu.registers) for cpu in new.cpus] == [dict(cpu.registers) for cpu in saved.cpus]


def test_index_that_comes_twice_makes_no_list(stream_named: Named, window_on: WindowOn) -> None:
    stream = bytearray(hvf_stream(window_on(stream_named(GUEST)), "10.1.0"))
    at = stream.rindex(MDSCR.to_bytes(8, "big"))
    stream[at : at + 8] = HVF_INDEXES[0].to_bytes(8, "big")
    with pytest.raises(Exception, match="the cpu section holds no register list"):
        read_saved(window_on(bytes(stream)))
