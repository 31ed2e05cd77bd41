"""What leaves this host: the device state without the hidden registers.

The destination is not known here and is not judged: every register that is not hidden passes with
its value. A hidden one whose content would be lost is left out only if the rule allows it, as in
every decision.
"""

from collections.abc import Sequence

from armferry.decide import Destination, Move, SourceFacts, judge
from armferry.gateway import Judgement, PolicyFor
from armferry.policy import Policy
from armferry.registers import accelerator_of
from armferry.stream.events import DeviceSection
from armferry.stream.saved_state import cpus_of

__all__ = ["HidingJudge"]


class HidingJudge:
    """Leaves out what the policy hides, and decides nothing else."""

    def __init__(self, policy_for: PolicyFor) -> None:
        self._policy_for = policy_for

    def prepare(self, machine: str) -> None:
        """Nothing is worth preparing: the policy was read before the guest started."""

    def __call__(self, machine: str, sections: Sequence[DeviceSection]) -> Judgement:
        """The sections as they may leave. Raises StreamError."""
        cpus = cpus_of(sections, sections[0].offset if sections else 0)
        accelerator = accelerator_of(cpus[0].registers)
        hidden = self._policy_for(machine, accelerator).hidden
        destinations = [
            Destination(
                {index: value for index, value in cpu.registers.items() if index not in hidden},
                accelerator,
                at_reset=False,
            )
            for cpu in cpus
        ]
        move = Move(
            lists=[cpu.registers for cpu in cpus],
            destinations=destinations,
            facts=(SourceFacts(),) * len(cpus),
            machine=machine,
        )
        return Judgement(tuple(sections), cpus, judge(move, Policy(hidden=hidden)))
