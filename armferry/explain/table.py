"""The lines that armferry can explain, as data (lines.toml).

Knows how a known line is written down; refuses to know what is done with it. A test holds each
text against the programs of the rig: QEMU's against its binaries, libvirt's against its driver.
"""

import enum
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["KnownLine", "Program", "known_lines"]


class Program(enum.StrEnum):
    """Who prints a line."""

    QEMU = "QEMU"
    LIBVIRT = "libvirt"
    LINUX = "Linux"


@dataclass(frozen=True, slots=True)
class KnownLine:
    """One kind of line.

    `text` is how the program writes it, with the `%d` and `%s` of its format; `pattern` finds it in
    a line, whatever stands around it. Groups of the pattern may be used in `means` as `{name}`; the
    group `register` is read as a register. `example` is a line as it was printed. `where` says
    which releases print it: names of the rig's releases, `kvm-SUITE` for QEMU built for arm64,
    `libvirt`; empty where the program was not at hand.
    `next` are commands, in which STATE and DEST stand for the guest and its new host.
    """

    name: str
    program: Program
    text: str
    pattern: re.Pattern[str]
    means: str
    next: tuple[str, ...]
    example: str
    where: tuple[str, ...]
    source: str


@cache
def known_lines() -> tuple[KnownLine, ...]:
    """Every line of the table, in its order: the first that is found in a line explains it."""
    table = tomllib.loads(files(__package__).joinpath("lines.toml").read_text(encoding="utf-8"))
    return tuple(
        KnownLine(
            name=row["name"],
            program=Program(row["program"]),
            text=row["text"],
            pattern=re.compile(row["pattern"]),
            means=" ".join(row["means"].split()),
            next=tuple(row.get("next", ())),
            example=row["example"],
            where=tuple(row["where"]),
            source=row["source"],
        )
        for row in table["line"]
    )
