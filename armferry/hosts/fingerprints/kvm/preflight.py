"""Would this kernel take that guest's registers? Tried on scratch vCPUs, register by register.

The registers are set in QEMU's order, ascending by index, and every refusal is reported, not only
the first. The host is not changed. Compat levels and values are not judged here: what the kernel
itself says is all there is. A PSCI version is set before the list, as QEMU sets the property
kvm-psci-version before it loads anything.
"""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from armferry.hosts.fingerprints.kvm.device import Vcpu
from armferry.hosts.fingerprints.kvm.errors import RegisterRefused

__all__ = ["Preflight", "Refusal", "VcpuLists", "VcpuRefusals", "load_list", "preflight"]

PSCI_VERSION = 0x6030_0000_0014_0000


@dataclass(frozen=True, slots=True)
class Refusal:
    """One register the kernel did not take: `host` is its value there, None when it has none."""

    index: int
    errno: int
    incoming: int
    host: int | None


@dataclass(frozen=True, slots=True)
class VcpuLists:
    """What comes for one vCPU of a guest, and what armferry would send for it."""

    incoming: Mapping[int, int]
    outgoing: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class VcpuRefusals:
    """What the kernel refused of both lists of one vCPU, ascending by index."""

    incoming: tuple[Refusal, ...]
    outgoing: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Preflight:
    """What this host's kernel said, vCPU by vCPU.

    `psci_refused` says that the kernel does not offer the PSCI version that was asked for.
    """

    kernel: str
    vcpus: tuple[VcpuRefusals, ...]
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
        found.append(VcpuRefusals(tuple(incoming), tuple(outgoing)))
    return Preflight(platform.release(), tuple(found), refused)


def load_list(vcpu: Vcpu, registers: Mapping[int, int]) -> list[Refusal]:
    """Set `registers` in `vcpu`; what the kernel refused, ascending.

    Raises `HiddenRegister` before anything is set when one of them is hidden.
    """
    refusals = []
    for refused in vcpu.set_list(registers):
        try:
            host: int | None = vcpu.get(refused.index)
        except RegisterRefused:
            host = None
        incoming = registers[refused.index]
        refusals.append(Refusal(refused.index, refused.errno, incoming, host))
    return refusals


def _offers(vcpu: Vcpu, psci_version: int) -> bool:
    try:
        vcpu.set(PSCI_VERSION, psci_version)
    except RegisterRefused:
        return False
    return True
