"""The decision on every vCPU of a guest, made once for what they share."""

from functools import cache

from armferry.decide.merge import Merge
from armferry.decide.model import Decision
from armferry.ends import Move
from armferry.policy import Policy
from armferry.registers import counts_vcpus, describe

__all__ = ["decide_all"]


def decide_all(move: Move, policy: Policy, *, stock_loads: bool = False) -> tuple[Decision, ...]:
    """The decision on every vCPU of `move`, made once for what they share.

    A vCPU that lists the same registers as the first differs in a few values; those are decided
    anew, unless one of them is a value that other registers are judged by.
    """
    decisions: list[Decision] = []
    first: Merge | None = None
    ends = zip(move.lists, move.destinations, move.facts, move.differing, strict=True)
    for incoming, destination, facts, differing in ends:
        shared = differing is not None and not any(map(_judges_others, differing))
        merge = Merge(
            incoming,
            destination,
            policy,
            facts,
            stock_loads=stock_loads,
            like=first if shared else None,
        )
        if first is not None and differing is not None and shared:
            decisions.append(merge.like_first(decisions[0], differing))
        else:
            decisions.append(merge.run())
        first = first or merge
    return tuple(decisions)


@cache
def _judges_others(index: int) -> bool:
    """Whether other registers may be judged by its value: what the host or firmware states."""
    register = describe(index)
    return (register.constant and not counts_vcpus(index)) or register.name == "PMCR_EL0"
