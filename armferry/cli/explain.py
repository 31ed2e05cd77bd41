"""`armferry explain`: a line that QEMU, libvirt or the kernel printed, or a whole log of them."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from armferry.cli import render
from armferry.cli.options import add_json
from armferry.errors import ArmferryError
from armferry.explain import Explanation, explain_log, explain_text
from armferry.registers import RegisterTextError, UnknownRegister, name, parse_register

__all__ = ["add_parsers"]

SCHEMA_VERSION = 1
_LONGEST_LINE = 1 << 16
_STANDARD_INPUT = "-"


class NothingExplained(ArmferryError):
    """No line that armferry knows, and no register."""


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`explain TEXT...|FILE|-`."""
    parser = commands.add_parser("explain")
    parser.add_argument(
        "text",
        nargs="+",
        metavar="TEXT",
        help="a line as it was printed, a register in any spelling, a log file, or - for standard "
        "input",
    )
    add_json(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints what each known line means."""
    found, what = _explanations(arguments.text)
    if not found:
        raise NothingExplained(
            f"{what}: nothing that armferry knows: neither a line of QEMU, libvirt or Linux about "
            f"a move, nor a register{_meant(arguments.text)}; look at the log of the destination's "
            "QEMU (/var/log/libvirt/qemu/DOMAIN.log)"
        )
    if arguments.json:
        document = {"schema": SCHEMA_VERSION, "lines": [_document(one) for one in found]}
        print(json.dumps(document, indent=1))
        return 0
    for one in found:
        _show(one)
    render.next_steps(list(dict.fromkeys(command for one in found for command in one.next)))
    return 0


def _explanations(words: Sequence[str]) -> tuple[list[Explanation], str]:
    """What is explained, and what it was found in. Raises ArmferryError."""
    if list(words) == [_STANDARD_INPUT]:
        return list(explain_log(_lines(sys.stdin))), "standard input"
    text = " ".join(words)
    path = Path(text)
    try:
        is_file = len(words) == 1 and path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        is_file = False
    if is_file:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                return list(explain_log(_lines(file))), text
        except OSError as error:
            raise ArmferryError(f"{text}: cannot be read: {error.strerror}") from error
    if "\n" in text:
        return list(explain_log(text.splitlines())), "this text"
    found = explain_text(text)
    return ([] if found is None else [found]), _shortened(text)


def _meant(words: Sequence[str]) -> str:
    """Registers that a mistyped word may stand for, as a question."""
    try:
        parse_register(" ".join(words))
    except UnknownRegister as error:
        if error.suggestions:
            return f" (did you mean {' or '.join(error.suggestions)}?)"
    except RegisterTextError:
        pass
    return ""


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a log; one that has no end in sight is cut into pieces."""
    while line := file.readline(_LONGEST_LINE):
        yield line


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def _show(one: Explanation) -> None:
    times = f"  ({one.count} times)" if one.count > 1 else ""
    render.line(f"{one.line}{times}", "head")
    render.prose(one.means)
    for line in one.history:
        render.prose(line, "faint")


def _document(one: Explanation) -> dict[str, Any]:
    register = None
    if one.register is not None:
        register = {"index": f"{one.register:#018x}", "name": name(one.register)}
    return {
        "line": one.line,
        "name": one.name,
        "program": one.program,
        "means": one.means,
        "register": register,
        "history": list(one.history),
        "next": list(one.next),
        "count": one.count,
    }
