"""The room's TOML files, and what every set of facts in them rests on."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Basis", "basis", "table"]


@dataclass(frozen=True, slots=True)
class Basis:
    """What a set of facts rests on.

    `measured` are the releases that it was measured with, oldest first, empty for what was only
    read; `source` says where or how, `commit` is upstream's, empty where it is not known.
    """

    measured: tuple[str, ...]
    source: str
    commit: str = ""


def basis(row: Mapping[str, Any]) -> Basis:
    """What one set of a table rests on; every set must say it."""
    return Basis(tuple(row["measured"]), row["source"], row.get("commit", ""))


@cache
def table(name: str) -> Mapping[str, Any]:
    """A TOML file of this room, by its name without the ending."""
    return tomllib.loads(Path(__file__).with_name(f"{name}.toml").read_text(encoding="utf-8"))
