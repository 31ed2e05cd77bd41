"""This host's KVM as a value: what its kernel would give a VM, and what it lets be changed.

The list is that of QEMU's `-cpu host` on machine `virt`: the same vCPU features, and a GICv3 when
the host can emulate one. Values are those after reset, once written back: QEMU does that before a
VM runs, and on kernels before 6.13 it clears what the PMU's paired set and clear registers held
after reset. Counters run on.
"""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from armferry.facts.kvm import kvm_values
from armferry.hosts.fingerprints.kvm.abi import Capability, Feature
from armferry.hosts.fingerprints.kvm.device import Vcpu
from armferry.hosts.fingerprints.kvm.errors import RegisterRefused
from armferry.hosts.fingerprints.kvm.hardware import counter_hz, kinds_of_cores, page_bytes
from armferry.registers.midr import CpuIdentity, identify

__all__ = ["KvmHost", "ask"]

_MIDR = 0x6030_0000_0013_C000


@dataclass(frozen=True, slots=True)
class KvmHost:
    """What /dev/kvm of one host said.

    `registers` is the list QEMU would send (index -> value at reset, ascending), `apart` the
    indexes of the core and SVE registers, `writable` identification register -> bits that may be
    set (None: the kernel does not say), `hardware` what the hardware says in fields that newer
    kernels hide (None: the kernel is older), `features` what the vCPU was made with. `cpu` is None
    when its register is hidden.

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
    hardware: Mapping[int, int] | None
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
        writable = vcpu.writable_masks()
        listed = set(vcpu.migrated)
        return KvmHost(
            kernel=platform.release(),
            cpu=identify(registers[_MIDR]) if _MIDR in registers else None,
            registers=registers,
            apart=tuple(index for index in vcpu.indexes if index not in listed),
            writable=writable,
            hardware=None if writable is None else _hardware(hidden, nested),
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


def _hardware(hidden: Iterable[int], nested: bool) -> dict[int, int]:
    """What the hardware says in fields that the kernel hides, each alone in its register.

    The kernel takes such a field only at the hardware's own value, and then forgets it: so it is
    the one that is taken.
    """
    found = {}
    with Vcpu(hidden=hidden, nested=nested) as vcpu:
        for index, field in kvm_values().hidden.items():
            if index not in vcpu.migrated:
                continue
            own = vcpu.get(index)
            found[index] = own & field.mask
            for number in range(1, 1 << field.width) if not field.raw(own) else ():
                try:
                    vcpu.set(index, own | number << field.low)
                except RegisterRefused:
                    continue
                found[index] = number << field.low
                break
    return found
