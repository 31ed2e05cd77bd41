"""Why a register is in a list: since when, until when, with which value.

Read from the atlas's entries of kernels, CPU model by CPU model; no version is looked at but to
put the entries into order.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from armferry.hosts.fingerprints.atlas.entries import Entry, of_cpu
from armferry.registers import Kind, kind

__all__ = ["Span", "history"]


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


def history(index: int, entries: Iterable[Entry]) -> list[Span]:
    """The spans of one register on each CPU model, oldest first; entries of kernels only."""
    kernels = list(entries)
    found: list[Span] = []
    for cpu in dict.fromkeys(entry.cpu for entry in kernels):
        found += _spans(index, of_cpu(kernels, cpu))
    return found


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
