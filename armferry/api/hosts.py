"""What a host would accept."""

import os

from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.hosts.fingerprints.from_kvm import fingerprint_of_kvm
from armferry.hosts.fingerprints.kvm import ask
from armferry.hosts.fingerprints.probe import find_qemu, fingerprint_of_qemu
from armferry.hosts.qmp.process import MachineSpec

__all__ = ["fingerprint"]


def fingerprint(
    machine: str = "",
    cpu: str = "host",
    *,
    accelerator: str = "kvm",
    vcpus: int = 1,
    memory: int = 64,
    qemu: str | os.PathLike[str] | None = None,
    time_limit: float = 60.0,
) -> Fingerprint:
    """What this host would accept.

    With a `machine` type a QEMU is started paused and asked: `accelerator` is `kvm` or `tcg`,
    `memory` in MiB, `time_limit` in seconds, `qemu` a program (default: the one on PATH). Without
    one, this host's own list is read from /dev/kvm, on aarch64. Raises ArmferryError.
    """
    if not machine:
        return fingerprint_of_kvm(ask(nested=False))
    spec = MachineSpec(machine=machine, cpu=cpu, accel=accelerator, smp=vcpus, memory=memory)
    program = find_qemu(None if qemu is None else os.fspath(qemu))
    return fingerprint_of_qemu(program, spec, time_limit=time_limit)
