"""From a verdict to what the stream room rewrites.

One function, so that a file, a pipe and a connection are all rewritten in the same way.
"""

from armferry.decide import Verdict
from armferry.stream import CpuEdit

__all__ = ["edits_of"]


def edits_of(verdict: Verdict) -> tuple[CpuEdit, ...]:
    """What becomes of each vCPU's section, in order."""
    return tuple(
        CpuEdit(registers, verdict.dropped_subsections(vcpu), verdict.features)
        for vcpu, registers in enumerate(verdict.lists)
    )
