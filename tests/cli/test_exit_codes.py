"""docs/exit-codes.md: every command has its row, and ends as the row says."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from armferry.cli.main import main
from armferry.cli.parser import make_whole_parser

PAGE = Path(__file__).parents[2] / "docs" / "exit-codes.md"
ROWS = re.findall(r"^\| (`.*?`) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
SAID = {command: text for commands, text in ROWS for command in re.findall("`(.*?)`", commands)}

OLDER, NEWER = "atlas:6.12/neoverse-n1", "atlas:6.17/neoverse-n1"
LEVELS = ("--machine", "virt-10.0")


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[str]:
    """Every command, those below others by both words."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield name
    for action in below:
        for word, one in action.choices.items():
            yield from commands(one, f"{name} {word}".strip())


def test_every_command_has_a_row() -> None:
    assert sorted(commands(make_whole_parser())) == sorted(SAID)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, ("check", OLDER, "--to", OLDER, *LEVELS)),
        (1, ("check", OLDER, "--to", NEWER, *LEVELS)),
        (2, ("check", NEWER, "--to", OLDER, *LEVELS)),
        (0, ("check", OLDER, "--to", NEWER, *LEVELS, "--fail-on", "fails")),
        (2, ("check", NEWER, "--to", OLDER, *LEVELS, "--fail-on", "fails", "-q")),
        (1, ("plan", NEWER, "--to", OLDER, *LEVELS)),
        (0, ("baseline", OLDER, NEWER)),
        (2, ("baseline", OLDER, "atlas:6.12/neoverse-v1")),
        (0, ("diff", OLDER, NEWER)),
        (0, ("inspect", OLDER)),
        (3, ("inspect", "/nowhere")),
        (3, ("inspect", OLDER, "--register", "TCR9_EL1")),
        (0, ("explain", "SYS_TCR2_EL1")),
        (0, ("atlas", "why", "TCR2_EL1")),
        (4, ("fingerprint", "qemu", "--machine", "virt", "--cpu", "max", "--qemu", "no-such-qemu")),
    ],
    ids=lambda one: str(one) if isinstance(one, int) else " ".join(one),
)
def test_commands_end_as_the_row_says(
    code: int, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(words)) == code
    named = next(row for name, row in SAID.items() if " ".join(words).startswith(name))
    assert code in (3, 4) or re.search(rf"\b{code}\b", named)
    assert capsys.readouterr().err.count("\n") == (code > 2)
