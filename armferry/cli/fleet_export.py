"""`armferry fleet export|report`: what is known, for other programs and for a browser."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from armferry.cli import render
from armferry.cli.fleet_open import open_standing
from armferry.errors import ArmferryError
from armferry.fleet.exports.ganeti import tag_commands
from armferry.fleet.exports.metrics import metrics_text
from armferry.fleet.exports.nfd import feature_file, feature_files
from armferry.fleet.exports.table import matrix_csv
from armferry.fleet.model import Answer
from armferry.fleet.overview import overview
from armferry.fleet.questions import By, matrix
from armferry.fleet.standing import Standing
from armferry.hosts.files.atomic import write_whole

__all__ = ["run_export", "run_report"]

SCHEMA_VERSION = 1
_HOUR = 3600.0
_STEPS = 20  # of a wave, on the page


def run_export(arguments: argparse.Namespace) -> int:
    """Writes one form to standard output, or where `-o` says."""
    standing = open_standing(arguments)
    if arguments.form == "nfd" and arguments.host is None:
        return _features(standing, arguments)
    text = _text(standing, arguments)
    if arguments.output is None:
        print(text, end="")
    else:
        write_whole(arguments.output, text)
        _wrote(arguments, [arguments.output])
    return 0


def _text(standing: Standing, arguments: argparse.Namespace) -> str:
    worst = Answer(arguments.accept)
    match arguments.form:
        case "csv":
            return matrix_csv(matrix(standing, By(arguments.by), arguments.kind))
        case "ganeti":
            return "".join(f"{line}\n" for line in tag_commands(standing, worst))
        case "nfd":
            host = standing.store.host(arguments.host)
            return feature_file(standing, host, _expires(arguments), worst)
    return metrics_text(standing, time.time())


def _expires(arguments: argparse.Namespace) -> float:
    return time.time() + float(arguments.hours) * _HOUR


def _features(standing: Standing, arguments: argparse.Namespace) -> int:
    folder: Path | None = arguments.output
    if folder is None:
        arguments.usage_error(
            "nfd makes a file for each host: name a folder with -o, or one --host"
        )
        raise AssertionError("not reached")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for host, text in feature_files(standing, _expires(arguments), Answer(arguments.accept)):
        if "/" in host.name or host.name.startswith("."):
            raise ArmferryError(f"{host.name!r} is no name of a file; write it with --host")
        write_whole(folder / host.name, text)
        written.append(folder / host.name)
    _wrote(arguments, written)
    return 0


def _wrote(arguments: argparse.Namespace, files: list[Path]) -> None:
    if arguments.json:
        print(json.dumps({"schema": SCHEMA_VERSION, "written": list(map(str, files))}, indent=1))
    elif len(files) == 1:
        render.line(f"wrote {files[0]}")
    else:
        render.line(f"wrote {len(files)} files to {arguments.output}")


def run_report(arguments: argparse.Namespace) -> int:
    """Writes the page."""
    from armferry.web.page import fleet_page

    standing = open_standing(arguments)
    plan = () if arguments.plan is None else _plan(arguments.plan)
    found = overview(standing, time.time())
    write_whole(arguments.output, fleet_page(found, plan))
    if arguments.json:
        one = found.summary
        document: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "written": str(arguments.output),
            "sentence": str(one),
            "hosts": one.hosts,
            "heard": one.heard,
            "guests": one.guests,
            "classes": one.classes,
            "stranded": one.stranded,
            "no_return": one.no_return,
            "one_way_ahead": one.one_way_ahead,
        }
        print(json.dumps(document, indent=1))
    else:
        render.line(str(found.summary))
        render.line(f"wrote {arguments.output}")
    return 0


def _plan(path: Path) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The waves of a plan (docs/fleet-plan.md) and their steps. Raises ArmferryError."""
    shown = []
    try:
        waves = json.loads(path.read_text(encoding="utf-8"))["waves"]
        for number, wave in enumerate(waves, 1):
            steps = [
                f"{what} {guest}: {source} to {destination}"
                for what, guest, source, destination in wave["steps"]
            ]
            upgrades = [f"upgrade {host}" for host in wave["upgrades"]]
            title = f"Wave {number}: {len(steps)} moves, {len(upgrades)} upgrades"
            left = len(steps) - _STEPS
            more = [f"and {left:,} moves more"] if left > 0 else []
            shown.append((title, (*steps[:_STEPS], *more, *upgrades[:_STEPS])))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArmferryError(f"{path}: no plan of armferry fleet plan: {error!r}") from None
    return tuple(shown)
