"""What the Linux guest printed on its serial line, read.

Knows the lines of `workload/main.c`. A log may span several QEMUs when they append to one file: a
guest that was moved without loss ticks on as if nothing had happened.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

__all__ = ["LinuxLog", "LinuxTick"]

_GREETING = re.compile(r"armferry linux (\S+) cpus (\d+) workers((?: \w+)*)")
_TICK = re.compile(r"tick (\d{8})((?: \w+ \d+)*)")
_WRONG = re.compile(r"(?:fault|stalled|ended) .*")
_KERNEL = re.compile(r"kernel (\d) (.*)")
_ANSWER = re.compile(r"did (\w+ \w+): ?(.*)")
_NOTE = re.compile(r"note (.*)")
_RESTART = re.compile(r"\[ *\d+\.\d+\] reboot: Restarting system")
_HARMLESS = re.compile(
    r"hrtimer: interrupt took|clocksource: Long readout|perf: interrupt took|workqueue: .* hogged"
    r"|process \d+ \(threads\) no longer affine"
)
"""What a kernel says of a host that gives it little time, and of a CPU that is turned off."""


@dataclass(frozen=True, slots=True)
class LinuxTick:
    """The guest at one tick: `rounds` that each worker went since the tick before."""

    number: int
    rounds: dict[str, int]


@dataclass(frozen=True, slots=True)
class LinuxLog:
    """The guest's whole output.

    `kernels` are the releases it greeted with, one for each start. `wrong` are faults that the
    workers found, and workers that stand still or ended; `kernel` the lines of the kernel's log
    from warnings up, but for those about a busy host or a CPU that was asked to go; `answers` what
    became of commands; `odd` lines that no guest in order prints: an Oops, a panic. `last`
    is the number of the last tick since the last start, 0 when there is none.
    """

    kernels: tuple[str, ...]
    cpus: int
    workers: tuple[str, ...]
    ticks: tuple[LinuxTick, ...]
    wrong: tuple[str, ...]
    kernel: tuple[str, ...]
    notes: tuple[str, ...]
    answers: tuple[tuple[str, str], ...]
    odd: tuple[str, ...]
    last: int

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a serial log file; one that is not there yet is an empty log."""
        return cls.parse(path.read_bytes() if path.exists() else b"")

    @classmethod
    def parse(cls, output: bytes) -> Self:
        """From serial output. A last line without its end is left out."""
        kernels: list[str] = []
        cpus, workers, last = 0, "", 0
        ticks: list[LinuxTick] = []
        wrong: list[str] = []
        kernel: list[str] = []
        notes: list[str] = []
        answers: list[tuple[str, str]] = []
        odd: list[str] = []
        for line in output.decode("utf-8", "backslashreplace").split("\n")[:-1]:
            text = line.strip("\r")
            if match := _TICK.fullmatch(text):
                words = match[2].split()
                rounds = dict(zip(words[::2], map(int, words[1::2]), strict=True))
                last = int(match[1])
                ticks.append(LinuxTick(last, rounds))
            elif match := _GREETING.fullmatch(text):
                kernels.append(match[1])
                cpus, workers, last = int(match[2]), match[3], 0
            elif _WRONG.fullmatch(text):
                wrong.append(text)
            elif match := _KERNEL.fullmatch(text):
                if not _HARMLESS.match(match[2]):
                    kernel.append(match[2])
            elif match := _ANSWER.fullmatch(text):
                answers.append((match[1], match[2]))
            elif match := _NOTE.fullmatch(text):
                notes.append(match[1])
            elif text.strip() and not _RESTART.fullmatch(text):
                odd.append(text)
        return cls(
            tuple(kernels),
            cpus,
            tuple(workers.split()),
            tuple(ticks),
            tuple(wrong),
            tuple(kernel),
            tuple(notes),
            tuple(answers),
            tuple(odd),
            last,
        )

    def faults(self, since: "LinuxLog | None" = None) -> tuple[str, ...]:
        """Everything wrong that is not already in `since`, in words.

        Empty for a guest that noticed nothing: no fault of a worker, no new warning of the kernel,
        no line that does not belong, no tick missing, no start of its own accord.
        """
        before = since or LinuxLog.parse(b"")
        found = list(self.wrong[len(before.wrong) :])
        found += [f"kernel: {line}" for line in self.kernel[len(before.kernel) :]]
        found += [f"unexpected line: {line}" for line in self.odd[len(before.odd) :]]
        if since is not None and len(self.kernels) != len(since.kernels):
            found.append("the guest started again")
        numbers = [tick.number for tick in self.ticks[max(0, len(before.ticks) - 1) :]]
        for left, right in pairwise(numbers):
            if right not in (left + 1, 1):
                found.append(f"tick {left} is followed by tick {right}")
        return tuple(found)
