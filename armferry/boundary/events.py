"""What the library reports: messages of one or more events of 40 bytes each, in words.

Knows the private format of `boundary.c` and how an event is put in words. Refuses to know
where messages come from.
"""

import enum
import errno
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from armferry.registers import Accelerator, explain_value, name

__all__ = ["Event", "EventKind", "events_of", "lines_of"]

_EVENT = struct.Struct("=IiQQQiI")

_GET_ONE_REG = 0x4010AEAB


class EventKind(enum.IntEnum):
    """What was done; the numbers are the library's."""

    STARTED = 1
    HIDDEN = 2
    PINNED = 3
    UNPINNED = 4
    CARRIED = 5
    STORED = 6
    KEPT = 7
    CAPPED = 8
    REFUSED = 9
    FORBIDDEN = 10
    WATCHED = 11
    LOST = 12
    OVERRULED = 13
    MET = 14


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that the library did; `vcpu` is -1 where none is concerned.

    `value` and `other` by kind: STARTED -, process id; MET rules, process id; PINNED what it is,
    what it was; UNPINNED what it should be, what it is; CARRIED what it holds after reset; STORED
    what it was given; KEPT and CAPPED what came, what was written; OVERRULED what came and stays,
    what it was before; REFUSED what came, what the register holds; FORBIDDEN the request; WATCHED
    what it holds; LOST how many. `error` is an errno.
    """

    kind: EventKind
    vcpu: int
    index: int = 0
    value: int = 0
    other: int = 0
    error: int = 0


def events_of(message: bytes) -> Iterator[Event]:
    """The events of one message; bytes that are no event are left out."""
    for at in range(0, len(message) - _EVENT.size + 1, _EVENT.size):
        number, vcpu, index, value, other, error, _ = _EVENT.unpack_from(message, at)
        if number in EventKind._value2member_map_:
            yield Event(EventKind(number), vcpu, index, value, other, error)


def lines_of(events: Iterable[Event]) -> list[str]:
    """The events as lines: one for each thing that was done, with all vCPUs it was done to.

    What was done to every register alike (hidden, carried) is one line for all of them.
    """
    vcpus: dict[tuple[EventKind, int, int, int, int], list[int]] = {}
    for event in events:
        key = (event.kind, event.index, event.value, event.other, event.error)
        vcpus.setdefault(key, []).append(event.vcpu)
    lines: list[str] = []
    for kind, verb in ((EventKind.HIDDEN, "hidden from"), (EventKind.CARRIED, "carried for")):
        groups: dict[str, list[str]] = {}
        for (one, index, *_), numbers in vcpus.items():
            if one is kind:
                groups.setdefault(_vcpus(numbers), []).append(name(index, Accelerator.KVM))
        lines += [f"{verb} {where}: {', '.join(names)}" for where, names in groups.items()]
    for (kind, index, value, other, error), numbers in vcpus.items():
        text = _line(Event(kind, numbers[0], index, value, other, error))
        if text:
            lines.append(f"{text} ({_vcpus(numbers)})" if index else text)
    return lines


def _line(event: Event) -> str:
    register = name(event.index, Accelerator.KVM) if event.index else ""
    value, other = _value(event, event.value), _value(event, event.other)
    match event.kind:
        case EventKind.PINNED if event.value != event.other:
            return f"{register} is {value} from the start; this host's own is {other}"
        case EventKind.UNPINNED:
            why = os.strerror(event.error) if event.error else "the kernel ignores the write"
            return f"{register} cannot be {value} here: it stays {other}: {why}"
        case EventKind.STORED:
            return f"{register}, which this host lacks, is kept for the guest: {value}"
        case EventKind.KEPT:
            return f"{register} came as {value} and is {other} here"
        case EventKind.CAPPED:
            return f"{register} came as {value} and was lowered to {other}"
        case EventKind.OVERRULED:
            return f"{register} came as {value}, which the guest keeps; it was {other} here before"
        case EventKind.REFUSED:
            symbol = errno.errorcode.get(event.error, str(event.error))
            holds = "" if event.error == errno.ENOENT else f"; it holds {other}"
            return f"{register} came as {value}, refused: {symbol}{holds}"
        case EventKind.FORBIDDEN:
            how = "read" if event.value == _GET_ONE_REG else "set"
            return f"QEMU wanted to {how} {register}, which is hidden from it, and was stopped"
        case EventKind.WATCHED:
            return (
                f"{register} now holds {value}: it is hidden, so a move leaves this behind; the "
                "guest finds the register as after reset there"
            )
        case EventKind.LOST:
            return f"{event.value} reports of the KVM boundary were lost: armferry was too slow"
    return ""


def _value(event: Event, value: int) -> str:
    words = explain_value(event.index, value) if event.index else ""
    return f"{value:#x} ({words})" if words else f"{value:#x}"


def _vcpus(numbers: list[int]) -> str:
    """vCPU numbers with runs shortened: `vCPU 0-3, 5`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "vCPU " + ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
