"""Whether a value is the one a register had after reset: then nothing of the guest is in it.

Knows the kinds of evidence and their order; what KVM puts into a register whose reset value is
unknown is a fact (`armferry.facts`).
"""

from collections.abc import Mapping

from armferry.decide.harms import (
    Evidence,
    KnownReset,
    KvmPattern,
    NeverRan,
    NotInUse,
    SourceReset,
    Zero,
)
from armferry.decide.physical_counter import PHYSICAL_COUNTER, uses_physical_counter
from armferry.ends import SourceFacts
from armferry.facts import holds_kvm_reset_pattern
from armferry.registers import Accelerator, Kind, describe, kind

__all__ = ["read_only", "reset_evidence"]

_OF_THE_HOST = (Kind.FIRMWARE_VERSION, Kind.FIRMWARE_BITMAP, Kind.AFFINITY)


def read_only(index: int) -> bool:
    """Whether it is read-only to the guest: the host, the CPU model or the user fixes the value."""
    register = describe(index)
    return register.constant or register.kind in _OF_THE_HOST


def reset_evidence(
    index: int,
    incoming: Mapping[int, int],
    facts: SourceFacts,
    known: Mapping[int, frozenset[int]],
    accelerator: Accelerator,
) -> Evidence | None:
    """Why a register of the list that comes holds what it had after reset, None if nothing says so.

    `known` maps an index to reset values that compat levels or the user state. A register that is
    read-only to the guest always has its reset value, so that the source's says nothing: the guest
    may have acted upon it. One that is zero reads the same where it is missing.
    """
    value = incoming[index]
    if facts.fresh:
        return NeverRan()
    if index == PHYSICAL_COUNTER and not uses_physical_counter(incoming):
        return NotInUse()
    if accelerator is Accelerator.KVM and holds_kvm_reset_pattern(index, incoming):
        return KvmPattern(value)
    if kind(index) is Kind.RUNNING_COUNTER and value:
        # it has run since, whatever it showed when its host was recorded
        return None
    if facts.reset is not None and index in facts.reset and not read_only(index):
        return SourceReset(value) if facts.reset[index] == value else None
    if value in known.get(index, ()):
        return KnownReset(value)
    if index not in known and value == 0:
        return Zero()
    return None
