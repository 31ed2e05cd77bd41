"""On which condition a kernel's KVM has a register, read from conditions.toml."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from armferry.facts.release import release_key, series_of
from armferry.facts.tables import table
from armferry.registers import describe, parse_register

__all__ = ["Condition", "condition_of", "conditions"]


@dataclass(frozen=True, slots=True)
class Condition:
    """The register is there if, and only if, one of `fields` is not 0.

    Each is an identification register and the name of its field. Of kernels from `since` on;
    before, `before` says what they did. `source` is where it is written; `seen` says whether lists
    with the register were recorded, and `mark` is a register that only kernels have which keep to
    it.
    """

    register: int
    fields: tuple[tuple[int, str], ...]
    since: str
    before: str
    source: str
    seen: bool
    mark: int

    def applies(self, kernel: str) -> bool:
        """Whether a kernel, by its release, keeps to the condition."""
        return release_key(series_of(kernel)) >= release_key(self.since)

    def applies_to_list(self, registers: Mapping[int, int]) -> bool:
        """Whether the kernel that made a list of a VM at reset is seen to keep to the condition."""
        return self.register in registers and self.mark in registers and self.holds(registers)

    def holds(self, registers: Mapping[int, int]) -> bool:
        """Whether a VM with these registers is to have the register."""
        return any(_field(on, name, registers.get(on, 0)) for on, name in self.fields)


def condition_of(index: int) -> Condition | None:
    """The condition on which kernels have the register, None where none is known."""
    return conditions().get(index)


@cache
def conditions() -> Mapping[int, Condition]:
    """Every known condition, by register."""
    rows = (
        Condition(
            register=parse_register(name),
            fields=tuple(_named(text) for text in row["fields"]),
            since=row["since"],
            before=row["before"],
            source=row["source"],
            seen=row.get("measured") != [],
            mark=parse_register(row.get("mark", name)),
        )
        for row in table("conditions")["condition"]
        for name in row["registers"]
    )
    return {row.register: row for row in rows}


def _named(text: str) -> tuple[int, str]:
    register, _, field = text.partition(".")
    return parse_register(register), field


def _field(index: int, name: str, value: int) -> int:
    return next(field.raw(value) for field in describe(index).fields if field.name == name)
