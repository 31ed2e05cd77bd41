"""What the kernel of a lab host refuses of a register list, asked through its /dev/kvm.

This file runs at both ends, as `nested` does: outside, `refusals` asks a booted `LabHost`; inside,
the module is a program that reads lists from its standard input and sets each in a vCPU of its
own. Tens of lists take a second, where a QEMU that loads one takes five.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from armferry.hosts.fingerprints.kvm import Loaded, NotKept, Refusal, Vcpu, load_list
from armferry.lab.patience import patient

if TYPE_CHECKING:
    from armferry.lab.host import LabHost

__all__ = ["loaded", "refusals"]


def refusals(host: "LabHost", lists: Sequence[Mapping[int, int]]) -> tuple[Loaded, ...]:
    """For each list what the host's kernel does not take and what it does not keep.

    Raises `LabHostFault`.
    """
    words = json.dumps([sorted(registers.items()) for registers in lists]).encode()
    done = host.run(
        ["python3", "-m", "armferry.lab.refusals"], stdin=words, time_limit=patient(120.0)
    )
    if done.exit_code != 0:
        raise host.fault(f"could not try register lists: {done.stderr.decode('utf-8', 'replace')}")
    return tuple(loaded(answer) for answer in json.loads(done.stdout))


def loaded(document: Mapping[str, Sequence[Mapping[str, int]]]) -> Loaded:
    """An answer as it is kept in JSON."""
    return Loaded(
        tuple(Refusal(**one) for one in document["refused"]),
        tuple(NotKept(**one) for one in document["not_kept"]),
    )


def _inside(lists: Sequence[Sequence[tuple[int, int]]]) -> list[dict[str, object]]:
    answers = []
    for registers in lists:
        with Vcpu() as vcpu:
            answers.append(asdict(load_list(vcpu, dict(registers))))
    return answers


if __name__ == "__main__":
    print(json.dumps(_inside(json.load(sys.stdin))))
