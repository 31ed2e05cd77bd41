"""The commands in docs/ with a prompt before them print what the page says.

Those of the README need what `make demo` leaves; tests/e2e/test_readme.py runs them.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from armferry.cli.main import main

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```\n(\$ .*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, str, str]]:
    """(page, command, what it prints)."""
    for page in sorted(DOCS.rglob("*.md")):
        for block in FENCE.findall(page.read_text(encoding="utf-8")):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, said = part.partition("\n")
                yield page.name, command, said


@pytest.mark.parametrize(("page", "command", "said"), list(commands()))
def test_command_prints_what_its_page_says(
    page: str, command: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *words = shlex.split(command)
    assert program == "armferry"
    main(words)
    pattern = ".*".join(re.escape(part) for part in said.split("...\n"))
    seen = capsys.readouterr()
    assert re.fullmatch(pattern, seen.out + seen.err, re.DOTALL), seen.out


def test_there_are_such_commands() -> None:
    assert len(list(commands())) >= 2
