"""What a person reads: headed facts, tables, a verdict's colours, the line that says what next.

Wrapping only on a terminal, and colour there unless NO_COLOR is set; anything else gets plain
aligned text that greps well. On a host without rich the terminal gets the plain text too.
"""

import importlib.util
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from armferry.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Cell",
    "Table",
    "facts",
    "heading",
    "line",
    "next_step",
    "next_steps",
    "prose",
    "table",
    "wrapped",
]

_COLUMN_GAP = "  "
_NARROWEST_PROSE = 24


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of text and the role it plays: good, warn, bad, faint or none."""

    text: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; the last column is prose, which a terminal may wrap.

    No other is ever wrapped, so that an index can be copied: a terminal that is too narrow gets
    each row as a paragraph, where values of the columns in `unnamed` stand without their heading.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    unnamed: Collection[str] = ()


_STYLES = {"good": "green", "warn": "yellow", "bad": "bold red", "faint": "dim", "head": "bold"}


def line(text: str = "", role: str = "") -> None:
    """One line on standard output."""
    text = printable(text)
    if _rich() and role:
        from rich.text import Text

        _console().print(Text(text, style=_STYLES[role]), soft_wrap=True)
    else:
        print(text)


def prose(text: str, role: str = "", indent: int = 2, hang: int = 0) -> None:
    """A sentence or more, indented; a terminal wraps it between words, anything else does not.

    What is wrapped is indented by `hang` columns more.
    """
    text = printable(text)
    if not _rich():
        print(" " * indent + text)
        return
    for part in wrapped(text, _console().width, indent, hang):
        line(part, role)


def wrapped(text: str, width: int, indent: int = 0, hang: int = 0) -> Sequence[str]:
    """`text` in lines of at most `width` columns, cut between words only."""
    import textwrap

    return textwrap.wrap(
        text,
        max(width, indent + hang + 8),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang),
        break_long_words=False,
        break_on_hyphens=False,
    )


def heading(text: str) -> None:
    """A heading, set off by a blank line."""
    line()
    line(text, "head")


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, values aligned; pairs without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        prose(f"{name:<{width}}  {value}", indent=0, hang=width + len(_COLUMN_GAP))


def table(content: Table) -> None:
    """A table; nothing at all when it has no rows."""
    if not content.rows:
        return
    content = replace(content, rows=[[_shown(cell) for cell in row] for row in content.rows])
    if _rich():
        _rich_table(content)
    else:
        _plain_table(content)


def _shown(cell: Cell) -> Cell:
    return replace(cell, text=printable(cell.text))


def next_step(command: str) -> None:
    """The last line: what to type next."""
    next_steps([command])


def next_steps(commands: Sequence[str]) -> None:
    """The last lines: what to type next, one or the other."""
    line()
    for number, command in enumerate(commands):
        line(f"{'      ' if number else 'next: '}{command}", "good")


def _plain_table(content: Table) -> None:
    rows = [tuple(content.columns), *(tuple(cell.text for cell in row) for row in content.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(content.columns))]
    for row in rows:
        cells = [f"{text:<{width}}" for text, width in zip(row, widths, strict=True)]
        print(_COLUMN_GAP.join(cells).rstrip())


def _rich_table(content: Table) -> None:
    """A table as wide as it needs, or as the terminal; paragraphs where that is too narrow."""
    from rich.cells import cell_len

    widths = [cell_len(column) for column in content.columns]
    for row in content.rows:
        widths = [max(width, cell_len(cell.text)) for width, cell in zip(widths, row, strict=True)]
    *fixed, last = widths
    room = _console().width - sum(fixed) - len(_COLUMN_GAP) * len(fixed)
    words = (word for row in content.rows for word in row[-1].text.split())
    longest = max(map(cell_len, words), default=0)
    if room >= min(last, max(_NARROWEST_PROSE, longest)):
        _wide_table(content, fixed, room)
    else:
        _paragraphs(content)


def _wide_table(content: Table, fixed: Sequence[int], room: int) -> None:
    """One line for each row, more where the last cell is longer than `room`."""
    from rich.text import Text

    console = _console()
    head = tuple(Cell(column, "head") for column in content.columns)
    for row in (head, *content.rows):
        shown = Text()
        for cell, width in zip(row, fixed, strict=False):
            shown.append(cell.text, _STYLES.get(cell.role, ""))
            shown.append(" " * (width - Text(cell.text).cell_len) + _COLUMN_GAP)
        behind = " " * shown.cell_len
        for number, part in enumerate(wrapped(row[-1].text, room) or [""]):
            shown.append(f"\n{behind}" if number else "")
            shown.append(part, _STYLES.get(row[-1].role, ""))
        shown.rstrip()
        console.print(shown, soft_wrap=True)


def _paragraphs(content: Table) -> None:
    """Each row as a paragraph: what it is about, what else is known, the prose."""
    from rich.text import Text

    console = _console()
    for row in content.rows:
        first, *middle = (Text(c.text, style=_STYLES.get(c.role, "")) for c in row[:-1])
        lines = [first]
        for name, value in zip(content.columns[1:-1], middle, strict=True):
            if not value.plain:
                continue
            title = "" if name in content.unnamed else f"{name} "
            known = Text.assemble((title, "dim"), value)
            longer = Text.assemble(lines[-1], _COLUMN_GAP, known)
            if longer.cell_len <= console.width:
                lines[-1] = longer
            else:
                lines.append(Text.assemble(_COLUMN_GAP, known))
        for shown in lines:
            console.print(shown, soft_wrap=True)
        prose(row[-1].text, row[-1].role)


def _rich() -> bool:
    return sys.stdout.isatty() and importlib.util.find_spec("rich") is not None


def _console() -> "Console":
    from rich.console import Console

    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    return Console(highlight=False, color_system=colours)
