"""Streams as QEMU saves them under HVF, made of recorded ones: no Mac was at hand.

The register list is HVF's (target/arm/hvf/hvf.c: hvf_sreg_match, without what its build leaves
out), with the values that a TCG guest had; the section `hvf-vtimer` follows that of the vCPU.
"""

from armferry.facts.hvf import hvf_order
from armferry.registers import Arm64System, encode
from armferry.stream import CpuEdit, StateEdit, Window, read_saved, rewrite_tail
from armferry.stream.events import DeviceSection
from armferry.stream.rewrite import rewrite_sections
from armferry.stream.wire import SectionType

__all__ = ["HVF_INDEXES", "OLD_PFR1", "PFR1", "hvf_stream"]

PFR1 = 0x603000000013C021
OLD_PFR1 = 0x603000000013C022
_DEBUG = [(2, 0, 0, number, op2) for number in range(16) for op2 in (4, 5, 6, 7)]
_OTHERS = [
    *[(3, 0, 0, crm, op2) for crm, op2 in ((4, 1), (5, 0), (5, 1), (6, 0), (6, 1), (7, 1), (7, 2))],
    *[(2, 0, 0, 2, 2), (3, 0, 1, 0, 0), (3, 0, 1, 0, 2)],
    *[(3, 0, 2, crm, op2) for crm, op2 in ((0, 0), (0, 1), (0, 2))],
    *[(3, 0, 2, crm, op2) for crm in (1, 2) for op2 in range(4)],
    *[(3, 0, 2, 3, 0), (3, 0, 2, 3, 1)],
    *[(3, 0, 4, 0, 0), (3, 0, 4, 0, 1), (3, 0, 4, 1, 0)],
    *[(3, 0, 5, 1, 0), (3, 0, 5, 1, 1), (3, 0, 5, 2, 0), (3, 0, 6, 0, 0), (3, 0, 7, 4, 0)],
    *[(3, 0, 10, 2, 0), (3, 0, 10, 3, 0), (3, 0, 12, 0, 0), (3, 0, 13, 0, 1), (3, 0, 13, 0, 4)],
    *[(3, 0, 14, 1, 0), (3, 2, 0, 0, 0), (3, 3, 13, 0, 2), (3, 3, 13, 0, 3)],
    *[(3, 3, 14, 3, 1), (3, 3, 14, 3, 2), (3, 4, 4, 1, 0)],
]
HVF_INDEXES = tuple(sorted(encode(Arm64System(*one)) for one in (*_DEBUG, *_OTHERS)))


def hvf_stream(window: Window, qemu: str, changes: dict[int, int] | None = None) -> bytes:
    """The guest in `window` as the QEMU of version `qemu` would save it under HVF.

    `changes` are values of registers, or None for one that is not there.
    """
    saved = read_saved(window)
    edits = []
    for cpu in saved.cpus:
        values = {index: cpu.registers.get(index, 0) for index in HVF_INDEXES} | (changes or {})
        edits.append(CpuEdit({index: values[index] for index in hvf_order(values, qemu)}))
    tail = rewrite_tail(saved, StateEdit(edits))
    assert tail is not None
    whole = window.read(0, tail.offset) + tail.data
    mark = whole.rindex(bytes([SectionType.END, SectionType.DESCRIPTION]))
    while int.from_bytes(whole[mark + 2 : mark + 6], "big") != len(whole) - mark - 6:
        mark = whole.rindex(bytes([SectionType.END, SectionType.DESCRIPTION]), 0, mark)
    timer = DeviceSection(0, 99, "hvf-vtimer", 0, 1, 0, bytes(8), None)
    return whole[:mark] + rewrite_sections([timer], {}) + bytes([SectionType.END])
