"""`python -m benchmarks.decision`: how long a guest waits for its verdict, and a cold start.

The decision is measured in processor time, for as many vCPUs as the table says: the guest stands
still meanwhile. A cold start is the processor time of `armferry check` on two entries of the
atlas, as a ratio to that of a Python which does nothing. Exit code 1 when a bound does not hold.
"""

import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace

from armferry.decide import judge
from armferry.ends import End, Move
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.policy import aggregate
from armferry.registers import parse_register

_VCPUS = (1, 4, 16, 64)
_LIMIT = 0.010
"""Seconds for the most vCPUs."""
_RATIO = 16.0
"""0.20 s where Python itself takes 12 ms."""
_RUNS = 9
_ENDS = ("qemu-10.0.2/virt-10.0/cortex-a57", "qemu-10.0.13/virt-10.0/cortex-a57")
_CHECK = ("-m", "armferry", "check", "atlas:6.12/neoverse-n1", "--to", "atlas:6.17/neoverse-n1")


def main() -> int:
    """Runs the benchmark and prints its tables."""
    print(f"{'vCPUs':>6} {'decision':>10}")
    seconds = 0.0
    for vcpus in _VCPUS:
        seconds = _decision(vcpus)
        print(f"{vcpus:6} {seconds * 1e3:7.2f} ms")
    decided = seconds <= _LIMIT
    print(f"{'ok' if decided else 'SLOW'} [at most {_LIMIT * 1e3:.0f} ms for {_VCPUS[-1]} vCPUs]")
    bare, check = _cold("-c", "pass"), _cold(*_CHECK)
    started = check / bare <= _RATIO
    print(
        f"{'ok' if started else 'SLOW'} cold start of check: {check:.3f} s, python alone "
        f"{bare:.3f} s, ratio {check / bare:.1f} [at most {_RATIO:.0f}]"
    )
    return 0 if decided and started else 1


def _decision(vcpus: int) -> float:
    """Median seconds of the verdict on a guest of QEMU 10.0.2 for 10.0.13, and of its lists."""
    source, there = (end_of(read_atlas().find(name).fingerprint, name) for name in _ENDS)
    guest = replace(_with_vcpus(source, vcpus), guest=True, at_reset=False)
    host = _with_vcpus(there, vcpus)
    policy = aggregate("virt-10.0", host.accelerator)
    found = []
    for _ in range(_RUNS):
        move = Move.between(guest, host)
        start = time.process_time()
        _ = judge(move, policy).lists
        found.append(time.process_time() - start)
    return statistics.median(found)


def _with_vcpus(end: End, vcpus: int) -> End:
    """The same with more vCPUs, each with its own number, page table and stack."""
    own = [parse_register(name) for name in ("MPIDR_EL1", "TTBR0_EL1", "SP_EL1")]
    first = end.cpus[0]
    lists = ({i: v + n if i in own else v for i, v in first.items()} for n in range(vcpus))
    return replace(end, cpus=tuple(lists))


def _cold(*words: str) -> float:
    """Median seconds of processor time of a Python with these words."""
    found = []
    for _ in range(_RUNS):
        before = _children()
        # -P: the wheel, compiled as it was installed, not what lies in the current folder
        subprocess.run([sys.executable, "-P", *words], stdout=subprocess.DEVNULL, check=False)
        found.append(_children() - before)
    return statistics.median(found)


def _children() -> float:
    """Seconds of processor time of the programs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
