"""The waves of a plan as an SVG picture, for a runbook: no script, nothing fetched.

A row for each host while there are few, else one for each failure domain, else for each build;
a column for each wave. What is upgraded is filled, what was before is outlined.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from armferry.fleet.plan.document import fleet_of
from armferry.fleet.plan.model import PlanHost

__all__ = ["waves_svg"]

_MOST_ROWS = 64
_COLUMN, _ROW, _TOP, _LETTER = 26, 18, 66, 7.0
_MOST_COLUMNS = 400
_DONE, _NOW, _WAITS, _STAYS = "#1a6b3c", "#1c5d99", "#e8e8e8", "#ffffff"


def waves_svg(document: Mapping[str, Any]) -> str:
    """The picture of a plan. Raises PlanDocumentError."""
    return "\n".join(_svg(document)) + "\n"


def _svg(document: Mapping[str, Any]) -> Iterator[str]:
    hosts = fleet_of(document).hosts
    waves = document["waves"]
    when = {host: at for at, wave in enumerate(waves) for host in wave["upgrades"]}
    rows = _rows(hosts)
    shown = min(len(waves), _MOST_COLUMNS)
    label = max((len(name) for name in rows), default=4) * _LETTER + 20
    width, height = label + shown * _COLUMN + 40, _TOP + len(rows) * _ROW + 60
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" '
        'font-family="DejaVu Sans, Verdana, sans-serif" font-size="11">'
    )
    cost = document.get("cost") or {}
    title = (
        f"{len(waves):,} waves, {len(when):,} hosts upgraded, {cost.get('moves', 0):,} moves, "
        f"{cost.get('restarts', 0):,} restarts"
    )
    yield f"<title>{title}</title>"
    yield f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
    yield f'<text x="10" y="20" font-size="14">{title}</text>'
    for at in range(shown):
        x = label + at * _COLUMN + _COLUMN / 2
        yield f'<text x="{x:.0f}" y="{_TOP - 20}" text-anchor="middle">{at + 1}</text>'
        steps = len(waves[at].get("steps") or ())
        small = f"{steps}" if steps < 1000 else f"{steps // 1000}k"
        yield (
            f'<text x="{x:.0f}" y="{_TOP - 6}" text-anchor="middle" font-size="9" '
            f'fill="#444444">{small}</text>'
        )
    for row, (name, members) in enumerate(rows.items()):
        yield from _row(row, name, members, when, label, shown)
    y = _TOP + len(rows) * _ROW + 24
    words = ((_WAITS, "waits"), (_NOW, "upgraded in this wave"), (_DONE, "upgraded"))
    for number, (colour, text) in enumerate(words):
        x = 10 + number * 170
        yield f'<rect x="{x}" y="{y - 10}" width="14" height="12" fill="{colour}" stroke="#444"/>'
        yield f'<text x="{x + 20}" y="{y}">{text}</text>'
    yield f'<text x="10" y="{y + 20}">Above: the wave, and how many guests leave in it</text>'
    yield "</svg>"


def _rows(hosts: tuple[PlanHost, ...]) -> dict[str, list[PlanHost]]:
    for way in (_host, _domain, _build):
        rows: dict[str, list[PlanHost]] = {}
        for host in hosts:
            rows.setdefault(way(host), []).append(host)
        if len(rows) <= _MOST_ROWS:
            return rows
    common = Counter({name: len(members) for name, members in rows.items()})
    kept = [name for name, _ in common.most_common(_MOST_ROWS - 1)]
    others = [host for name in rows if name not in kept for host in rows[name]]
    return {name: rows[name] for name in kept} | {"all others": others}


def _host(host: PlanHost) -> str:
    return host.name


def _domain(host: PlanHost) -> str:
    return host.domain or "no domain"


def _build(host: PlanHost) -> str:
    return host.build


def _row(
    row: int,
    name: str,
    members: list[PlanHost],
    when: Mapping[str, int],
    label: float,
    shown: int,
) -> Iterator[str]:
    y = _TOP + row * _ROW
    yield (f'<text x="{label - 8:.0f}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
    planned = sorted(when[host.name] for host in members if host.name in when)
    for at in range(shown):
        done = sum(1 for one in planned if one < at)
        now = sum(1 for one in planned if one == at)
        colour = _NOW if now else (_STAYS if not planned else _WAITS)
        if not now and done == len(planned) and planned:
            colour = _DONE
        x = label + at * _COLUMN
        text = f"{name}, wave {at + 1}: {done + now} of {len(planned)} upgraded"
        yield (
            f'<rect x="{x:.0f}" y="{y}" width="{_COLUMN - 2}" height="{_ROW - 2}" '
            f'fill="{colour}" stroke="#888888" stroke-width="0.5">'
            f"<title>{escape(text)}</title></rect>"
        )
        if now and len(members) > 1:
            yield (
                f'<text x="{x + _COLUMN / 2 - 1:.0f}" y="{y + 12}" text-anchor="middle" '
                f'font-size="9" fill="#ffffff">{now if now < 1000 else f"{now // 1000}k"}</text>'
            )
