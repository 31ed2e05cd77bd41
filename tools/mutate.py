"""Changes the rooms that decide, one place at a time, and counts the changes that no test sees.

    .venv/bin/python tools/mutate.py [--mutants 120] [--seed 1] [registers stream policy decide]

Each mutant is one small change (a comparison turned, a number one more, a condition the other way
round, a statement left out) in a copy of the package; the unit tests of its room run on it, with
few examples, until one fails. Which places are taken depends on the seed alone. Those that survive
are printed; docs/mutation.md says of each known one why.
"""

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("registers", "stream", "policy", "decide")
_ELSEWHERE = ("content.py",)  # what the fleet's tests run, not the room's
_SLOWEST = 4  # times the unchanged tests' time, after which a mutant counts as killed: it hangs

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}


@dataclass(frozen=True)
class Mutant:
    """One change: where it is, and the text of the line before and after."""

    module: Path
    line: int
    before: str
    after: str
    source: str
    """The whole module with the change."""

    @property
    def room(self) -> str:
        """The room that the module belongs to."""
        return self.module.parts[1]

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.before} -> {self.after}"


# -- what is changed


Place = tuple[Path, int, int]
"""A module, which of its nodes, and in which way that is changed."""


def places_in(module: Path) -> list[Place]:
    """Every change that this program knows to make in a module."""
    spots = _spots(ast.parse((ROOT / module).read_text()))
    return [
        (module, number, way)
        for number, spot in enumerate(spots)
        for way in range(len(_ways(spot)))
    ]


def mutant_at(place: Place) -> Mutant:
    """The changed module."""
    module, number, way = place
    tree = ast.parse((ROOT / module).read_text())
    spot = list(_spots(tree))[number]
    line, before, new = spot.lineno, _short(ast.unparse(spot)), _ways(spot)[way]
    after = _short(ast.unparse(new))
    _Replace(spot, new).visit(tree)
    return Mutant(module, line, before, after, ast.unparse(ast.fix_missing_locations(tree)))


def _short(text: str) -> str:
    return " ".join(text.split())[:90]


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else self.generic_visit(node)


def _spots(tree: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """The nodes that may be changed, in the order of the text.

    Annotations, decorators, docstrings and `__all__` say nothing about what the code does.
    """
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST):
                continue
            if isinstance(node, ast.Assign) and _names_public(node):
                continue
            if isinstance(node, (ast.expr, ast.stmt)) and _ways(node):
                yield node
            yield from _spots(node)


def _names_public(node: ast.Assign) -> bool:
    return any(isinstance(one, ast.Name) and one.id == "__all__" for one in node.targets)


def _ways(node: ast.AST) -> list[ast.expr | ast.stmt]:
    """What a node may be changed into."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
            return [ast.Compare(node.left, [_COMPARISONS[type(op)]()], node.comparators)]
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            return [ast.BoolOp(other, node.values)]
        case ast.UnaryOp(op=ast.Not()):
            return [node.operand]
        case ast.BinOp() if type(node.op) in _OPERATORS and not _of_text(node):
            return [ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)]
        case ast.Constant(value=bool()):
            return [ast.Constant(not node.value)]
        case ast.Constant(value=int() as number):
            return [ast.Constant(number + 1)]
        case ast.IfExp():
            return [ast.IfExp(node.test, node.orelse, node.body)]
        case ast.Return(value=ast.expr() as value) if not _is_plain(value):
            return [ast.Return(ast.Constant(None))]
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise():
            return [ast.Pass()]
        case ast.Continue():
            return [ast.Break()]
        case ast.Break():
            return [ast.Continue()]
        case ast.If(test=ast.Name() | ast.Attribute() | ast.Call()):
            return [ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)]
    return []


def _of_text(node: ast.BinOp) -> bool:
    """Whether an operator joins texts or types, where another would be an error at once."""
    sides = (node.left, node.right)
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and (side.value is None or isinstance(side.value, str)))
        for side in sides
    )


def _is_plain(value: ast.expr) -> bool:
    """Whether it is None already, or a truth value, which is turned by itself."""
    return isinstance(value, ast.Constant) and (value.value is None or value.value in (True, False))


# -- what is run


class Bench:
    """A copy of the package, and the tests of the rooms on it."""

    def __init__(self, folder: Path, rooms: Sequence[str]) -> None:
        self._folder = folder
        for part in ("armferry", "tests"):
            shutil.copytree(
                ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(ROOT / "pyproject.toml", folder)
        self._files = {room: [f"tests/{room}"] for room in rooms}
        self._limit: dict[str, float] = {}
        self._times = time.time_ns()

    def measure(self, room: str) -> float:
        """Runs the tests on the unchanged room; seconds. Later runs begin with the quick files."""
        begun = time.monotonic()
        done = self._pytest(room, None, "-vv", "--durations=0", "--durations-min=0.002")
        taken = time.monotonic() - begun
        if done.returncode:
            raise SystemExit(f"the tests of {room} fail on the unchanged package:\n{done.stdout}")
        tests = sorted((self._folder / "tests" / room).glob("test_*.py"))
        files = {str(path.relative_to(self._folder)): 0.0 for path in tests}
        for seconds, name in re.findall(r"([\d.]+)s \w+ +(tests/[\w/]+\.py)::", done.stdout):
            files[name] += float(seconds)
        self._files[room] = sorted(files, key=files.__getitem__)
        self._limit[room] = 20 + _SLOWEST * taken
        return taken

    def killed_by(self, mutant: Mutant) -> str:
        """The test that fails, `time` where it ran on without end, "" where all pass."""
        place = self._folder / mutant.module
        unchanged = place.read_text()
        self._write(place, mutant.source)
        try:
            done = self._pytest(mutant.room, self._limit[mutant.room], "-x", "--tb=no")
        except subprocess.TimeoutExpired:
            return "time"
        finally:
            self._write(place, unchanged)
        if done.returncode == 0:
            return ""
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        if failed is None:
            if "ImportError while loading conftest" in done.stdout + done.stderr:
                return "import"
            raise SystemExit(f"the tests did not run:\n{done.stdout}\n{done.stderr}")
        return failed[1]

    def _write(self, place: Path, source: str) -> None:
        place.write_text(source)
        self._times += 2_000_000_000  # a compiled module is known by the second it was written in
        os.utime(place, ns=(self._times, self._times))

    def _pytest(
        self, room: str, limit: float | None, *words: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["--hypothesis-profile=few", "-m", "not full and not qemu and not kernel"]
        return subprocess.run(
            [*command, *words, *self._files[room]],
            env={**os.environ, "PYTHONPATH": str(self._folder), "PYTHONSAFEPATH": "1"},
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )


def sample(rooms: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """So many mutants, each room's share being what it has of places."""
    every = [
        place
        for room in rooms
        for path in sorted((ROOT / "armferry" / room).glob("*.py"))
        if path.name not in _ELSEWHERE
        for place in places_in(path.relative_to(ROOT))
    ]
    count = min(count, len(every))
    print(f"{len(every)} mutants, {count} of them tried (seed {seed})", flush=True)
    chosen = map(mutant_at, random.Random(seed).sample(every, count))  # noqa: S311 - no secret
    return sorted(chosen, key=lambda mutant: (str(mutant.module), mutant.line))


def main() -> int:
    """Prints each mutant that survives, and how many were killed; 1 where too many survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rooms", nargs="*", metavar="ROOM", default=ROOMS, help=", ".join(ROOMS))
    parser.add_argument("--mutants", type=int, default=120, help="how many are tried (120)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (1)")
    parser.add_argument("--only", default="", help="those whose line of output holds this text")
    parser.add_argument("--least", type=float, default=0.0, help="percent that must be killed")
    arguments = parser.parse_args()
    tried, killed = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        bench = Bench(Path(folder), arguments.rooms)
        chosen = sample(arguments.rooms, arguments.mutants, arguments.seed)
        for room in arguments.rooms:
            print(f"{room}: {bench.measure(room):.0f} s unchanged", flush=True)
        for mutant in chosen:
            if arguments.only not in str(mutant):
                continue
            by = bench.killed_by(mutant)
            tried[mutant.room] += 1
            killed[mutant.room] += bool(by)
            print(f"{'killed' if by else 'SURVIVED'} {mutant}  {by}", flush=True)
    for room, count in tried.items():
        print(f"{room}: {killed[room]} of {count}")
    share = 100 * killed.total() / max(1, tried.total())
    print(f"{killed.total()} of {tried.total()} killed: {share:.0f} %")
    return int(share < arguments.least)


if __name__ == "__main__":
    sys.exit(main())
