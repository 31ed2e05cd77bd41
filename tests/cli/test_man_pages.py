"""The man pages: one for each command, and without a warning of mandoc."""

import subprocess
import sys
from pathlib import Path

import pytest

from armferry.cli.parser import COMMANDS

TOOL = Path(__file__).parents[2] / "tools" / "man_pages.py"
NAMES = ["armferry", *(f"armferry-{name}" for name in COMMANDS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, TOOL, made], check=True)
    return made


def test_a_page_for_each_command(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}.1" for n in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_clean(name: str, folder: Path) -> None:
    page = folder / f"{name}.1"
    said = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True
    )
    assert said.stdout + said.stderr == ""
    text = subprocess.run(
        ["mandoc", "-T", "ascii", page], capture_output=True, text=True, check=True
    ).stdout
    assert "EXIT STATUS" in _plain(text)
    assert f"{name} - " in _plain(text)


def _plain(text: str) -> str:
    """Text without the overstrikes of bold and underlined letters."""
    return "".join(
        letter
        for place, letter in enumerate(text)
        if letter != "\b" and text[place + 1 : place + 2] != "\b"
    )
