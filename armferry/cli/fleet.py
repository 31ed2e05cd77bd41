"""`armferry fleet`: every host and guest of a site, kept in a store, and what is asked of them.

Only parses: what a command does is in `fleet_store`, `fleet_matrix` and `fleet_export`, which load
the database's driver.
"""

import argparse
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from armferry.cli.fleet_plan_options import add_plan_options
from armferry.cli.options import add_json, add_policy

__all__ = ["STORE", "STORE_VARIABLE", "add_parsers", "add_store"]

STORE = "/var/lib/armferry/fleet.sqlite"
STORE_VARIABLE = "ARMFERRY_FLEET"
_MOST = 50


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fleet import|hosts|matrix|why|...`."""
    parser = commands.add_parser("fleet")
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=type(parser))
    _add_keeping(actions)
    _add_questions(actions)
    _add_outputs(actions)
    _add_plan(actions)


def add_store(parser: argparse.ArgumentParser) -> None:
    """`--store`."""
    parser.add_argument(
        "--store",
        metavar="STORE",
        default=os.environ.get(STORE_VARIABLE) or STORE,
        help=f"a file, or postgresql://USER@HOST/NAME (default: ${STORE_VARIABLE}, else {STORE})",
    )


def _run(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        done: int = getattr(importlib.import_module(f"armferry.cli.{module}"), function)(arguments)
        return done

    return run


def _action(
    actions: "argparse._SubParsersAction[Any]", name: str, text: str, run: tuple[str, str]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text)
    add_store(parser)
    add_json(parser)
    parser.set_defaults(func=_run(*run), usage_error=parser.error)
    return parser


def _add_keeping(actions: "argparse._SubParsersAction[Any]") -> None:
    taker = _action(actions, "import", "take in what hosts reported", ("fleet_store", "run_import"))
    taker.add_argument(
        "sources",
        metavar="FOLDER",
        nargs="+",
        help="a folder of reports, or of copies of /var/lib/armferry/host; a report; or - for "
        "standard input",
    )
    hosts = _action(
        actions, "hosts", "the hosts, and when they were heard", ("fleet_store", "run_hosts")
    )
    hosts.add_argument("--silent", action="store_true", help="only those not heard for a day")
    hosts.add_argument(
        "--most", metavar="N", type=int, default=_MOST, help=f"rows at most (default: {_MOST})"
    )
    past = _action(actions, "history", "what changed on a host", ("fleet_store", "run_history"))
    past.add_argument("host", metavar="HOST", help="its name")


def _add_questions(actions: "argparse._SubParsersAction[Any]") -> None:
    matrix = _action(
        actions, "matrix", "from where to where guests can go", ("fleet_matrix", "run_matrix")
    )
    _add_by(matrix)
    add_policy(matrix)
    matrix.add_argument(
        "--svg", metavar="FILE", type=Path, help="write it as a picture too, for a runbook"
    )
    why = _action(
        actions, "why", "why guests of one can go to another, or not", ("fleet_matrix", "run_why")
    )
    why.add_argument("source", metavar="A", help="a host, or the id of a class")
    why.add_argument("destination", metavar="B", help="a host, or the id of a class")
    why.add_argument("--guest", metavar="ID", help="a guest of A, born where it was born")
    why.add_argument("--kind", metavar="KIND", help="the kind of guest, where there are several")
    why.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="list every register, those too that one cause explains",
    )
    add_policy(why)
    stranded = _action(
        actions, "stranded", "guests that have nowhere to go", ("fleet_matrix", "run_stranded")
    )
    stranded.add_argument(
        "--most", metavar="N", type=int, default=_MOST, help=f"guests at most (default: {_MOST})"
    )
    add_policy(stranded)
    drain = _action(
        actions, "drain-check", "whether a host can be emptied now", ("fleet_matrix", "run_drain")
    )
    drain.add_argument("host", metavar="HOST", help="its name")
    add_policy(drain)
    baseline = _action(
        actions,
        "baseline",
        "one register set for guests that are to move among these hosts",
        ("fleet_matrix", "run_baseline"),
    )
    baseline.add_argument(
        "--kind", metavar="KIND", help="the kind of guest, where there are several"
    )
    baseline.add_argument("--site", metavar="SITE", help="only the hosts of a site")
    baseline.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        type=Path,
        help="where to write it, as armferry baseline",
    )


def _add_outputs(actions: "argparse._SubParsersAction[Any]") -> None:
    export = _action(
        actions, "export", "what is known, for other programs", ("fleet_export", "run_export")
    )
    export.add_argument(
        "form",
        metavar="FORM",
        choices=("csv", "ganeti", "nfd", "prometheus"),
        help="csv (the matrix), ganeti (tags for htools), nfd (feature files of Kubernetes' node "
        "feature discovery), prometheus (a textfile of the node exporter)",
    )
    _add_by(export)
    export.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="a file; for nfd a folder of one for each host",
    )
    export.add_argument("--host", metavar="HOST", help="nfd: the file of this host alone")
    export.add_argument(
        "--hours", metavar="N", type=float, default=24.0, help="nfd: valid so long (default: 24)"
    )
    export.add_argument(
        "--accept",
        metavar="ANSWER",
        choices=("stock", "armferry"),
        default="stock",
        help="nfd, ganeti: what counts as a way: stock (QEMU alone, the default) or armferry",
    )
    add_policy(export)
    report = _action(
        actions, "report", "one HTML page of all that is known", ("fleet_export", "run_report")
    )
    report.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="the page: fleet.html"
    )
    report.add_argument(
        "--plan", metavar="FILE", type=Path, help="a plan of armferry fleet plan, to be shown in it"
    )
    add_policy(report)


def _add_plan(actions: "argparse._SubParsersAction[Any]") -> None:
    planner = _action(
        actions, "plan", "in which order to upgrade the hosts", ("fleet_plan", "run_plan")
    )
    add_plan_options(planner)


def _add_by(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by",
        metavar="GROUP",
        choices=("kernel", "class", "host", "site"),
        default="kernel",
        help="rows and columns: kernel (the default), class, host or site",
    )
    parser.add_argument("--kind", metavar="KIND", help="guests of this kind alone")
