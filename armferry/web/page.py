"""A fleet on one page of HTML: nothing is fetched, and nothing needs the script but the search.

Text of hosts and guests is anybody's: all of it is escaped here, and the page's own policy forbids
whatever is not in it.
"""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files

from armferry.decide import Risk
from armferry.fleet.model import Answer
from armferry.fleet.overview import Explained, Overview
from armferry.fleet.questions import Matrix
from armferry.web.picture import WORDS

__all__ = ["PlanTable", "fleet_page"]

PlanTable = Sequence[tuple[str, Sequence[str]]]
"""A plan to be shown: the title of each wave, and its steps."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def fleet_page(found: Overview, plan: PlanTable = ()) -> str:
    """The page."""
    return "\n".join(_page(found, plan)) + "\n"


@cache
def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _page(found: Overview, plan: PlanTable) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Fleet: {escape(str(found.summary))}</title>"
    yield f"<style>{_file('page.css')}</style></head><body>"
    yield "<header><h1>Which guests can go where</h1>"
    yield f'<p class="sentence">{escape(str(found.summary))}.</p>'
    yield f'<p class="faint">{_facts(found)}</p>'
    yield '<nav aria-label="Parts of this page"><ul>'
    for anchor, title in _parts(found, plan):
        yield f'<li><a href="#{anchor}">{title}</a></li>'
    yield "</ul></nav>"
    yield (
        '<p class="search"><label for="search">Search hosts, guests, registers (key /)</label><br>'
        '<input id="search" type="search" autocomplete="off"> '
        '<span id="found" role="status"></span></p></header><main>'
    )
    yield from _matrix(found)
    yield from _stranded(found)
    if plan:
        yield from _plan(plan)
    yield from _silent(found)
    yield from _classes(found)
    yield from _why(found)
    yield f"</main><script>{_file('page.js')}</script></body></html>"


def _parts(found: Overview, plan: PlanTable) -> Iterator[tuple[str, str]]:
    yield "matrix", "Matrix"
    yield "stranded", f"Stranded guests ({found.summary.stranded:,})"
    if plan:
        yield "plan", "Plan"
    yield "silent", f"Silent hosts ({found.summary.hosts - found.summary.heard:,})"
    yield "classes", f"Classes ({len(found.classes):,})"
    yield "why", "Why"


def _facts(found: Overview) -> str:
    one = found.summary
    return escape(
        f"{_time(found.when)} UTC. {one.guests:,} guests; {one.classes:,} classes of hosts; "
        f"{one.one_way_ahead:,} guests could go to the newest kernel ({one.newest or 'none'}) and "
        "not come back."
    )


def _time(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M}"


def _matrix(found: Overview) -> Iterator[str]:
    matrix = found.matrix
    names = list(matrix.groups)
    explained = {(one.source, one.destination): _anchor(names, one) for one in found.explained}
    yield '<h2 id="matrix">From each kernel (rows) to each kernel (columns)</h2>'
    yield '<p class="legend">'
    for answer in Answer:
        yield f'<span class="key {answer.letter}">{answer.letter}</span> {WORDS[answer]}'
    yield (
        '<span class="key Q">?</span> no kind of guest in common. * the guest notices or loses '
        "something, ~ the worst of several classes, &gt; no way back. The number is that of the "
        "hosts that the row stands for; guests are taken to be born where they are.</p>"
    )
    yield (
        '<div class="scroll" tabindex="0" role="region" aria-label="Matrix of kernels">'
        '<table class="matrix"><thead><tr><th scope="col">from \\ to</th>'
    )
    yield from (f'<th scope="col">{escape(name)}</th>' for name in names)
    yield "</tr></thead><tbody>"
    for source in names:
        yield (
            f'<tr><th scope="row">{escape(source)}<br>'
            f'<span class="faint">{_hosts(matrix.groups[source])}</span></th>'
        )
        for destination in names:
            yield _cell(matrix, source, destination, explained.get((source, destination)))
        yield "</tr>"
    yield "</tbody></table></div>"


def _hosts(count: int) -> str:
    return "1 host" if count == 1 else f"{count:,} hosts"


def _cell(matrix: Matrix, source: str, destination: str, anchor: str | None) -> str:
    group = matrix.cells.get((source, destination))
    if group is None:
        return '<td><span class="Q">?</span></td>'
    cell = group.cell
    one_way = matrix.one_way(source, destination)
    marks = "*" * (cell.risk > Risk.LOSSLESS) + "~" * group.mixed + "&gt;" * one_way
    said = f"{source} to {destination}: {WORDS[cell.answer]}, risk {cell.risk}"
    said += ", no way back" if one_way else ""
    letter = cell.answer.letter
    hosts = sum(group.hosts.values())
    inner = f"<b>{letter}{marks}</b><small>{hosts:,}</small>"
    if anchor is None:
        return f'<td title="{escape(said)}"><span class="{letter}">{inner}</span></td>'
    return (
        f'<td><a class="{letter}" href="#{anchor}" title="{escape(said)}" '
        f'aria-label="{escape(said)}">{inner}</a></td>'
    )


def _anchor(names: Sequence[str], one: Explained) -> str:
    return f"why-{names.index(one.source)}-{names.index(one.destination)}"


def _stranded(found: Overview) -> Iterator[str]:
    yield '<h2 id="stranded">Guests that have nowhere to go</h2>'
    if not found.stranded:
        yield '<p class="good">None: every guest has a host that takes it.</p>'
        return
    rows = [
        (guest.name or guest.id, guest.id, guest.host, guest.kind, guest.birth, why)
        for guest, why in found.stranded
    ]
    columns = ("guest", "id", "host", "kind", "born on class", "why")
    yield from _table("Stranded guests", columns, rows)
    if len(rows) < found.summary.stranded:
        yield f'<p class="faint">{len(rows):,} of {found.summary.stranded:,} are shown.</p>'


def _plan(plan: PlanTable) -> Iterator[str]:
    yield '<h2 id="plan">Plan</h2>'
    for title, steps in plan:
        yield f"<h3>{escape(title)}</h3><ol>"
        yield from (f"<li data-search>{escape(step)}</li>" for step in steps)
        yield "</ol>"


def _silent(found: Overview) -> Iterator[str]:
    yield '<h2 id="silent">Hosts not heard for a day</h2>'
    silent = found.summary.hosts - found.summary.heard
    if not found.silent:
        yield '<p class="good">None.</p>'
        return
    rows = [(name, _time(heard)) for name, heard in found.silent]
    yield from _table("Silent hosts", ("host", "last heard (UTC)"), rows)
    if len(rows) < silent:
        yield f'<p class="faint">{len(rows):,} of {silent:,} are shown.</p>'


def _classes(found: Overview) -> Iterator[str]:
    yield '<h2 id="classes">Classes of hosts</h2>'
    rows = [
        (
            one.id,
            f"{one.hosts:,}",
            one.kind,
            _few(one.kernels),
            _few(one.qemus),
            _few(one.cpus),
        )
        for one in found.classes
    ]
    columns = ("class", "hosts", "kind of guest", "kernels", "QEMU", "CPU")
    yield from _table("Classes of hosts", columns, rows)


def _few(words: Sequence[str]) -> str:
    more = f" and {len(words) - 4} more" if len(words) > 4 else ""
    return f"{', '.join(words[:4])}{more}"


def _why(found: Overview) -> Iterator[str]:
    names = list(found.matrix.groups)
    yield '<h2 id="why">Why</h2>'
    if not found.explained:
        yield "<p>Every host takes every guest as it is.</p>"
    for one in found.explained:
        cell = one.group.cell
        title = f"{one.source} to {one.destination}: {WORDS[cell.answer]}, risk {cell.risk}"
        yield f'<section id="{_anchor(names, one)}" data-search><h3>{escape(title)}</h3>'
        yield (
            f'<p class="faint">Class {one.group.source_class} to class '
            f"{one.group.destination_class}; the destination's QEMU alone: {cell.stock}. "
            '<a href="#matrix">Matrix</a></p>'
        )
        for text in (*one.obstacles, cell.why if not one.obstacles else ""):
            if text:
                yield f'<p class="bad">{escape(text)}</p>'
        for condition in cell.conditions:
            yield f"<p>Works if {escape(str(condition))}.</p>"
        for condition in cell.lossless_if:
            yield f"<p>Nothing is lost if {escape(str(condition))}.</p>"
        if one.rows:
            columns = ("register", "class", "source", "destination", "why")
            yield from _table(f"Registers, {title}", columns, one.rows, sought=False)
        if one.more:
            yield f'<p class="faint">{one.more} more; armferry fleet why lists them.</p>'
        if one.policy:
            yield "<p>A policy that allows it, to be read before it is used:</p>"
            yield f'<pre tabindex="0">{escape(one.policy)}</pre>'
        yield "</section>"


def _table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, sought: bool = True
) -> Iterator[str]:
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
    yield "<table><thead><tr>"
    yield "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    yield "</tr></thead><tbody>"
    mark = " data-search" if sought else ""
    for row in rows:
        yield f"<tr{mark}>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>"
    yield "</tbody></table></div>"
