"""Values that QEMU under TCG does not keep: refused, or sent without what means nothing.

QEMU reads each register back after writing it; a bit that did not stay ends the load, on the very
release that wrote it too (perf events leave bits above 31 in event counters). Where the
architecture has such bits as RES0 they mean nothing to a guest and are left out. Which bits stay is
measured (`facts.kept`). RES0: Arm DDI 0487, the page of each register.
"""

from collections.abc import Mapping

from armferry.ends import Destination
from armferry.facts import tcg_ignores_writes
from armferry.registers import Accelerator, counts_vcpus, describe

__all__ = ["meaningless", "never_changes", "not_kept"]

_HIGH_HALF = 0xFFFF_FFFF << 32
_DFR0 = 0x6030_0000_0013_C028
_PMU_SHIFT = 8
_PMU_3_5 = 6
_IMPLEMENTATION_DEFINED = 0xF
_EVENT_COUNTERS = frozenset(f"PMEVCNTR{number}_EL0" for number in range(31))
_VECTOR_BASES = frozenset(f"VBAR_EL{level}" for level in (1, 2, 3))


def not_kept(index: int, value: int, destination: Destination) -> int:
    """The bits of `value` that do not read back as written. HVF reads back as TCG does."""
    if destination.accelerator is Accelerator.KVM:
        return 0
    differing = value ^ destination.registers[index]
    kept = _kept(index, destination)
    if not kept and counts_vcpus(index) and not destination.same_vcpus:
        return 0
    return differing & ~kept


def never_changes(index: int, destination: Destination) -> bool:
    """Whether TCG keeps its own value of a register whatever is written."""
    known = destination.same_vcpus or not counts_vcpus(index)
    return known and not _kept(index, destination)


def _kept(index: int, destination: Destination) -> int:
    measured = destination.kept.get(index)
    return (0 if tcg_ignores_writes(index) else ~0) if measured is None else measured


def meaningless(index: int, bits: int, registers: Mapping[int, int]) -> bool:
    """Whether the architecture has all of `bits` of a register as RES0 on this CPU.

    `registers` is a list of the CPU, for its identification registers.
    """
    return not bits & ~_res0(index, registers)


def _res0(index: int, registers: Mapping[int, int]) -> int:
    if index >> 60 == 4:
        return _HIGH_HALF if index >> 52 & 0xF == 2 else 0  # AArch32, 32 bits wide
    name = describe(index).name
    if name in _EVENT_COUNTERS and not _long_event_counters(registers):
        return _HIGH_HALF
    if name in _VECTOR_BASES:
        return 0x7FF
    return 0


def _long_event_counters(registers: Mapping[int, int]) -> bool:
    """Whether event counters have 64 bits: with FEAT_PMUv3p5."""
    version = registers.get(_DFR0, 0) >> _PMU_SHIFT & 0xF
    return _PMU_3_5 <= version < _IMPLEMENTATION_DEFINED
