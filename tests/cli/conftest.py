"""The command as its users run it: a process of its own, its memory measured."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

LIMIT = 60.0

# Between the tests and the command: what the kernel reports of a child includes what its parent
# took before, and this parent is small.
LAUNCHER = """
import os, sys
child = os.fork()
if not child:
    os.execv(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as report:
    report.write(str(usage.ru_maxrss << 10))
code = os.waitstatus_to_exitcode(status)
sys.exit(code if code >= 0 else 128 - code)
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended. `peak` is its peak resident memory in bytes."""

    code: int
    out: str
    err: str
    peak: int


Armferry = Callable[..., Ran]


@pytest.fixture
def armferry(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Armferry:
    """A function from words to how `armferry` ended with them, run in `tmp_path`."""
    report = tmp_path_factory.mktemp("measured") / "peak"

    def run(*words: str | Path, stdin: Path | None = None, **environment: str) -> Ran:
        launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(report)]
        with open(stdin or os.devnull, "rb") as source:
            done = subprocess.run(
                [*launcher, sys.executable, "-m", "armferry", *map(str, words)],
                stdin=source,
                capture_output=True,
                cwd=tmp_path,
                env={**os.environ, **environment},
                timeout=LIMIT,
                check=False,
            )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return Ran(done.returncode, out, err, int(report.read_text()))

    return run
