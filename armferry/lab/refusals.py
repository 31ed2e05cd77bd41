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

from armferry.hosts.fingerprints.kvm import Refusal, Vcpu, load_list
from armferry.lab.patience import patient

if TYPE_CHECKING:
    from armferry.lab.host import LabHost

__all__ = ["refusals"]


def refusals(
    host: "LabHost", lists: Sequence[Mapping[int, int]]
) -> tuple[tuple[Refusal, ...], ...]:
    """For each list the registers that the host's kernel does not take, ascending.

    Raises `LabHostFault`.
    """
    words = json.dumps([sorted(registers.items()) for registers in lists]).encode()
    done = host.run(
        ["python3", "-m", "armferry.lab.refusals"], stdin=words, time_limit=patient(120.0)
    )
    if done.exit_code != 0:
        raise host.fault(f"could not try register lists: {done.stderr.decode('utf-8', 'replace')}")
    return tuple(
        tuple(Refusal(**refusal) for refusal in refused) for refused in json.loads(done.stdout)
    )


def _inside(lists: Sequence[Sequence[tuple[int, int]]]) -> list[list[dict[str, object]]]:
    answers = []
    for registers in lists:
        with Vcpu() as vcpu:
            answers.append([asdict(refusal) for refusal in load_list(vcpu, dict(registers))])
    return answers


if __name__ == "__main__":
    print(json.dumps(_inside(json.load(sys.stdin))))
