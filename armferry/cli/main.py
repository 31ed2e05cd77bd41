"""The program `armferry`: the parser, and how every error ends.

Exit codes: 0 works, 1 works only with a stated policy, 2 will not work, 3 bad usage or input,
4 broken environment, 5 an error that armferry did not expect. An error is one line on standard
error; a traceback comes with --debug only.

Only the module of the command that is named is imported, `armferry.cli.NAME`, so that a command on
a small host does not wait for all the others.
"""

import argparse
import importlib
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from armferry import __version__
from armferry.errors import UNFORESEEN, ArmferryError, EnvironmentFault, unforeseen

__all__ = ["main", "make_parser"]

_COMMANDS = {
    "explain": "what a line of QEMU, libvirt or the kernel means, and what to type next",
    "inspect": "machine, sections, CPUs, registers by name with decoded fields",
    "fingerprint": "what a host would accept, as a document",
    "diff": "what each has alone, values that differ, fields decoded",
    "check": "say before the move whether it works, and which register stands in the way",
    "plan": "the smallest policy that makes the move work, each entry justified",
    "ferry": "rewrite a saved state so that the destination accepts it",
    "gateway": "stand between two QEMUs and make a live migration work",
    "migrate": "move a running guest from one QEMU to another",
    "host": "what this host has, and its stored fingerprints",
    "hook": "libvirt's hook: stop a move that cannot work before anything is sent",
    "atlas": "recorded fingerprints of kernels and QEMUs; since when a register is there, and why",
    "qemu": "run stock QEMU of any version, with hidden and safe-missing registers",
    "lab": "real QEMUs and kernels, under emulation",
}
"""Command -> what it does, as the list of commands says it."""
_DEBUG = "--debug"
_LONGEST = 500  # letters of a command line that is repeated


class _Parser(argparse.ArgumentParser):
    """argparse with armferry's exit code for bad usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(ArmferryError.exit_code, f"{self.prog}: {message}; see {self.prog} --help\n")


def make_parser(command: str | None) -> argparse.ArgumentParser:
    """A parser that knows the names of all commands, and the arguments of `command`.

    What it parses then has `func`, to be called with the parsed arguments.
    """
    parser = _Parser(
        prog="armferry",
        description="Carries Arm virtual machines across hosts whose kernels or QEMUs expose "
        "different CPU register sets.",
        epilog="SOURCE and DEST are a stream file, a libvirt save image, a fingerprint, - for "
        "standard input, kvm: for this host's own KVM, or atlas:KERNEL/CPU, an entry of the atlas. "
        "Exit codes: 0 works, 1 works only with a stated policy, 2 will not work, 3 bad usage or "
        "input, 4 broken environment, 5 an error that armferry did not expect (please report it).",
    )
    parser.add_argument("--version", action="version", version=f"armferry {__version__}")
    parser.add_argument(
        _DEBUG, action="store_true", help="show where an error that was not expected came from"
    )
    # prog is given because argparse would load shutil and all it needs to work it out
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, parser_class=_Parser, prog=parser.prog
    )
    for name, text in _COMMANDS.items():
        if name == command:
            importlib.import_module(f"armferry.cli.{name}").add_parsers(commands)
            _describe(commands.choices[name], text)
        else:
            commands.add_parser(name, help=text)
    return parser


def _describe(parser: argparse.ArgumentParser, text: str) -> None:
    """The help of a command, and of those below it, begins with what the list says of it."""
    parser.description = parser.description or f"{text[0].upper()}{text[1:]}."
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for listed in action._choices_actions:
                _describe(action.choices[listed.dest], listed.help or "")


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # not the default, so that temporary files are removed; nohup's choice stays
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    if sys.stderr is None:
        # else what belongs there would go to standard output, into the middle of a stream
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the program runs
    try:
        if sys.stdout is None:
            raise EnvironmentFault("standard output is closed")
        words = sys.argv[1:] if words is None else words
        # Before a command stand --debug, or --help and --version, which end the program.
        command = next((word for word in words if word != _DEBUG), None)
        arguments = make_parser(command).parse_args(words)
        code: int = arguments.func(arguments)
        sys.stdout.flush()
    except ArmferryError as error:
        print(f"armferry: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # whoever read our output has gone; writing the rest would only repeat the error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        print(f"armferry: {place}{error.strerror or error}", file=sys.stderr)
        return EnvironmentFault.exit_code
    except Exception as error:
        return _report(error, list(words or ()))
    return code


def _report(error: Exception, words: list[str]) -> int:
    """Says what nobody expected to go wrong; the exit code for it."""
    if _DEBUG in words[:1]:
        import traceback

        traceback.print_exc()
        how = "with the lines above"
    else:
        again = shlex.join(["armferry", _DEBUG, *words])
        how = (
            f"with what this prints: {again if len(again) < _LONGEST else f'armferry {_DEBUG} ...'}"
        )
    print(f"armferry: {unforeseen(error)}; please report it {how}", file=sys.stderr)
    return UNFORESEEN


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
