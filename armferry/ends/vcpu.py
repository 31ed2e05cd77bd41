"""The two ends of a move as one vCPU sees them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from armferry.registers import Accelerator

__all__ = ["Destination", "SourceFacts"]


@dataclass(frozen=True, slots=True)
class Destination:
    """What one vCPU of the destination would accept.

    `registers` maps index to the value after reset, ascending or not. `at_reset` says whether
    the values really are those after reset (a list taken from a guest that ran has others).
    `writable` maps an identification register to the bits that the host's kernel lets be set
    (KVM_ARM_GET_REG_WRITABLE_MASKS); None when the kernel was not asked. `same_vcpus` is False
    when the list was recorded with another number of vCPUs than the guest has. `hardware` maps an
    identification register to the value of the host's own hardware; None when it is not known.
    `kept` maps a register to the bits that the host's QEMU keeps under TCG, `unlisted` a register
    that no list has to what a guest reads there; what they lack was not measured.
    """

    registers: Mapping[int, int]
    accelerator: Accelerator
    at_reset: bool = True
    writable: Mapping[int, int] | None = None
    same_vcpus: bool = True
    hardware: Mapping[int, int] | None = None
    kept: Mapping[int, int] = field(default_factory=dict)
    unlisted: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known of one vCPU of the source beyond the list that comes.

    `reset` maps index to the source's own value after reset, where a fingerprint of the source
    is at hand. `fresh` says that the guest never ran, so that every value is its reset value.
    """

    reset: Mapping[int, int] | None = None
    fresh: bool = False
