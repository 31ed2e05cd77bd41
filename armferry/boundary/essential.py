"""Registers that a guest cannot run without.

Every Armv8 CPU has them and every kernel uses them: hidden, they would be neither saved nor sent,
and the guest would wake up without its page tables, stacks or interrupts. Source: the Arm
Architecture Reference Manual (DDI 0487), registers present at EL0 and EL1 without any optional
feature. Registers that came with a feature may be hidden: that is what the property is for.
"""

from collections.abc import Iterable

from armferry.registers import Core, Kind, Sve, decode, kind, name

__all__ = ["essential"]

_NAMES = frozenset(
    (
        "AFSR0_EL1", "AFSR1_EL1", "AMAIR_EL1", "CNTKCTL_EL1", "CNTV_CTL_EL0", "CONTEXTIDR_EL1",
        "CPACR_EL1", "CSSELR_EL1", "ELR_EL1", "ESR_EL1", "FAR_EL1", "MAIR_EL1", "MDSCR_EL1",
        "PAR_EL1", "SCTLR_EL1", "SPSR_EL1", "SP_EL0", "SP_EL1", "TCR_EL1", "TIMER_CNT",
        "TIMER_CVAL", "TPIDRRO_EL0", "TPIDR_EL0", "TPIDR_EL1", "TTBR0_EL1", "TTBR1_EL1",
        "VBAR_EL1",
    )
)  # fmt: skip


def essential(indexes: Iterable[int]) -> tuple[int, ...]:
    """Those of `indexes` that a guest cannot run without."""
    return tuple(
        index
        for index in indexes
        if isinstance(decode(index), Core | Sve)
        or name(index) in _NAMES
        or kind(index) is Kind.AFFINITY
    )
