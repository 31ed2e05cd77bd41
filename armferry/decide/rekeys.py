"""Re-keys that apply to two lists: which registers come under another index."""

from collections.abc import Mapping

from armferry.ends import Destination
from armferry.policy import Origin, Policy, Rekey

__all__ = ["rekeys"]


def rekeys(
    incoming: Mapping[int, int], destination: Destination, policy: Policy
) -> dict[int, tuple[int, tuple[Origin, ...]]]:
    """New index -> (old index, who said so).

    Never over a register that the source has itself, and never into or out of a hidden one.
    """
    found: dict[int, tuple[int, tuple[Origin, ...]]] = {}
    for placed in policy.tolerances:
        rule = placed.tolerance
        if (
            isinstance(rule, Rekey)
            and rule.select in incoming
            and rule.select not in destination.registers
            and rule.new in destination.registers
            and rule.new not in incoming
            and not {rule.select, rule.new} & policy.hidden.keys()
        ):
            found.setdefault(rule.new, (rule.select, placed.origins))
    return found
