"""What leaves this host: the device state without the hidden registers.

The destination is not known here and is not judged: every register that is not hidden passes with
its value. A hidden one whose content would be lost is left out only if the rule allows it, as in
every decision.
"""

from collections.abc import Sequence
from dataclasses import replace

from armferry.decide import judge
from armferry.ends import End, Move, guest_end
from armferry.gateway import Judgement, PolicyFor
from armferry.stream.events import DeviceSection
from armferry.stream.saved_state import cpus_of, never_ran

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
        guest = guest_end("the guest", machine, cpus, (), fresh=never_ran(sections, cpus))
        # a version that is pinned was given to the guest when it started, and is for the
        # destination to lower
        policy = replace(self._policy_for(machine, guest.accelerator), psci={})
        # a host that knows all but what is hidden, and nothing of the sections
        anywhere = End(
            "any host",
            tuple(
                {index: value for index, value in registers.items() if index not in policy.hidden}
                for registers in guest.cpus
            ),
            guest.accelerator,
            at_reset=False,
        )
        verdict = judge(Move.between(guest, anywhere), policy)
        return Judgement(tuple(sections), cpus, verdict)
