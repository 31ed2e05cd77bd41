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
)
from armferry.cli.options import add_json, add_loudness
from armferry.cli.trace import add_trace
from armferry.cli.verdict_text import show, show_answer
from armferry.decide import Answer

__all__ = ["add_parsers"]


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`check SOURCE --to DEST`."""
    parser = commands.add_parser("check")
    parser.add_argument("source", metavar="SOURCE", help="a stream or a fingerprint")
    add_judgement(parser)
    add_loudness(parser)
    parser.add_argument(
        "--fail-on",
        choices=("fails", "policy"),
        default="policy",
        help="what ends with another exit code than 0: fails alone, or policy too, a move that "
        "works with armferry only (default)",
    )
    add_trace(parser)
    add_json(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the verdict; the exit code says it too."""
    judgement = judge_move(arguments, open_source(arguments))
    answer = judgement.verdict.answer
    tolerated = answer is Answer.WORKS_WITH_POLICY and arguments.fail_on == "fails"
    code = 0 if tolerated else EXIT_CODES[answer]
    if arguments.json:
        print(json.dumps(document(judgement), indent=1))
        return code
    if arguments.quiet:
        show_answer(judgement.verdict)
        return code
    show(judgement, verbose=arguments.verbose)
    if answer is Answer.WORKS_WITH_POLICY:
        guest = "" if judgement.source.saved is not None else "GUEST"
        render.next_step(command("ferry", arguments, source=guest, target="OUT"))
    elif judgement.plannable:
        render.next_step(f"{command('plan', arguments)} -o POLICY")
    return code
