"""Whether a value is the one a register had after reset: then nothing of the guest is in it.

Knows the kinds of evidence and their order. Source of KVM's pattern: reset_unknown() of the
kernel fills registers whose reset value is architecturally unknown with it, and the lab's
recorded lists show it.
"""

from collections.abc import Mapping

from armferry.decide.model import SourceFacts
from armferry.registers import Accelerator

__all__ = ["KVM_UNKNOWN", "reset_evidence"]

KVM_UNKNOWN = 0x1DE7EC7EDBADC0DE


def reset_evidence(
    index: int,
    value: int,
    facts: SourceFacts,
    known: Mapping[int, frozenset[int]],
    accelerator: Accelerator,
) -> str | None:
    """Why `value` is what the register had after reset, None when nothing says so.

    `known` maps an index to reset values that compat levels or the user state.
    """
    if facts.fresh:
        return "the guest never ran"
    if facts.reset is not None and index in facts.reset:
        if facts.reset[index] == value:
            return f"{value:#x} is the source's reset value"
        return None
    if value in known.get(index, ()):
        return f"{value:#x} is its known reset value"
    if accelerator is Accelerator.KVM and value == KVM_UNKNOWN:
        return f"{value:#x} is KVM's mark for a register nobody has written"
    if index not in known and value == 0:
        return "it is zero, as after reset"
    return None
