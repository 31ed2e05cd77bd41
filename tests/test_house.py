"""The rooms of docs/house.md against what the code imports."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "armferry"
TABLE = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
ROOMS = re.findall(r"^\| `(\w+)/` \|", TABLE, re.MULTILINE)
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The modules of armferry that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room_of(dotted: str) -> str | None:
    """The room that a module of armferry stands in, None for what belongs to no room."""
    parts = dotted.split(".")
    return parts[1] if parts[0] == "armferry" and len(parts) > 1 and parts[1] in ROOMS else None


def test_table_names_every_room() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_up_the_table(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0]
    known = ROOMS[: ROOMS.index(own) + 1] if own in ROOMS else []
    if own in ("__init__.py", "__main__.py"):  # the doors: the Python interface, the program
        known = ROOMS
    found = {room for module in imported(path) if (room := room_of(module)) is not None}
    assert found <= set(known)


def test_no_circle_within_a_room() -> None:
    """Modules import each other in one direction, imports inside functions included."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in MODULES
    }
    edges = {
        name: {one for one in imported(path) if one in names and one != name}
        for name, path in names.items()
        if path.name != "__init__.py"
    }
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in sorted(edges.get(name, ())):
                walk(other, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        walk(name, ())
