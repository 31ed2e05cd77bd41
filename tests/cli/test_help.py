"""Every command, and every word that it takes, says what it is for."""

import argparse
from collections.abc import Iterator

import pytest

from armferry.cli.main import _COMMANDS, make_parser


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _parsers(inner)


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_of(command: str) -> None:
    whole = make_parser(command)
    chosen = next(a for a in whole._actions if isinstance(a, argparse._SubParsersAction))
    for parser in _parsers(chosen.choices[command]):
        assert parser.prog.startswith(f"armferry {command}")
        assert parser.description
        assert parser.description[0].isupper(), parser.prog
        assert parser.description.endswith("."), parser.prog
        assert parser.description in " ".join(parser.format_help().split())
        for action in parser._actions:
            if not isinstance(action, argparse._SubParsersAction):
                assert action.help, (parser.prog, action.dest)
                continue
            listed = {one.dest: one.help for one in action._choices_actions}
            assert listed.keys() == action.choices.keys()
            assert all(listed.values()), parser.prog


def test_list_of_commands_says_what_exit_codes_mean() -> None:
    said = " ".join(make_parser(None).format_help().split())
    assert "0 works, 1 works only with a stated policy, 2 will not work, 3 bad usage" in said
    assert all(f" {name} {text}" in said for name, text in _COMMANDS.items())
