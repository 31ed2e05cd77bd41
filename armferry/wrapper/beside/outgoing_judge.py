"""What leaves this host: the device state without the hidden registers.

The destination is not known here and is not judged: every register that is not hidden passes with
its value. A hidden one whose content would be lost is left out only if the rule allows it, as in
every decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from armferry.decide import judge
from armferry.ends import End, Move
from armferry.ends.guest import guest_end
from armferry.gateway import Judgement, PolicyFor
from armferry.policy import Origin, OriginKind, Policy
from armferry.stream.events import DeviceSection, RamBlock
from armferry.stream.saved_state import cpus_of, never_ran

__all__ = ["HidingJudge"]

_CARRIED = (Origin(OriginKind.COMMAND_LINE, "x-armferry-carry=here"),)


class HidingJudge:
    """Leaves out what the policy hides, and decides nothing else.

    `carried` are registers that are kept for the guest and not there on this host, with what they
    hold after reset: one that holds it in every vCPU is left out as well.
    """

    def __init__(self, policy_for: PolicyFor, carried: Mapping[int, int] | None = None) -> None:
        self._policy_for = policy_for
        self._carried = carried or {}

    def begin(self, machine: str, blocks: tuple[RamBlock, ...]) -> None:
        """Nothing: what the destination has is not known here."""

    def prepare(self, machine: str) -> None:
        """Nothing is worth preparing: the policy was read before the guest started."""

    def __call__(self, machine: str, sections: Sequence[DeviceSection]) -> Judgement:
        """The sections as they may leave. Raises StreamError."""
        cpus = cpus_of(sections, sections[0].offset if sections else 0)
        guest = guest_end("the guest", machine, cpus, (), fresh=never_ran(sections, cpus))
        # a version that is pinned was given to the guest when it started, and is for the
        # destination to lower
        policy = replace(self._policy_for(machine, guest.accelerator), psci={})
        at_reset = {
            index: value
            for index, value in self._carried.items()
            if all(registers.get(index) == value for registers in guest.cpus)
        }
        policy = policy.union(
            Policy(
                safe_missing=dict.fromkeys(at_reset, _CARRIED),
                resets={index: frozenset((value,)) for index, value in at_reset.items()},
            )
        )
        gone = policy.hidden.keys() | at_reset.keys()
        # a host that knows all but what is left out, and nothing of the sections
        anywhere = End(
            "any host",
            tuple(
                {index: value for index, value in registers.items() if index not in gone}
                for registers in guest.cpus
            ),
            guest.accelerator,
            at_reset=False,
        )
        verdict = judge(Move.between(guest, anywhere), policy)
        return Judgement(tuple(sections), cpus, verdict)
