"""`armferry completion SHELL`, and what a shell asks while a person types.

A shell starts `armferry` with `_ARGCOMPLETE` set for each press of the key; argcomplete does the
talking. What is specific here: the ends of a move are files or entries of the atlas.
"""

import argparse
from typing import Any

from armferry.errors import EnvironmentFault

__all__ = ["add_parsers", "complete"]

_ENDS = ("source", "to", "a", "b", "source_fingerprint")
_ATLAS = "atlas:"
_SHELLS = ("bash", "zsh", "fish")


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`completion bash|zsh|fish`."""
    parser = commands.add_parser(
        "completion",
        epilog='bash: eval "$(armferry completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc, '
        "after compinit; fish: armferry completion fish > "
        "~/.config/fish/completions/armferry.fish",
    )
    parser.add_argument("shell", choices=_SHELLS, help="the shell that is to complete")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the script. Raises EnvironmentFault."""
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        raise EnvironmentFault(
            "completion needs the package argcomplete: pip install 'armferry[completion]'"
        ) from None
    print(shellcode(["armferry"], shell=arguments.shell))
    return 0


def complete() -> None:
    """Answers the shell and ends the process; nothing at all without argcomplete."""
    try:
        import argcomplete
    except ImportError:
        return
    from armferry.cli.parser import make_whole_parser

    parser = make_whole_parser()
    _set_completers(parser)
    argcomplete.autocomplete(parser)


def _set_completers(parser: argparse.ArgumentParser) -> None:
    """Gives each action that takes an end of a move, or an entry of the atlas, its completer."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _set_completers(inner)
        elif action.dest == "entry" or (action.dest in _ENDS and "atlas" in parser.prog):
            action.completer = _entries  # type: ignore[attr-defined]
        elif action.dest in _ENDS:
            action.completer = _ends  # type: ignore[attr-defined]


def _entries(prefix: str, **_: object) -> list[str]:
    from armferry.hosts.fingerprints.atlas import read_atlas

    stem = prefix.removeprefix(_ATLAS)
    return [entry.name for entry in read_atlas().entries if entry.name.startswith(stem)]


def _ends(prefix: str, **words: object) -> list[str]:
    from argcomplete.completers import FilesCompleter

    if prefix.startswith(_ATLAS):
        return [f"{_ATLAS}{name}" for name in _entries(prefix)]
    files: list[str] = list(FilesCompleter()(prefix, **words))
    return [*files, *(word for word in (_ATLAS, "kvm:") if word.startswith(prefix))]
