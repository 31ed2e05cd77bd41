"""Every command, and every word that it takes, says what it is for."""

import argparse
from collections.abc import Iterator

import pytest

from armferry.cli.parser import COMMANDS, make_parser


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _parsers(inner)


@pytest.mark.parametrize("command", COMMANDS)
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
    assert "0 works, 1 works with armferry, 2 will not work, 3 bad usage" in said
    assert all(f" {name} {text}" in said for name, text in COMMANDS.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chek"], "armferry: there is no command 'chek'; did you mean check?; see"),
        (["frobnicate"], "armferry: there is no command 'frobnicate'; see armferry --help"),
        (
            ["check", "a", "--too", "b"],
            "armferry check: there is no option --too; did you mean --to",
        ),
        (
            ["check", "a", "--unheard=of", "--to", "b"],
            "armferry check: there is no option --unheard;",
        ),
        (["atlas", "lst"], "armferry atlas: there is no verb 'lst'; did you mean list?"),
        (["atlas", "zzz"], "it is one of list, show, diff, why, record; see armferry atlas --help"),
        (["check", "a"], "armferry check: the following arguments are required: --to; see"),
        (["lab", "qemu", "install"], "armferry lab qemu install: the following arguments are"),
    ],
)
def test_words_that_are_not_there(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        make_parser(words[0]).parse_args(words)
    assert ended.value.code == 3
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        make_parser(None).parse_args([option])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("armferry ")


def test_words_after_two_dashes_are_left_alone() -> None:
    words = ["qemu", "--", "--unheard", "-of"]
    assert make_parser("qemu").parse_args(words).words[-2:] == ["--unheard", "-of"]
