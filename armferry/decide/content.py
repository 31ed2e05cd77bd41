"""What of an end a decision can hang on, and nothing besides: equal contents, equal verdicts.

Left out is what a verdict only names or notes: who wrote the record and where, the kernel's
release, the releases of QEMU that follow the same rules, the name of the CPU under KVM, which
processors are of which kind; and by how much a counter has run, which no verdict looks at.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from armferry.ends import UNKNOWN, End
from armferry.facts import holds_kvm_reset_pattern, known_device_subsections, qemu_rules
from armferry.registers import Accelerator, Kind, kind

__all__ = ["Content", "content_of"]

_DIGITS = 16


@dataclass(frozen=True)
class Content:
    """`registers` are those of the first vCPU as far as they count, `rest` all else, as text."""

    registers: Mapping[int, int]
    rest: tuple[tuple[str, str], ...]

    @cached_property
    def signature(self) -> str:
        """16 hexadecimal digits; the same for the same content, in every fleet."""
        text = repr((tuple(self.registers.items()), self.rest))
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

    def differences(self, other: "Content") -> frozenset[int | str]:
        """Registers, and names of other parts, that tell the two apart."""
        registers = self.registers.keys() | other.registers.keys()
        found: set[int | str] = {
            index
            for index in registers
            if self.registers.get(index, -1) != other.registers.get(index, -1)
        }
        theirs = dict(other.rest)
        found.update(name for name, text in self.rest if theirs.get(name) != text)
        return frozenset(found)


def content_of(end: End) -> Content:
    """The content of a host. Raises UnknownQemuVersion."""
    first, *others = (_counted(registers) for registers in end.cpus)
    emulated = end.accelerator is not Accelerator.KVM
    ordered = end.accelerator is Accelerator.HVF
    facts = end.host
    rest = {
        "accelerator": end.accelerator.value,
        "machine": str(end.machine),
        "CPU model": str(end.cpu) if emulated else "",
        "QEMU": _rules(end),
        "order": repr(tuple(end.cpus[0])) if ordered else "",
        "vCPUs": repr([_apart(first, other) for other in others]),
        "record": f"{end.at_reset} {end.partial} {end.whole} {end.guest}",
        "sections": repr(end.devices),
        "features": str(end.features),
        "settable fields": _mapping(end.writable),
        "hardware": _mapping(end.hardware),
        "memory blocks": repr(end.memory),
        "configuration": repr(end.configuration),
        "counter frequency": str(facts.counter_hz),
        "page size": str(facts.page_bytes),
        "vector lengths": f"{_set(facts.sve_bits)} {_set(facts.sme_bits)}",
        "interrupt controller": f"{_set(facts.gic)} {facts.its}",
    }
    return Content(first, tuple(rest.items()))


def _counted(registers: Mapping[int, int]) -> dict[int, int]:
    """A list without how far its counters have run: only whether they have is looked at."""
    return {
        index: 1
        if value
        and kind(index) is Kind.RUNNING_COUNTER
        and not holds_kvm_reset_pattern(index, registers)
        else value
        for index, value in sorted(registers.items())
    }


def _apart(first: Mapping[int, int], other: Mapping[int, int]) -> list[tuple[int, int | None]]:
    return [
        (index, other.get(index))
        for index in sorted(first.keys() | other.keys())
        if first.get(index, -1) != other.get(index, -1)
    ]


def _rules(end: End) -> str:
    """What the release of QEMU stands for: the rules it loads by, and what else it knows."""
    if end.qemu is UNKNOWN:
        return str(UNKNOWN)
    rules = qemu_rules(end.qemu)
    known = sorted(known_device_subsections(end.qemu))
    # the name of a rule set and its measured releases say nothing of a load
    facts = [
        getattr(rules, name)
        for name in rules.__slots__
        if name not in ("basis", "name", "subsections", "tolerances")
    ]
    tolerances = sorted((index, who.value, one) for (index, who), one in rules.tolerances.items())
    kept = end.destinations(1, end.qemu)[0]
    return repr((facts, tolerances, sorted(rules.subsections), known, kept.kept, kept.unlisted))


def _mapping(registers: object) -> str:
    return repr(sorted(registers.items())) if isinstance(registers, Mapping) else str(registers)


def _set(numbers: object) -> str:
    return repr(sorted(numbers)) if isinstance(numbers, frozenset) else str(numbers)
