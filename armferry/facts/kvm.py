"""What kernels' KVM does with register values, read from kvm.toml."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from armferry.facts.tables import Basis, basis, table
from armferry.registers import Field, describe

__all__ = [
    "FieldRule",
    "KvmValues",
    "holds_kvm_reset_pattern",
    "kvm_basis",
    "kvm_reset_pattern",
    "kvm_values",
]

_PMCR = 0x6030_0000_0013_DCE0
_FEWEST_COUNTERS = 5
"""With fewer, what is left of the pattern could be the guest's own."""
_CYCLE_COUNTER = 1 << 31


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How KVM departs, for one field, from "no more than the host has".

    `lowest` is the lowest value that it takes, beside 0 if `or_zero`; `forgets` a value that it
    takes and keeps as 0, `safe` one that it takes whatever the host has. Above the host's, some
    kernels take values from `unsure_from` on. Holds of kernels that have
    the register `mark`, of all when it is None.
    """

    field: Field
    lowest: int = 0
    or_zero: bool = False
    forgets: int | None = None
    safe: int | None = None
    unsure_from: int | None = None
    mark: int | None = None


@dataclass(frozen=True, slots=True)
class KvmValues:
    """Which other values KVM takes for registers that a guest cannot write; see kvm.toml.

    `ignored_without_aarch32` are registers that read 0 on a CPU without it, whatever is put.
    `hidden` are fields that older kernels showed, `fields` the rules, both by register; `unsaid`
    bits that are writable where the kernel does not say so, `ever_writable` those that any kernel
    with all caches in its list lets be written; `taken_bits` bits of firmware bitmaps
    that are taken whatever the value after reset.
    """

    never_writable: frozenset[int]
    ignored_without_aarch32: frozenset[int]
    unsaid: Mapping[int, int]
    ever_writable: Mapping[int, int]
    hidden: Mapping[int, Field]
    fields: Mapping[int, tuple[FieldRule, ...]]
    psci_versions: frozenset[int]
    taken_bits: Mapping[int, int]


@cache
def kvm_values() -> KvmValues:
    """The facts on values."""
    data = table("kvm")["values"]
    aarch32 = data["without-aarch32"]
    rules: dict[int, tuple[FieldRule, ...]] = {}
    for row in data["field"]:
        index = int(row["register"], 16)
        rule = FieldRule(
            _field(index, row["field"]),
            row.get("lowest", 0),
            row.get("or-zero", False),
            row.get("forgets"),
            row.get("safe"),
            row.get("unsure-from"),
            int(row["mark"], 16) if "mark" in row else None,
        )
        rules[index] = (*rules.get(index, ()), rule)
    return KvmValues(
        never_writable=frozenset(int(one, 16) for one in data["never-writable"]),
        ignored_without_aarch32=frozenset(
            range(int(aarch32["first"], 16), int(aarch32["last"], 16) + 1)
        )
        - {int(one, 16) for one in aarch32["fixed"]},
        unsaid={int(row["register"], 16): int(row["mask"], 16) for row in data["unsaid"]},
        ever_writable={int(i, 16): int(bits, 16) for i, bits in data["ever-writable"].items()},
        hidden={
            int(row["register"], 16): _field(int(row["register"], 16), row["field"])
            for row in data["hidden-field"]
        },
        fields=rules,
        psci_versions=frozenset(int(one, 16) for one in data["firmware"]["psci-versions"]),
        taken_bits={
            int(register, 16): int(bits, 16) for register, bits in data["firmware"]["takes"].items()
        },
    )


def kvm_basis() -> Basis:
    """The series of Linux that the facts on KVM were measured with."""
    return basis(table("kvm")["values"])


@cache
def kvm_reset_pattern() -> int:
    """What KVM puts into a register whose reset value the architecture leaves unknown."""
    return int(table("kvm")["reset"]["pattern"], 16)


def holds_kvm_reset_pattern(index: int, registers: Mapping[int, int]) -> bool:
    """Whether a register of this list holds KVM's pattern, whole or what the register has of it.

    Then it was never written. False where the guest itself could have put such a value there.
    """
    value, pattern = registers[index], kvm_reset_pattern()
    if value == pattern:
        return True
    counters = registers.get(_PMCR, 0) >> 11 & 0x1F
    for first, last, row in _masked():
        if not first <= index <= last:
            continue
        if "values" in row:
            return f"{value:#x}" in row["values"]
        if "no-counter" in row:
            return value == int(row["no-counter"], 16) and counters <= value
        bits = _CYCLE_COUNTER | (1 << counters) - 1
        return value == pattern & bits and counters >= _FEWEST_COUNTERS
    return False


def _field(index: int, name: str) -> Field:
    return next(field for field in describe(index).fields if field.name == name)


@cache
def _masked() -> tuple[tuple[int, int, Mapping[str, str]], ...]:
    rows = table("kvm")["reset"]["masked"]
    return tuple((int(row["first"], 16), int(row["last"], 16), row) for row in rows)
