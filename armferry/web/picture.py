"""The matrix as an SVG picture, for a runbook: letters, colours, no script and nothing fetched."""

from collections.abc import Iterator
from html import escape

from armferry.decide import Risk
from armferry.fleet.model import Answer
from armferry.fleet.questions import GroupCell, Matrix

__all__ = ["COLOURS", "WORDS", "matrix_svg"]

COLOURS = {
    Answer.STOCK: ("#1a6b3c", "#ffffff"),
    Answer.ARMFERRY: ("#1c5d99", "#ffffff"),
    Answer.GUEST: ("#f2c14e", "#000000"),
    Answer.NEVER: ("#8c1c13", "#ffffff"),
}
"""Answer -> its background and the text on it; their contrast is 4.5 and more (WCAG AA)."""
WORDS = {
    Answer.STOCK: "QEMU alone",
    Answer.ARMFERRY: "with armferry",
    Answer.GUEST: "depends on the guest",
    Answer.NEVER: "never",
}
_CELL, _LETTER, _TOP, _GAP = 34, 7.2, 12, 8
_FONT = "font-family='DejaVu Sans, Verdana, sans-serif' font-size='12'"


def matrix_svg(matrix: Matrix) -> str:
    """The picture: rows from, columns to."""
    return "\n".join(_svg(matrix)) + "\n"


def _svg(matrix: Matrix) -> Iterator[str]:
    names = list(matrix.groups)
    label = max((len(_label(matrix, name)) for name in names), default=0) * _LETTER + _GAP
    head = max((len(name) for name in names), default=0) * _LETTER * 0.75 + 2 * _GAP
    width = label + len(names) * _CELL + head
    height = head + _TOP + len(names) * _CELL + 2 * _CELL
    yield (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' "
        f"width='{width:.0f}' height='{height:.0f}' role='img' {_FONT}>"
    )
    yield f"<title>From each {escape(matrix.by.value)} (rows) to each (columns)</title>"
    yield f"<rect width='{width:.0f}' height='{height:.0f}' fill='#ffffff'/>"
    for column, name in enumerate(names):
        x, y = label + column * _CELL + _CELL / 2, head
        yield (
            f"<text x='{x:.0f}' y='{y:.0f}' transform='rotate(-45 {x:.0f} {y:.0f})'>"
            f"{escape(name)}</text>"
        )
    for row, source in enumerate(names):
        y = head + _TOP + row * _CELL
        middle = y + _CELL / 2 + 4
        yield (
            f"<text x='{label - _GAP:.0f}' y='{middle:.0f}' text-anchor='end'>"
            f"{escape(_label(matrix, source))}</text>"
        )
        for column, destination in enumerate(names):
            x = label + column * _CELL
            group = matrix.cells.get((source, destination))
            one_way = matrix.one_way(source, destination)
            yield _cell(x, y, source, destination, group, one_way=one_way)
    yield from _legend(label, head + _TOP + len(names) * _CELL + _CELL)
    yield "</svg>"


def _label(matrix: Matrix, name: str) -> str:
    return f"{name} ({matrix.groups[name]})"


def _cell(
    x: float, y: float, source: str, destination: str, group: GroupCell | None, *, one_way: bool
) -> str:
    if group is None:
        back, front, letter, words = "#e0e0e0", "#000000", "?", "no kind of guest in common"
    else:
        back, front = COLOURS[group.cell.answer]
        letter = group.cell.answer.letter + ("*" if group.cell.risk > Risk.LOSSLESS else "")
        letter += ">" if one_way else ""
        words = f"{WORDS[group.cell.answer]}, risk {group.cell.risk}"
    title = escape(f"{source} to {destination}: {words}{', no way back' if one_way else ''}")
    return (
        f"<g><title>{title}</title>"
        f"<rect x='{x:.0f}' y='{y:.0f}' width='{_CELL - 2}' height='{_CELL - 2}' fill='{back}'/>"
        f"<text x='{x + _CELL / 2 - 1:.0f}' y='{y + _CELL / 2 + 4:.0f}' text-anchor='middle' "
        f"fill='{front}'>{letter}</text></g>"
    )


def _legend(x: float, y: float) -> Iterator[str]:
    said = [f"{answer.letter} {WORDS[answer]}" for answer in Answer]
    lines = ("; ".join(said[:2]), "; ".join(said[2:]), "* the guest notices; &gt; no way back")
    for number, line in enumerate(lines):
        yield f"<text x='{_GAP}' y='{y + number * 16 - 16:.0f}'>{line}</text>"
