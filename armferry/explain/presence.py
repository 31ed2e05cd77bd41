"""In which kernels and QEMUs a register is, in a line or two, from the atlas."""

from collections.abc import Iterable, Iterator

from armferry.facts import condition_of
from armferry.hosts.fingerprints.atlas import Entry, read_atlas
from armferry.registers import Kind, explain_value, kind, name

__all__ = ["presence"]


def presence(index: int) -> tuple[str, ...]:
    """Who lists the register: one line for kernels under KVM, one for QEMUs under TCG."""
    atlas = read_atlas()
    return tuple(
        line
        for line in (
            _line("under KVM", "Linux", index, atlas.kernels),
            _line("under TCG", "QEMU", index, atlas.emulated),
            _condition(index),
        )
        if line
    )


def _line(where: str, what: str, index: int, entries: Iterable[Entry]) -> str:
    runs = list(_runs(index, entries))
    listed = [f"{span} ({how})" if how else span for span, how in runs if how is not None]
    if not listed:
        return f"{where}: no {what} that was recorded lists it"
    return f"{where}: listed by {what} {', '.join(listed)}"


def _runs(index: int, entries: Iterable[Entry]) -> Iterator[tuple[str, str | None]]:
    """(releases in a row, what they have in common): None where no CPU model has the register."""
    releases: dict[str, list[int | None]] = {}
    for entry in entries:
        value = entry.document["cpus"][0]["registers"].get(f"{index:#018x}")
        releases.setdefault(entry.release, []).append(None if value is None else int(value, 16))
    run: list[str] = []
    shared: str | None = None
    for release, values in releases.items():
        now = _common(index, values)
        if run and now != shared:
            yield _span(run), shared
            run = []
        shared = now
        run.append(release)
    if run:
        yield _span(run), shared


def _common(index: int, values: list[int | None]) -> str | None:
    there = [value for value in values if value is not None]
    if not there:
        return None
    if kind(index) is Kind.FIRMWARE_VERSION:
        meanings = {explain_value(index, value) or f"{value:#x}" for value in there}
        return ", ".join(sorted(meanings))
    return "" if len(there) == len(values) else "on some CPUs"


def _span(run: list[str]) -> str:
    return run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}"


def _condition(index: int) -> str:
    found = condition_of(index)
    if found is None:
        return ""
    fields = " or ".join(f"{name(on)}.{field}" for on, field in found.fields)
    return f"from Linux {found.since} on only where {fields} is not 0"
