"""The options of `armferry fleet plan`; what it does is in `fleet_plan`."""

import argparse
from pathlib import Path

from armferry.cli.options import add_policy

__all__ = ["add_plan_options"]

_STATES = 100_000


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """All but the store and --json."""
    parser.add_argument(
        "--to",
        metavar="GOAL",
        help="what every host is to run: kernel=6.17, qemu=11.1, or both with a comma; releases "
        "or series",
    )
    parser.add_argument(
        "--wave",
        metavar="N",
        default="2%",
        help="hosts that are down at once: a number, or a share of all (default: 2%%, one at "
        "least)",
    )
    parser.add_argument(
        "--spare",
        metavar="N",
        type=int,
        default=0,
        help="hosts that are up and hold no guest, at every moment (default: 0)",
    )
    parser.add_argument(
        "--keep-way-back",
        action="store_true",
        help="move no guest to where it could not come back from",
    )
    parser.add_argument(
        "--only-sure",
        action="store_true",
        help="plan no move that depends on what a guest's registers hold; else such a step says "
        "what to check first",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="where to write the plan, as JSON"
    )
    parser.add_argument(
        "--runbook", metavar="FILE", type=Path, help="write all steps as text, one a line"
    )
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw the waves, for a runbook")
    parser.add_argument(
        "--with",
        dest="tool",
        metavar="TOOL",
        choices=("virsh", "armferry", "kubevirt", "nova"),
        default="virsh",
        help="whose commands the steps are: virsh (the default), armferry, kubevirt or nova",
    )
    parser.add_argument(
        "--check",
        metavar="FILE",
        type=Path,
        help="plan nothing: say whether the plan in FILE holds, written by hand or not",
    )
    parser.add_argument(
        "--resume", metavar="FILE", type=Path, help="plan anew from the middle of a plan"
    )
    parser.add_argument(
        "--done",
        metavar="N",
        type=int,
        default=0,
        help="with --resume: how many of its numbered steps are done",
    )
    parser.add_argument(
        "--states",
        metavar="N",
        type=int,
        default=_STATES,
        help="how far to search for a plan that is proved to be the least costly one; small "
        f"fleets only (default: {_STATES})",
    )
    add_policy(parser)
