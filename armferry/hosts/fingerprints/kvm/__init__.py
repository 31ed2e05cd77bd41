"""This host's /dev/kvm, asked through ioctls with the standard library only."""

from armferry.registers.midr import CpuIdentity, identify

from .abi import Capability, Feature
from .device import Vcpu
from .errors import HiddenRegister, KvmFault, RegisterRefused
from .host import KvmHost, ask
from .preflight import (
    Loaded,
    NotKept,
    Preflight,
    Refusal,
    VcpuLists,
    VcpuLoads,
    load_list,
    preflight,
)

__all__ = [
    "Capability",
    "CpuIdentity",
    "Feature",
    "HiddenRegister",
    "KvmFault",
    "KvmHost",
    "Loaded",
    "NotKept",
    "Preflight",
    "Refusal",
    "RegisterRefused",
    "Vcpu",
    "VcpuLists",
    "VcpuLoads",
    "ask",
    "identify",
    "load_list",
    "preflight",
]
