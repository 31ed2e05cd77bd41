"""This host's KVM as a value: what its kernel would give a VM, and what it lets be changed.

The list is that of QEMU's `-cpu host` on machine `virt`: the same vCPU features, and a GICv3 when
the host can emulate one. Values are those after reset, once written back: QEMU does that before a
VM runs, and on kernels before 6.13 it clears what the PMU's paired set and clear registers held
after reset. Counters run on.
"""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from armferry.hosts.fingerprints.kvm.abi import Capability, Feature
from armferry.hosts.fingerprints.kvm.device import Vcpu
from armferry.hosts.fingerprints.kvm.hardware import counter_hz, kinds_of_cores, page_bytes
from armferry.registers.midr import CpuIdentity, identify

__all__ = ["KvmHost", "ask"]

_MIDR = 0x6030_0000_0013_C000


@dataclass(frozen=True, slots=True)
class KvmHost:
    """What /dev/kvm of one host said.

    `registers` is the list QEMU would send (index -> value at reset, ascending), `apart` the
    indexes of the core and SVE registers, `writable` identification register -> bits that may be
    set (None: the kernel does not say), `features` what the vCPU was made with. `cpu` is None when
    its register is hidden.

    `counter_hz` is CNTFRQ_EL0 in Hz, `page_bytes` the kernel's page size, `vector_bits` the SVE
    vector lengths in bits (empty without SVE), `gic_versions` the interrupt controllers that KVM
    can give, `has_its` whether it can give an ITS, and `cores` MIDR_EL1 -> processors, None where
    the kernel does not say.
    """

    kernel: str
    cpu: CpuIdentity | None
    registers: Mapping[int, int]
    apart: tuple[int, ...]
    writable: Mapping[int, int] | None
    features: frozenset[Feature]
    capabilities: Mapping[Capability, int]
    has_gic: bool
    counter_hz: int | None
    page_bytes: int
    vector_bits: tuple[int, ...]
    gic_versions: tuple[int, ...]
    has_its: bool
    cores: Mapping[int, tuple[int, ...]] | None


def ask(*, hidden: Iterable[int] = (), nested: bool = False) -> KvmHost:
    """Ask this host's /dev/kvm, through a scratch VM.

    Raises `KvmFault`, and `RegisterRefused` for a register that the kernel lists and does not let
    be read or written back: QEMU could not start a VM there.
    """
    with Vcpu(hidden=hidden, nested=nested) as vcpu:
        for refused in vcpu.set_list(vcpu.get_list()):
            raise refused
        registers = vcpu.get_list()
        listed = set(vcpu.migrated)
        return KvmHost(
            kernel=platform.release(),
            cpu=identify(registers[_MIDR]) if _MIDR in registers else None,
            registers=registers,
            apart=tuple(index for index in vcpu.indexes if index not in listed),
            writable=vcpu.writable_masks(),
            features=vcpu.features,
            capabilities=vcpu.capabilities,
            has_gic=vcpu.has_gic,
            counter_hz=counter_hz(),
            page_bytes=page_bytes(),
            vector_bits=vcpu.vector_bits or (),
            gic_versions=vcpu.gic_versions,
            has_its=vcpu.has_its,
            cores=kinds_of_cores(),
        )
