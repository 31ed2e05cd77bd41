"""Would this kernel take that guest's registers? Tried on scratch vCPUs, register by register.

What is put is what QEMU puts: its own whole list, ascending by index, the guest's value where one
comes and its own elsewhere. Every refusal is reported, not only the first, and afterwards each
register is read back: a kernel may take a value and keep another. The host is not changed. Compat
levels and values are not judged here: what the kernel itself says is all there is. A PSCI version
is set before the list, as QEMU sets the property kvm-psci-version before it loads anything.
"""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from armferry.hosts.fingerprints.kvm.device import Vcpu
from armferry.hosts.fingerprints.kvm.errors import HiddenRegister, RegisterRefused
from armferry.registers import Kind, kind

__all__ = [
    "Loaded",
    "NotKept",
    "Preflight",
    "Refusal",
    "VcpuLists",
    "VcpuLoads",
    "load_list",
    "preflight",
]

PSCI_VERSION = 0x6030_0000_0014_0000
_RUNS_ON = {0x6030_0000_0013_DF19: 4, 0x6030_0000_0013_DF11: 4}
"""CNTV_CTL_EL0 and CNTP_CTL_EL0: bit 2 says that the time is up, whatever was put."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One register the kernel did not take: `host` is its value there, None when it has none."""

    index: int
    errno: int
    incoming: int
    host: int | None


@dataclass(frozen=True, slots=True)
class NotKept:
    """One register of which the kernel took a value and kept another: `host` is read back."""

    index: int
    incoming: int
    host: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a list: what the kernel refused and what it did not keep, both ascending.

    Registers of the host's own list are among the refused: it may take one away that depends on
    another.
    """

    refused: tuple[Refusal, ...] = ()
    not_kept: tuple[NotKept, ...] = ()


@dataclass(frozen=True, slots=True)
class VcpuLists:
    """What comes for one vCPU of a guest, and what armferry would send for it."""

    incoming: Mapping[int, int]
    outgoing: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class VcpuLoads:
    """What became of both lists of one vCPU."""

    incoming: Loaded
    outgoing: Loaded


@dataclass(frozen=True, slots=True)
class Preflight:
    """What this host's kernel said, vCPU by vCPU.

    `psci_refused` says that the kernel does not offer the PSCI version that was asked for.
    """

    kernel: str
    vcpus: tuple[VcpuLoads, ...]
    psci_refused: bool = False


def preflight(
    lists: Iterable[VcpuLists],
    *,
    hidden: Iterable[int] = (),
    psci_version: int | None = None,
    nested: bool = False,
) -> Preflight:
    """Load each list into a vCPU of its own.

    The incoming one as stock QEMU would, nothing hidden; the outgoing one with `hidden` registers
    gone and the value `psci_version` in PSCI_VERSION, if any. `nested` is for a guest whose vCPUs
    have EL2. Raises `KvmFault`, and
    `HiddenRegister` for an outgoing list that has a hidden register.
    """
    gone = frozenset(hidden)
    refused = False
    found = []
    for one in lists:
        with Vcpu(nested=nested) as stock:
            incoming = load_list(stock, one.incoming)
        with Vcpu(hidden=gone, nested=nested) as scratch:
            if psci_version is not None and not _offers(scratch, psci_version):
                refused = True
            outgoing = load_list(scratch, one.outgoing)
        found.append(VcpuLoads(incoming, outgoing))
    return Preflight(platform.release(), tuple(found), refused)


def load_list(vcpu: Vcpu, registers: Mapping[int, int]) -> Loaded:
    """Put the whole list of `vcpu` with the values of `registers` over its own, and read it back.

    Raises `HiddenRegister` before anything is set when one of them is hidden.
    """
    for index in sorted(vcpu.hidden & registers.keys()):
        raise HiddenRegister(index, "set")
    own = vcpu.get_list()
    vcpu.set_list(own)  # as QEMU does with a vCPU after reset
    refused = {one.index: one for one in vcpu.set_list({**own, **registers})}
    refusals, not_kept = [], []
    for index in sorted({*registers, *refused}):
        try:
            host: int | None = vcpu.get(index)
        except RegisterRefused:
            host = None
        if index in refused:
            value = refused[index].value
            assert value is not None
            refusals.append(Refusal(index, refused[index].errno, value, host))
        elif host is not None and _differs(index, registers[index], host):
            not_kept.append(NotKept(index, registers[index], host))
    return Loaded(tuple(refusals), tuple(not_kept))


def _differs(index: int, put: int, read: int) -> bool:
    """Whether the kernel kept another value; what runs on by itself does not count."""
    return kind(index) is not Kind.RUNNING_COUNTER and bool((put ^ read) & ~_RUNS_ON.get(index, 0))


def _offers(vcpu: Vcpu, psci_version: int) -> bool:
    try:
        vcpu.set(PSCI_VERSION, psci_version)
    except RegisterRefused:
        return False
    return True
