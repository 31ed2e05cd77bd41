"""Whether a guest uses the physical counter, CNTPCT_EL0, told from its own list.

Linux under KVM, and anything else that starts at EL1 as Arm advises, reads the virtual counter.
Kernels before 6.4 leave the physical one to the host: it jumps for a guest that comes from such a
host or goes to one. Bits: CNTKCTL_EL1, CNTP_CTL_EL0 and CNTP_CVAL_EL0 of Arm DDI 0487.
"""

from collections.abc import Mapping

__all__ = ["PHYSICAL_COUNTER", "UNUSED_WHILE", "uses_physical_counter"]

PHYSICAL_COUNTER = 0x6030_0000_0013_DF01
_CONTROL = 0x6030_0000_0013_DF11
_COMPARE = 0x6030_0000_0013_DF12
_ACCESS = 0x6030_0000_0013_C708
_ENABLE = 1
_PROGRAMS_MAY = 1 | 1 << 9
"""EL0PCTEN and EL0PTEN: programs may read the counter, and use its timer."""
UNUSED_WHILE = {_ACCESS: _PROGRAMS_MAY, _CONTROL: _ENABLE, _COMPARE: (1 << 64) - 1}
"""Register -> the bits that are 0 while a guest does not use it."""


def uses_physical_counter(registers: Mapping[int, int]) -> bool:
    """Whether the timer was used, or programs may read the counter.

    A list without the timer, of an older kernel, tells by the access of programs alone; one without
    that access says nothing, and the counter is taken to be in use.
    """
    if _ACCESS not in registers:
        return True
    timer = registers.get(_CONTROL, 0) & _ENABLE or registers.get(_COMPARE, 0)
    return bool(timer) or bool(registers.get(_ACCESS, 0) & _PROGRAMS_MAY)
