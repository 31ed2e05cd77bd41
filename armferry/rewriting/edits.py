"""From a verdict to what the stream room rewrites.

One function, so that a file, a pipe and a connection are all rewritten in the same way.
"""

from armferry.decide import Verdict
from armferry.stream import CpuEdit, StateEdit

__all__ = ["edit_of"]


def edit_of(verdict: Verdict) -> StateEdit:
    """What becomes of the device state."""
    cpus = tuple(
        CpuEdit(registers, verdict.dropped_subsections(vcpu), verdict.features)
        for vcpu, registers in enumerate(verdict.lists)
    )
    return StateEdit(cpus, verdict.dropped_elsewhere)
