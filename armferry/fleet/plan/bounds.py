"""What no plan for a fleet can be below, whatever its order."""

from collections.abc import Iterable
from functools import reduce

from armferry.fleet.plan.guest_kinds import Kinds
from armferry.fleet.plan.model import Cost, Limits

__all__ = ["lower_bound"]


def lower_bound(
    kinds: Kinds, waiting: Iterable[tuple[int, str, int]], hosts: int, limits: Limits
) -> Cost:
    """The bound for a fleet with `hosts` to upgrade.

    `waiting` are (kind, build, how many) of the guests on those hosts. Each guest is taken alone,
    as if there were room everywhere, so what only room prevents is not in the bound.
    """
    restarts = visible = moves = 0
    entries: frozenset[str] = frozenset()
    for kind, build, number in waiting:
        if not number:
            continue
        least = kinds.leaving(kind, build)
        restarts += least.restarts * number
        visible += least.visible * number
        moves += least.moves * number
        if not least.restarts:
            entries |= _unavoidable(kinds, kind, build)
    return Cost(restarts, visible, len(entries), moves, -(-hosts // limits.wave), 0)


def _unavoidable(kinds: Kinds, kind: int, build: str) -> frozenset[str]:
    """The policy entries that every way out of a build takes."""
    every = [way.entries for _, way in kinds.moves_from(kind, build)]
    return reduce(frozenset.__and__, every) if every else frozenset()
