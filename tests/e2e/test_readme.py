"""The README's commands, as they are typed after `make demo`, and what they print."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```\n(\$ .*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(((?!https?:)[^)#]+)\)")
LIMIT = 300.0


def commands() -> Iterator[tuple[str, str]]:
    """(command, what it prints) of each block that begins with a prompt, in order."""
    for block in FENCE.findall(README):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, said = part.partition("\n")
            yield command, said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "armferry.lab.demo", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100 or str(made) in done.stdout
    programs = made / "bin"
    programs.mkdir()
    program = programs / "armferry"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m armferry "$@"\n')
    program.chmod(0o755)
    return made


@pytest.mark.qemu
def test_commands_print_what_the_readme_says(folder: Path) -> None:
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    found = list(commands())
    assert len(found) >= 4
    for command, said in found:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        pattern = ".*".join(re.escape(part) for part in said.split("...\n"))
        assert re.fullmatch(pattern, done.stdout + done.stderr, re.DOTALL), (
            f"$ {command}\n{done.stdout}{done.stderr}"
        )


MADE = ("tutorial.md", "commands.md")
"""Pages that the site alone has (tools/docs_site.py); `make docs` checks links to them."""
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert target in MADE or (page.parent / target).exists(), target
