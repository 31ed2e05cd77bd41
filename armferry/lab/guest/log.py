"""What the test guest printed on its serial line, read.

Knows the lines of `guest.s`: the greeting, ticks and losses. A log may span several QEMUs when
they append to one file: a guest that was moved without loss counts on as if nothing had happened.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["GuestLog", "Loss", "Tick"]

_GREETING = re.compile(r"armferry guest psci (\d+\.\d+) cpus (\d+)")
_TICK = re.compile(r"tick (\d{8}) ok psci (\d+\.\d+) pass (\d{8})")
_LOSS = re.compile(r"tick (\d{8}) LOST cpu (\d+) (\S+) got ([0-9a-f]{16}) want ([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class Tick:
    """The guest at one tick, everything in place.

    `rounds` counts the whole rewrites of its memory; `psci` is what the hypervisor answered then.
    """

    number: int
    psci: str
    rounds: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that did not hold: a register by its architectural name, `ram` or `progress`."""

    tick: int
    cpu: int
    what: str
    got: int
    want: int

    def __str__(self) -> str:
        return f"cpu {self.cpu} {self.what}: got {self.got:#018x}, want {self.want:#018x}"


@dataclass(frozen=True, slots=True)
class GuestLog:
    """The guest's whole output. `odd` are lines no guest in order prints (an exception, noise).

    `cpus` and `psci` are from the greeting; 0 and the empty text when there was none.
    """

    psci: str
    cpus: int
    ticks: tuple[Tick, ...]
    losses: tuple[Loss, ...]
    odd: tuple[str, ...]
    restarts: int

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a serial log file; one that is not there yet is an empty log."""
        return cls.parse(path.read_bytes() if path.exists() else b"")

    @classmethod
    def parse(cls, output: bytes) -> Self:
        """From serial output. A last line without its end is left out."""
        psci, cpus, greetings = "", 0, 0
        ticks: list[Tick] = []
        losses: list[Loss] = []
        odd: list[str] = []
        for line in output.decode("ascii", "backslashreplace").split("\n")[:-1]:
            text = line.rstrip("\r")
            if match := _TICK.fullmatch(text):
                ticks.append(Tick(int(match[1]), match[2], int(match[3])))
            elif match := _LOSS.fullmatch(text):
                losses.append(
                    Loss(
                        int(match[1]), int(match[2]), match[3], int(match[4], 16), int(match[5], 16)
                    )
                )
            elif match := _GREETING.fullmatch(text):
                psci, cpus, greetings = match[1], int(match[2]), greetings + 1
            elif text:
                odd.append(text)
        return cls(psci, cpus, tuple(ticks), tuple(losses), tuple(odd), max(0, greetings - 1))

    @property
    def first(self) -> int:
        """The number of the first good tick; 0 when there is none."""
        return self.ticks[0].number if self.ticks else 0

    @property
    def last(self) -> int:
        """The number of the last good tick; 0 when there is none."""
        return self.ticks[-1].number if self.ticks else 0

    def faults(self) -> tuple[str, ...]:
        """Everything wrong, in words; empty for a guest that lost nothing and counted on.

        Losses (each register once), gaps and repetitions of the tick, memory rounds that went
        back, restarts of the guest, and lines that do not belong.
        """
        found = list(dict.fromkeys(f"lost {loss}" for loss in self.losses))
        for before, after in zip(self.ticks, self.ticks[1:], strict=False):
            if after.number != before.number + 1:
                found.append(f"tick {before.number} is followed by tick {after.number}")
            if after.rounds < before.rounds:
                found.append(f"memory went from round {before.rounds} back to {after.rounds}")
        if self.restarts:
            found.append(f"the guest started again ({self.restarts} times)")
        found += [f"unexpected line: {line}" for line in self.odd]
        return tuple(found)
