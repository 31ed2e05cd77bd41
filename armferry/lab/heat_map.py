"""A matrix as a picture (SVG): rows from, columns to, one square for each move.

Knows the document that `matrix_json` makes; refuses to know how it came about. A square's colour is
what the move costs a guest that runs; a dot in it says that stock QEMU refuses the guest.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["heat_map"]

_SQUARE = 16
_LABEL = 190
_TOP = 150
_KEY_LINE = 22
_COLOURS = {
    "none": ("#1a7f4b", "goes on as it is"),
    "lossless": ("#7fc97f", "nothing is lost"),
    "guest-visible": ("#fdd86b", "the guest may notice"),
    "lossy": ("#f08a4b", "something of the guest is lost"),
    "breaks": ("#c0392b", "the guest loses what it may be using"),
    "fails": ("#5b2c6f", "no policy makes it work"),
}
_OTHERWISE = ("#000000", "not as predicted")


def heat_map(document: Mapping[str, Any], title: str) -> str:
    """The picture of a matrix document. Raises KeyError for one that is none."""
    moves: Sequence[Mapping[str, Any]] = document["moves"]
    hosts = list(dict.fromkeys(move[end] for move in moves for end in ("source", "destination")))
    hosts.sort(key=_key)
    place = {host: number for number, host in enumerate(hosts)}
    side = _SQUARE * len(hosts)
    keys = [*_COLOURS.values(), _OTHERWISE]
    width, height = max(_LABEL + side + 20, 640), _TOP + side + _KEY_LINE * (len(keys) + 2) + 20
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="10">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="18" font-size="14">{escape(title)}</text>',
        '<text x="10" y="36" font-size="11">rows: from; columns: to</text>',
        *_labels(hosts),
    ]
    for move in moves:
        parts += _square(move, place)
    for number, (colour, words) in enumerate(keys):
        parts += _key_line(_TOP + side + 20 + _KEY_LINE * number, colour, words, dot=False)
    at = _TOP + side + 20 + _KEY_LINE * len(keys)
    parts += _key_line(at, "#eeeeee", "stock QEMU refuses the guest", dot=True)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _labels(hosts: Sequence[str]) -> Iterator[str]:
    for number, host in enumerate(hosts):
        middle = number * _SQUARE + _SQUARE // 2 + 3
        label = escape(_short(host))
        yield f'<text x="{_LABEL - 6}" y="{_TOP + middle}" text-anchor="end">{label}</text>'
        yield (
            f'<text transform="translate({_LABEL + middle},{_TOP - 6}) rotate(-60)">{label}</text>'
        )


def _square(move: Mapping[str, Any], place: Mapping[str, int]) -> Iterator[str]:
    x = _LABEL + _SQUARE * place[move["destination"]]
    y = _TOP + _SQUARE * place[move["source"]]
    risk = move["running"]["risk"] if move["ferried"] is not None else "fails"
    colour, words = _OTHERWISE if move["faults"] else _COLOURS[risk]
    stock = "loads" if move["stock"]["loads"] else "refuses"
    text = f"{move['source']} to {move['destination']}: stock QEMU {stock}; {words}"
    yield (
        f'<rect x="{x}" y="{y}" width="{_SQUARE - 1}" height="{_SQUARE - 1}" fill="{colour}">'
        f"<title>{escape(text)}</title></rect>"
    )
    if not move["stock"]["loads"]:
        yield _dot(x, y)


def _key_line(y: int, colour: str, words: str, *, dot: bool) -> Iterator[str]:
    side = _SQUARE - 1
    yield f'<rect x="{_LABEL}" y="{y}" width="{side}" height="{side}" fill="{colour}"/>'
    if dot:
        yield _dot(_LABEL, y)
    yield f'<text x="{_LABEL + 24}" y="{y + 12}" font-size="11">{escape(words)}</text>'


def _dot(x: int, y: int) -> str:
    middle = _SQUARE // 2 - 0.5
    return f'<circle cx="{x + middle}" cy="{y + middle}" r="2.5" fill="#222222"/>'


def _short(host: str) -> str:
    """`6.12.117+deb13 neoverse-n1 10.0.13` as `6.12.117, QEMU 10.0.13`."""
    kernel, _, qemu = host.split(" ")
    return f"{kernel.partition('+')[0].partition('-')[0]}, QEMU {qemu}"


def _key(host: str) -> tuple[tuple[int, ...], str, tuple[int, ...]]:
    kernel, cpu, qemu = host.split(" ")
    return _numbers(qemu), cpu, _numbers(kernel.partition("+")[0].partition("-")[0])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
