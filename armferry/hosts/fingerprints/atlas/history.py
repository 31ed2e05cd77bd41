"""Why a register is in a list: since when, until when, with which value, on which condition.

Read from the atlas's entries of kernels, CPU model by CPU model; no version is looked at but to
put the entries into order. Conditions are the kernel's own, as data (conditions.toml), and a test
holds each of them against every entry.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from armferry.facts.release import release_key
from armferry.hosts.fingerprints.atlas.entries import Entry, of_cpu
from armferry.registers import Kind, decode_fields, kind, parse_register

__all__ = ["Condition", "Span", "condition_of", "conditions", "history"]


@dataclass(frozen=True, slots=True)
class Span:
    """Kernels in a row that agree on a register: `value` after reset, None when it is not there.

    Of a running counter they need to agree only that it is there; `value` is then the first one's.
    `before` is the last kernel of the atlas that did not agree, empty for the oldest.
    """

    cpu: str
    first: str
    last: str
    before: str
    value: int | None


@dataclass(frozen=True, slots=True)
class Condition:
    """The register is there if, and only if, one of `fields` is not 0.

    Each is an identification register and the name of its field. Of kernels from `since` on;
    before, `before` says what they did. `source` is where it is written.
    """

    register: int
    fields: tuple[tuple[int, str], ...]
    since: str
    before: str
    source: str

    def applies(self, entry: Entry) -> bool:
        """Whether the entry's kernel keeps to the condition."""
        return release_key(entry.release) >= release_key(self.since)

    def holds(self, registers: Mapping[int, int]) -> bool:
        """Whether a list is of a host on which the register is to be there."""
        return any(
            dict(_fields(on, registers.get(on, 0))).get(field, 0) for on, field in self.fields
        )


def history(index: int, entries: Iterable[Entry]) -> list[Span]:
    """The spans of one register on each CPU model, oldest first; entries of kernels only."""
    kernels = list(entries)
    found: list[Span] = []
    for cpu in dict.fromkeys(entry.cpu for entry in kernels):
        found += _spans(index, of_cpu(kernels, cpu))
    return found


def condition_of(index: int) -> Condition | None:
    """The condition on which kernels have the register, None where none is known."""
    return conditions().get(index)


@cache
def conditions() -> Mapping[int, Condition]:
    """Every known condition, by register."""
    text = files(__package__).joinpath("conditions.toml").read_text(encoding="utf-8")
    rows = (
        Condition(
            register=parse_register(name),
            fields=tuple(_field(text) for text in row["fields"]),
            since=row["since"],
            before=row["before"],
            source=row["source"],
        )
        for row in tomllib.loads(text)["condition"]
        for name in row["registers"]
    )
    return {row.register: row for row in rows}


def _spans(index: int, entries: list[Entry]) -> Iterator[Span]:
    run: list[str] = []
    before = ""
    value: int | None = None
    runs_on = kind(index) is Kind.RUNNING_COUNTER
    for entry in entries:
        now = entry.fingerprint.cpus[0].get(index)
        if runs_on and run and now is not None and value is not None:
            now = value
        if run and now != value:
            yield Span(entry.cpu, run[0], run[-1], before, value)
            before, run = run[-1], []
        value = now
        run.append(entry.release)
    if run:
        yield Span(entries[0].cpu, run[0], run[-1], before, value)


def _field(text: str) -> tuple[int, str]:
    register, _, field = text.partition(".")
    return parse_register(register), field


def _fields(index: int, value: int) -> Iterator[tuple[str, int]]:
    for field, amount in decode_fields(index, value):
        yield field.name, amount
