"""What a person reads: headed facts, tables, a verdict's colours, the line that says what next.

Colour and wrapping only on a terminal (and never with NO_COLOR); anything else gets plain
aligned text that greps well. On a host without rich the terminal gets the plain text too.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Cell", "Table", "facts", "heading", "line", "next_step", "table"]

_COLUMN_GAP = "  "


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of text and the role it plays: good, warn, bad, faint or none."""

    text: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; the last column may be wrapped on a terminal."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


_STYLES = {"good": "green", "warn": "yellow", "bad": "bold red", "faint": "dim", "head": "bold"}


def line(text: str = "", role: str = "") -> None:
    """One line on standard output."""
    if _rich() and role:
        from rich.text import Text

        _console().print(Text(text, style=_STYLES[role]), soft_wrap=True)
    else:
        print(text)


def heading(text: str) -> None:
    """A heading, set off by a blank line."""
    line()
    line(text, "head")


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, values aligned; pairs without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        line(f"{name:<{width}}  {value}")


def table(content: Table) -> None:
    """A table; nothing at all when it has no rows."""
    if not content.rows:
        return
    if _rich():
        _rich_table(content)
    else:
        _plain_table(content)


def next_step(command: str) -> None:
    """The last line: what to type next."""
    line()
    line(f"next: {command}", "good")


def _plain_table(content: Table) -> None:
    rows = [tuple(content.columns), *(tuple(cell.text for cell in row) for row in content.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(content.columns))]
    for row in rows:
        cells = [f"{text:<{width}}" for text, width in zip(row, widths, strict=True)]
        print(_COLUMN_GAP.join(cells).rstrip())


def _rich_table(content: Table) -> None:
    import rich.box
    import rich.table
    from rich.text import Text

    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, column in enumerate(content.columns):
        drawn.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in content.rows:
        drawn.add_row(*(Text(cell.text, style=_STYLES.get(cell.role, "")) for cell in row))
    _console().print(drawn)


def _rich() -> bool:
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and importlib.util.find_spec("rich") is not None
    )


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)
