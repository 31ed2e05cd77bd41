"""Man pages, one for each command, from the parser: `tools/man_pages.py FOLDER`.

SOURCE_DATE_EPOCH, when it is set, is the date that the pages bear.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from argparse_manpage.manpage import Manpage  # type: ignore[import-untyped]

from armferry import __version__
from armferry.cli.parser import COMMANDS, make_parser, make_whole_parser

__all__ = ["pages"]

_FILES = """\
.SH FILES
.TP
.I /etc/armferry/*.toml
site policy: rules of this host
.TP
.I /var/lib/armferry
stored fingerprints of this host and of others
.TP
.I ~/.cache/armferry
what the lab installed (ARMFERRY_CACHE names another folder)
"""
_CODES = """\
.SH EXIT STATUS
0 works; 1 works with armferry; 2 will not work; 3 bad usage or input; 4 broken
environment; 5 an error that armferry did not expect.
"""


def pages() -> Iterator[tuple[str, str]]:
    """(file name, text) of each page: armferry.1 and one for each command."""
    whole = make_whole_parser()
    commands = next(a for a in whole._actions if isinstance(a, argparse._SubParsersAction))
    others = [f"armferry-{name}(1)" for name in COMMANDS]
    yield "armferry.1", _page(make_parser(None), "armferry", others)
    for name in COMMANDS:
        parser = commands.choices[name]
        yield f"armferry-{name}.1", _page(parser, f"armferry-{name}", ["armferry(1)"])


def _page(parser: argparse.ArgumentParser, name: str, others: list[str]) -> str:
    short = (parser.description or "").partition(".")[0].partition("\n")[0]
    short = short[:1].lower() + short[1:]
    data = {
        "prog": name,
        "version": __version__,
        "description": short,
        "project_name": "armferry",
        "manual_title": "armferry",
        "manual_section": "1",
        "date": "",
    }
    head, _, text = str(Manpage(parser, data)).partition(".SH SYNOPSIS\n")
    title = head.splitlines()[0].partition(' "1" ')[2].replace("\\-", "-")
    head = f'.TH {name.upper()} "1" {title}\n.SH NAME\n{name} \\- {short}\n.SH SYNOPSIS\n'
    see = ",\n".join(f".BR {one.removesuffix('(1)')} (1)" for one in others)
    text = (
        text.replace("\n\nLook:\n", "\n.PP\n.nf\nLook:\n").replace(
            "\n\n.SH OPTIONS", "\n.fi\n.SH OPTIONS", 1
        )
        if name == "armferry"
        else text
    )
    return f"{head}{text.rstrip()}\n{_CODES}{_FILES}.SH SEE ALSO\n{see}\n"


def main() -> int:
    """Writes every page below the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
