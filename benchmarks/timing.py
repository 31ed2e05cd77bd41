"""Medians of alternating runs: armferry and a named peer see the same machine."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Comparison", "compare", "peak_of", "run"]

# What the kernel reports of a child includes what its parent took before: this parent is small.
_MEASURE = """
import os, sys
child = os.fork()
if not child:
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
os.write(2, str(usage.ru_maxrss << 10).encode())
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Median seconds of armferry (`ours`) and of its peer (`theirs`)."""

    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """How often ours fits into theirs."""
        return self.theirs / self.ours


def compare(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    runs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Runs both in turn, `runs` times each, after one run of ours that does not count.

    `clock` is `time.process_time` for work that only computes, so that whatever else runs on the
    machine does not count.
    """
    ours()
    pairs = [(_seconds(ours, clock), _seconds(theirs, clock)) for _ in range(runs)]
    return Comparison(
        statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)
    )


def run(*words: str | Path) -> None:
    """Runs the command `armferry`; its output goes nowhere. Raises CalledProcessError."""
    subprocess.run(
        [sys.executable, "-m", "armferry", *words], stdout=subprocess.DEVNULL, check=True
    )


def peak_of(*words: str | Path, stdin: Path | None = None) -> int:
    """Peak resident bytes of the command `armferry`. Raises CalledProcessError."""
    command: Sequence[str | Path] = [sys.executable, "-m", "armferry", *words]
    with open(stdin or os.devnull, "rb") as source:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MEASURE, *command],
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )
    return int(done.stderr)


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start
