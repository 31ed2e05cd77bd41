"""The values that the rooms of a fleet share: hosts, guests, classes, and what a move costs.

Hosts that a decision cannot tell apart are one class, for each kind of guest. Where a guest can go
hangs on where it was born as much as on where it is: its state is (class of birth, present class).
Refuses to know how a class is found (`classes`), a cell worked out (`relation`), anything kept
(`store`).
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from armferry.decide.risk_level import Risk

__all__ = [
    "Answer",
    "Cell",
    "Condition",
    "Fleet",
    "Guest",
    "Host",
    "HostClass",
    "Relation",
]


class Answer(enum.StrEnum):
    """Who brings a guest from one class to another, in rising order of what it takes."""

    STOCK = "stock"
    """The destination's QEMU loads it by itself, and nothing is lost."""
    ARMFERRY = "armferry"
    """With armferry, whatever the guest has done."""
    GUEST = "guest"
    """It depends on the guest: on what the registers of the conditions hold."""
    NEVER = "never"
    """Not under this policy, whatever the guest holds."""

    @property
    def letter(self) -> str:
        """One letter for a matrix: S, A, G or N."""
        return self.value[0].upper()

    @property
    def rank(self) -> int:
        """0 for the best."""
        return list(Answer).index(self)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a register of the guest must hold for the move: `value & mask == expected`.

    >>> str(Condition(0x603000000013C103, "TCR2_EL1", (1 << 64) - 1, 0))
    'TCR2_EL1 holds 0x0'
    """

    index: int
    name: str
    mask: int
    expected: int

    def __str__(self) -> str:
        whole = self.mask == (1 << 64) - 1
        return f"{self.name}{'' if whole else f' & {self.mask:#x}'} holds {self.expected:#x}"

    def holds(self, registers: Mapping[int, int]) -> bool | None:
        """Whether it holds for a guest with these registers; None where that is not known."""
        value = registers.get(self.index)
        return None if value is None else value & self.mask == self.expected


@dataclass(frozen=True, slots=True)
class Cell:
    """What a move from one class to another does, as `armferry check` says it.

    `answer` sums it up. `verdict` (works, works-with-policy, fails), `stock` (works, fails,
    unknown) and `risk` are the verdict's own on a guest that never wrote the registers of
    `conditions`; a guest that did is refused. `why` says in one line what refuses, empty where
    nothing does. `lossless_if` is what a guest must hold besides for nothing to be lost by a move
    that works (a PMU in use that the destination stops).
    """

    answer: Answer
    risk: Risk = Risk.NONE
    conditions: tuple[Condition, ...] = ()
    verdict: str = ""
    stock: str = "unknown"
    why: str = ""
    lossless_if: tuple[Condition, ...] = ()

    @property
    def possible(self) -> bool:
        """Whether some guest can make the move."""
        return self.answer is not Answer.NEVER

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts cells, the best first: by answer, then by risk."""
        return self.answer.rank, self.risk


@dataclass(frozen=True, slots=True)
class HostClass:
    """Hosts that no decision on guests of `kind` can tell apart.

    `id` is short and stable: the same content has the same id in every fleet. `kernels`, `qemus`
    and `cpus` are those of its hosts, oldest first; `hosts` is how many it has.
    """

    id: str
    kind: str
    kernels: tuple[str, ...] = ()
    qemus: tuple[str, ...] = ()
    cpus: tuple[str, ...] = ()
    hosts: int = 0


@dataclass(frozen=True, slots=True)
class Host:
    """A host: `memory` is what it has for guests, in bytes, `heard` the time of its last report in
    seconds since 1970, `classes` its class for each kind of guest that it was fingerprinted for.
    """

    name: str
    kernel: str
    qemus: tuple[str, ...] = ()
    cpu: str = ""
    memory: int = 0
    failure_domain: str = ""
    heard: float = 0.0
    classes: Mapping[str, str] = field(default_factory=dict)
    site: str = ""

    def class_of(self, kind: str) -> str | None:
        """Its class for guests of `kind`; None where nothing is known of it."""
        return self.classes.get(kind)


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest on a host: `kind` is machine type, CPU and accelerator as `GuestKind.guest` has them,
    `birth` the class of the host that it was started on, `memory` in bytes. `pins` are the hosts
    that it may run on, empty for all. `name` is empty where the id is one.
    """

    id: str
    host: str
    kind: str
    birth: str
    memory: int = 0
    pins: frozenset[str] = frozenset()
    name: str = ""


@dataclass(frozen=True)
class Fleet:
    """Hosts and their guests at one moment."""

    hosts: tuple[Host, ...]
    guests: tuple[Guest, ...] = ()

    @cached_property
    def by_name(self) -> Mapping[str, Host]:
        """The hosts by their names."""
        return {host.name: host for host in self.hosts}

    def state(self, guest: Guest) -> tuple[str, str | None]:
        """(Class of birth, present class) of a guest."""
        host = self.by_name.get(guest.host)
        return guest.birth, None if host is None else host.class_of(guest.kind)


class Relation(Protocol):
    """Whether a guest can go: neither symmetric nor transitive."""

    def cell(self, birth: str, present: str, destination: str) -> Cell:
        """The move of a guest born on class `birth`, now on `present`, to `destination`."""
