"""What the kernel of a lab host makes of values: every field of every register, tried.

This file runs at both ends, as `nested` does: outside, `sweep` asks a booted `LabHost`; inside, the
module is a program that sets each field of each register of the kernel's own list to other values,
one at a time, reads back what the kernel kept, and puts the register as it was. Some 4,000 trials
take seconds.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from armferry.hosts.fingerprints.kvm import RegisterRefused, Vcpu
from armferry.registers import Kind, describe, kind

if TYPE_CHECKING:
    from armferry.lab.host import LabHost

__all__ = ["Trial", "sweep", "trials_of"]

_WHOLE_RANGE = 6
"""Bits of a field up to which every value of it is tried; of wider ones each bit alone."""

Trial = tuple[int, int, int | None]
"""Register, value, and what the kernel kept of it: None when it refused the value."""


def sweep(host: "LabHost", indexes: Sequence[int] = ()) -> tuple[Trial, ...]:
    """What the kernel of `host` takes of each register in `indexes`, of every one when empty.

    Running counters are left out. Raises `LabHostFault`.
    """
    words = json.dumps(list(indexes)).encode()
    done = host.run(["python3", "-m", "armferry.lab.value_sweep"], stdin=words, time_limit=600.0)
    if done.exit_code != 0:
        raise host.fault(f"could not try values: {done.stderr.decode('utf-8', 'replace')}")
    return tuple((index, value, kept) for index, value, kept in json.loads(done.stdout))


def trials_of(index: int, own: int) -> Iterator[int]:
    """The values to try: `own` with one field changed, to each value of it, or one other bit."""
    register = describe(index)
    unnamed = (1 << 8 * register.size) - 1
    for field in register.fields:
        unnamed &= ~field.mask
        mask, low, width = field.mask, field.low, field.width
        if width <= _WHOLE_RANGE:
            values = [own & ~mask | number << low for number in range(1 << width)]
        else:
            values = [own & ~mask, own | mask, *(own ^ 1 << bit for bit in range(low, low + width))]
        yield from (value for value in values if value != own)
    yield from (own ^ 1 << bit for bit in range(64) if unnamed >> bit & 1)


def _inside(indexes: Sequence[int]) -> list[Trial]:
    found: list[Trial] = []
    with Vcpu() as vcpu:
        own = vcpu.get_list()
    for index in indexes or own:
        if index not in own or kind(index) is Kind.RUNNING_COUNTER:
            continue
        with Vcpu() as vcpu:
            before = vcpu.get(index)
            for value in trials_of(index, before):
                kept = _kept(vcpu, index, value)
                found.append((index, value, kept))
                if kept is not None:
                    vcpu.set(index, before)
    return found


def _kept(vcpu: Vcpu, index: int, value: int) -> int | None:
    try:
        vcpu.set(index, value)
    except RegisterRefused:
        return None
    return vcpu.get(index)


def _main() -> None:
    answer: list[Any] = [list(trial) for trial in _inside(json.load(sys.stdin))]
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()
