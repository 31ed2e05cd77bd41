"""A fleet and its limits in, a plan out: the best that is known, and how much of that is proved."""

from dataclasses import replace

from armferry.fleet.plan.by_waves import plan_by_waves
from armferry.fleet.plan.exact import TooLarge, plan_exactly
from armferry.fleet.plan.model import Limits, NoPlan, PlanFleet, Solution, Ways

__all__ = ["SEARCHED", "solve"]

SEARCHED = 100_000
"""States that a search looks at before it is given up; one to two milliseconds each."""
_MOST_HOSTS, _MOST_GUESTS = 16, 48


def solve(fleet: PlanFleet, ways: Ways, limits: Limits, *, states: int = SEARCHED) -> Solution:
    """A plan that keeps the hard constraints, the least costly one where that can be proved.

    Raises NoPlan when there is none, or none was found; the message says which.
    """
    found: Solution | None = None
    why = ""
    try:
        found = plan_by_waves(fleet, ways, limits)
    except NoPlan as error:
        why = str(error)
    if len(fleet.hosts) > _MOST_HOSTS or len(fleet.guests) > _MOST_GUESTS:
        if found is None:
            raise NoPlan(f"{why} (no plan was found; none is not proved)")
        return found
    if found is not None and found.cost == found.bound:
        return found
    try:
        best = plan_exactly(
            fleet, ways, limits, states=states, below=None if found is None else found.cost
        )
    except TooLarge:
        if found is None:
            raise NoPlan(f"{why} (no plan was found; none is not proved)") from None
        return found
    if best is not None:
        return best
    if found is None:
        raise NoPlan(f"{why} (no order of steps does it: every one was tried)")
    return replace(found, exhausted=True)
