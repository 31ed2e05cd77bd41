"""The table that the library reads: rules as bytes, in the order that it demands.

The format is private between this module and `boundary.c`, in the byte order of the machine: a
header of 16 bytes (magic, number of rules) and 64 bytes for each rule, ascending by index, then
action, then value.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from armferry.boundary.rules import Action, Rule
from armferry.errors import ArmferryError

__all__ = ["MOST_RULES", "Table", "TableError"]

MOST_RULES = 1024

_HEADER = struct.Struct("=8sII")
_RULE = struct.Struct("=QIIQQ32s")
_MAGIC = b"AFBOUND1"
_WIDTHS = (4, 8)


class TableError(ArmferryError):
    """Rules that the library cannot obey together."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rules, ascending; at most one of each action for a register (WATCH: for each value).

    Raises TableError.
    """

    rules: tuple[Rule, ...]

    def __init__(self, rules: Iterable[Rule]) -> None:
        ordered = tuple(sorted(set(rules)))
        if len(ordered) > MOST_RULES:
            raise TableError(f"{len(ordered)} rules at the KVM boundary; at most {MOST_RULES}")
        seen: dict[tuple[int, Action, int], Rule] = {}
        for rule in ordered:
            width = 1 << (rule.index >> 52 & 0xF)
            if width not in _WIDTHS:
                raise TableError(f"{rule.name} has {width} bytes; the KVM boundary carries 4 or 8")
            key = (rule.index, rule.action, rule.value if rule.action is Action.WATCH else 0)
            if key in seen:
                raise TableError(
                    f"{rule.name} has two different rules at the KVM boundary,"
                    f" {rule.action.name} with {seen[key].value:#x} and with {rule.value:#x}"
                )
            seen[key] = rule
        object.__setattr__(self, "rules", ordered)

    def __bool__(self) -> bool:
        return bool(self.rules)

    def of(self, action: Action) -> tuple[Rule, ...]:
        """The rules of one action."""
        return tuple(rule for rule in self.rules if rule.action is action)

    def packed(self) -> bytes:
        """The bytes for the library."""
        return _HEADER.pack(_MAGIC, len(self.rules), 0) + b"".join(map(_packed, self.rules))


def _packed(rule: Rule) -> bytes:
    needs = sum(1 << feature for feature in rule.needs)
    name = rule.name.encode("ascii", "replace")[:31]
    return _RULE.pack(rule.index, rule.action, needs, rule.value, rule.mask, name)
