"""`armferry check`: will this guest load there?"""

import argparse
import json
from typing import Any

from armferry.cli import render
from armferry.cli.judgement import (
    EXIT_CODES,
    add_judgement,
    command,
    document,
    judge_move,
    open_source,
    show,
)
from armferry.cli.options import add_json
from armferry.cli.trace import add_trace
from armferry.decide import Answer

__all__ = ["add_parsers"]


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`check SOURCE --to DEST`."""
    parser = commands.add_parser("check")
    parser.add_argument("source", metavar="SOURCE", help="a stream or a fingerprint")
    add_judgement(parser)
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="list every register, those too that one cause explains",
    )
    add_trace(parser)
    add_json(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the verdict; the exit code says it too."""
    judgement = judge_move(arguments, open_source(arguments))
    answer = judgement.verdict.answer
    if arguments.json:
        print(json.dumps(document(judgement), indent=1))
        return EXIT_CODES[answer]
    show(judgement, verbose=arguments.verbose)
    if answer is Answer.WORKS_WITH_POLICY:
        guest = "" if judgement.source.saved is not None else "GUEST"
        render.next_step(command("ferry", arguments, source=guest, target="OUT"))
    elif answer is Answer.FAILS:
        render.next_step(f"{command('plan', arguments)} -o POLICY")
    return EXIT_CODES[answer]
