"""Costs as single numbers, in the same order: quick to add and to compare."""

from armferry.fleet.plan.model import Cost

__all__ = ["EARLY", "ENTRY", "MOVE", "RESTART", "VISIBLE", "WAVE", "cost_of", "price_of"]

_BITS = 20
"""Of each part, so that it stays below a million: enough for what a search can look through."""
_ALL_BITS = _BITS * len(Cost._fields)


def price_of(cost: Cost) -> int:
    """A cost as one number in the same order; each part stays below a million here."""
    price = 0
    for part in cost:
        price = price << _BITS | part
    return price


def cost_of(price: int) -> Cost:
    parts = [price >> shift & (1 << _BITS) - 1 for shift in range(0, _ALL_BITS, _BITS)]
    return Cost(*reversed(parts))


RESTART, MOVE, WAVE, EARLY = (
    price_of(Cost(**{name: 1})) for name in ("restarts", "moves", "waves", "early")
)
VISIBLE, ENTRY = price_of(Cost(visible=1)), price_of(Cost(entries=1))
