"""Rules of the boundary: what is to be done with one register of a guest's vCPUs.

Knows what the library can do and which vCPU feature a register hangs on. Refuses to know why a
register is treated so. Features: KVM_ARM_VCPU_INIT in Documentation/virt/kvm/api.rst.
"""

import enum
from dataclasses import dataclass

from armferry.hosts.fingerprints.kvm import Feature
from armferry.registers import Accelerator, Kind, kind, name

__all__ = ["ALL_BITS", "Action", "Rule", "carry", "hide", "needs_of", "pin", "take", "watch"]

ALL_BITS = (1 << 64) - 1


class Action(enum.IntEnum):
    """What the library does; the numbers are those of its table."""

    HIDE = 1
    """The register does not exist for the guest's QEMU."""
    SET = 2
    """Given the bits `mask` of `value` whenever the vCPU is initialised, and read back."""
    REFUSE = 3
    """A write is refused unless its bits `mask` are those of `value`."""
    KEEP = 4
    """A write leaves the bits `mask` as they are."""
    CAP = 5
    """A write of more than `value` writes `value`."""
    CARRY = 6
    """Listed where the kernel lacks it; `value` is what it holds after reset."""
    WATCH = 7
    """Read together with `index`, the hidden register `value` is reported if it is not `mask`."""


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """One rule for the register `index`; `needs` are vCPU features without which it is left out."""

    index: int
    action: Action
    value: int = 0
    mask: int = 0
    needs: frozenset[Feature] = frozenset()

    @property
    def name(self) -> str:
        """The register by name."""
        return name(self.index, Accelerator.KVM)


def hide(index: int) -> Rule:
    """The register does not exist."""
    return Rule(index, Action.HIDE)


def pin(index: int, value: int, mask: int = ALL_BITS) -> Rule:
    """The bits `mask` of the register are `value`'s from the start."""
    return Rule(index, Action.SET, value & mask, mask, needs_of(index))


def take(index: int, mask: int = ALL_BITS) -> Rule:
    """What comes for the bits `mask` is dropped, and the register keeps its own."""
    return Rule(index, Action.KEEP, 0, mask)


def carry(index: int, value: int) -> Rule:
    """The register is kept and given back where the kernel lacks it; `value` after reset."""
    return Rule(index, Action.CARRY, value, 0, needs_of(index))


_TRIGGER = 0x6030_0000_0013_DF19
"""CNTV_CTL_EL0: in every list, and read whenever QEMU reads a vCPU's registers."""


def watch(index: int, value: int) -> Rule:
    """The hidden register `index` is reported when it holds another value than `value`."""
    return Rule(_TRIGGER, Action.WATCH, index, value)


def needs_of(index: int) -> frozenset[Feature]:
    """The features without which a vCPU does not let the register be set.

    QEMU makes a vCPU first that has none of them, to ask about the host.
    """
    if name(index, Accelerator.KVM) == "PSCI_VERSION":
        return frozenset((Feature.PSCI_0_2,))
    if kind(index, Accelerator.KVM) is Kind.PMU:
        return frozenset((Feature.PMU_V3,))
    return frozenset()
