"""The parser of `armferry`: its commands in groups, and what it says to words unknown to it.

Only the module of the command that is named is imported, `armferry.cli.NAME`, so that a command on
a small host does not wait for all the others; man pages and completion ask for all of them.
"""

import argparse
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from armferry import __version__
from armferry.errors import ArmferryError

__all__ = ["COMMANDS", "DEBUG", "GROUPS", "Parser", "make_parser", "make_whole_parser"]

DEBUG = "--debug"

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Look": {
        "explain": "what a line of QEMU, libvirt or the kernel means, and what to type next",
        "inspect": "machine, sections, CPUs, registers by name with decoded fields",
        "diff": "what each has alone, values that differ, fields decoded",
        "atlas": "recorded fingerprints of kernels and QEMUs; since when a register is there, "
        "and why",
    },
    "Decide": {
        "fingerprint": "what a host would accept, as a document",
        "check": "say before the move whether it works, and which register stands in the way",
        "baseline": "one register set for guests that are to move among a group of hosts",
        "plan": "the smallest policy that makes the move work, each entry justified",
    },
    "Move": {
        "ferry": "rewrite a saved state so that the destination accepts it",
        "migrate": "move a running guest from one QEMU to another",
        "gateway": "stand between two QEMUs and make a live migration work",
        "qemu": "run stock QEMU of any version, with hidden and safe-missing registers",
    },
    "Hosts": {
        "host": "what this host has, and its stored fingerprints",
        "hook": "libvirt's hook: stop a move that cannot work before anything is sent",
    },
    "Fleet": {
        "fleet": "every host and guest of a site: who can go where, who can come back",
    },
    "Lab": {
        "lab": "real QEMUs and kernels, under emulation",
        "completion": "words for bash, zsh or fish to complete",
    },
}
"""Group -> command -> what it does, as the list of commands says it."""

COMMANDS: Mapping[str, str] = {
    name: text for group in GROUPS.values() for name, text in group.items()
}

_DESCRIPTION = (
    "Carries Arm virtual machines across hosts whose kernels or QEMUs expose different CPU "
    "register sets."
)
_EPILOG = """\
SOURCE and DEST are a stream file, a libvirt save image, a fingerprint, - for standard input, kvm:
for this host's own KVM, or atlas:KERNEL/CPU, an entry of the atlas (atlas:6.12/neoverse-n1).

Exit codes: 0 works, 1 works with armferry, 2 will not work, 3 bad usage or input,
4 broken environment, 5 an error that armferry did not expect (please report it)."""


class Parser(argparse.ArgumentParser):
    """argparse with armferry's exit code for bad usage, and a guess at what was meant."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong with the words and where help is; ends the program."""
        self.exit(ArmferryError.exit_code, f"{self.prog}: {message}; see {self.prog} --help\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's; an option that is not there is said before one that is missing."""
        if args is not None and not self._takes_the_rest:
            for word in args:
                if word == "--":
                    break
                option = word.partition("=")[0]
                known = self._option_string_actions
                if option.startswith("--") and not any(one.startswith(option) for one in known):
                    self.error(f"there is no option {option}{_guess(option, known)}")
        return super().parse_known_args(args, namespace)

    @property
    def _takes_the_rest(self) -> bool:
        """Whether words that follow may be another parser's or another program's."""
        return any(
            isinstance(action, argparse._SubParsersAction)
            or action.nargs in (argparse.REMAINDER, argparse.PARSER)
            for action in self._actions
        )

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = action.choices
        if isinstance(action, argparse._SubParsersAction) and value not in (choices or ()):
            words = list(map(str, choices or ()))
            listed = "" if len(words) > 8 else f"; it is one of {', '.join(words)}"
            what = f"there is no {str(action.metavar or 'word').lower()} {value!r}"
            raise argparse.ArgumentError(None, f"{what}{_guess(str(value), words) or listed}")
        super()._check_value(action, value)


def _guess(word: str, known: Iterable[str]) -> str:
    import difflib  # only a failing command pays for it

    close = difflib.get_close_matches(word[:40], list(known), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def make_parser(command: str | None) -> argparse.ArgumentParser:
    """A parser that knows the names of all commands, and the arguments of `command`.

    What it parses then has `func`, to be called with the parsed arguments.
    """
    return _make([command] if command in COMMANDS else [])


def make_whole_parser() -> argparse.ArgumentParser:
    """A parser that knows the arguments of every command; slow, for what lists them all."""
    return _make(COMMANDS)


def _make(loaded: Iterable[str | None]) -> argparse.ArgumentParser:
    parser = Parser(
        prog="armferry",
        usage="armferry [-h] [-V] [--debug] COMMAND ...",
        description=_DESCRIPTION + "\n\n" + "\n".join(_listed()),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-V",
        "--version",
        action="version",
        version=f"armferry {__version__}",
        help="show armferry's version number and exit",
    )
    parser.add_argument(
        DEBUG, action="store_true", help="show where an error that was not expected came from"
    )
    # prog is given because argparse would load shutil and all it needs to work it out
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, parser_class=Parser, prog=parser.prog
    )
    commands.help = argparse.SUPPRESS
    wanted = set(loaded)
    unloaded = Parser(prog=parser.prog, add_help=False)
    for name, text in COMMANDS.items():
        if name in wanted:
            importlib.import_module(f"armferry.cli.{name}").add_parsers(commands)
            _describe(commands.choices[name], text)
        else:
            commands.choices[name] = unloaded  # known by its name alone, at no cost
    return parser


def _listed() -> Iterator[str]:
    """The commands in their groups, as the help shows them."""
    width = max(map(len, COMMANDS))
    for group, commands in GROUPS.items():
        yield f"{group}:"
        yield from (f"  {name:<{width}}  {text}" for name, text in commands.items())


def _describe(parser: argparse.ArgumentParser, text: str) -> None:
    """The help of a command, and of those below it, begins with what the list says of it."""
    parser.description = parser.description or f"{text[0].upper()}{text[1:]}."
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for listed in action._choices_actions:
                _describe(action.choices[listed.dest], listed.help or "")
