"""What the documentation's site has beside docs/: the README's first session, every command's help.

A hook of mkdocs; `make docs` builds the site.
"""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_WIDTH = "100"


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made of something else."""
    File = importlib.import_module("mkdocs.structure.files").File  # noqa: N806 - a class

    for name, text in {"tutorial.md": _tutorial(), "commands.md": _commands()}.items():
        files.append(File.generated(config, name, content=text))
    return files


def _tutorial() -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = [_section(readme, title) for title in ("Try it", "A first session")]
    return "# A first session\n\n" + re.sub(r"\]\(docs/", "](", "\n".join(parts))


def _section(text: str, title: str) -> str:
    """What stands under a heading."""
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def _commands() -> str:
    sys.path.insert(0, str(ROOT))
    os.environ["COLUMNS"] = _WIDTH
    from armferry.cli.parser import make_whole_parser

    pages = (f"## {name}\n\n```\n{text}```\n" for name, text in _helps(make_whole_parser()))
    return "# Commands\n\n" + "\n".join(pages)


def _helps(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """(name, help) of a command and of all below it."""
    yield parser.prog, parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from _helps(one)
