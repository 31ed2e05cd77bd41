"""A scratch VM with one vCPU, made through /dev/kvm as QEMU's `-cpu host` makes one.

The vCPU never runs: it is there to be asked what the kernel exposes and what it accepts. Nothing
of the host changes. Hidden registers are enforced here, for every caller: they are not listed,
and every read or write that names one raises before the kernel is called.

Capabilities decide which features are turned on, never kernel versions. Sources of fact:
Documentation/virt/kvm/api.rst and devices/arm-vgic-v3.rst of the kernel.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from armferry.hosts.fingerprints.kvm import abi
from armferry.hosts.fingerprints.kvm.abi import Capability, Feature, Group, Request
from armferry.hosts.fingerprints.kvm.errors import HiddenRegister, KvmFault, RegisterRefused

__all__ = ["DEVICE", "Vcpu"]

DEVICE = Path("/dev/kvm")

# Where the interrupt controller would lie in QEMU's `virt` machine.
_DISTRIBUTOR = 0x0800_0000
_REDISTRIBUTOR = 0x080A_0000

# Without the capability, and up to this many bits, a VM of type 0 has 40-bit addresses.
_DEFAULT_ADDRESS_BITS = 40

_FEATURE_CAPABILITIES = {
    Feature.PSCI_0_2: (Capability.ARM_PSCI_0_2,),
    Feature.PMU_V3: (Capability.ARM_PMU_V3,),
    Feature.SVE: (Capability.ARM_SVE,),
    # The kernel takes the two kinds of pointer authentication only together.
    Feature.PTRAUTH_ADDRESS: (Capability.ARM_PTRAUTH_ADDRESS, Capability.ARM_PTRAUTH_GENERIC),
    Feature.PTRAUTH_GENERIC: (Capability.ARM_PTRAUTH_ADDRESS, Capability.ARM_PTRAUTH_GENERIC),
}


class Vcpu:
    """One vCPU of a VM of its own, initialised and at reset; a context manager.

    `hidden` are indexes that do not exist for this VM. `nested` asks for a vCPU with EL2. Raises
    `KvmFault` when this machine has no arm64 KVM, or has no nested virtualisation and it was asked
    for.
    """

    def __init__(self, *, hidden: Iterable[int] = (), nested: bool = False) -> None:
        self._hidden = frozenset(hidden)
        if (machine := platform.machine()) != "aarch64":
            raise KvmFault(
                f"this machine is {machine}, and arm64 KVM is only on aarch64: run this on the"
                " host itself, or take a fingerprint recorded there (armferry fingerprint kvm -o)"
            )
        self._descriptors = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._kvm = self._keep(_open())
            version = _call("say its version", self._kvm, Request.GET_API_VERSION, 0)
            if version != abi.API_VERSION:
                raise KvmFault(
                    f"{DEVICE} speaks KVM interface version {version}, armferry knows"
                    f" {abi.API_VERSION}"
                )
            self._vm = self._keep(_call("create a VM", self._kvm, Request.CREATE_VM, self._type()))
            self.capabilities: Mapping[Capability, int] = {
                capability: fcntl.ioctl(self._vm, Request.CHECK_EXTENSION, capability)
                for capability in Capability
            }
            self.features = self._features(nested)
            self._vcpu = self._keep(_call("create a vCPU", self._vm, Request.CREATE_VCPU, 0))
            self.vector_bits = self._initialise()
            self.gic_versions, self.has_its = self._gics()
            self.has_gic = self._add_gic()
            self._indexes = self._list()
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def hidden(self) -> frozenset[int]:
        """The registers that do not exist for this VM."""
        return self._hidden

    @property
    def indexes(self) -> tuple[int, ...]:
        """Every register the VM has, ascending; hidden ones it has not."""
        return self._indexes

    @property
    def migrated(self) -> tuple[int, ...]:
        """The registers QEMU keeps in its list: not the core and SVE ones, which it sends apart."""
        return tuple(
            index for index in self._indexes if abi.group_of(index) not in (Group.CORE, Group.SVE)
        )

    def get(self, index: int) -> int:
        """The value of a register of any size. Raises `HiddenRegister`, `RegisterRefused`."""
        self._check_hidden(index, "read")
        buffer = ctypes.create_string_buffer(abi.register_bytes(index))
        if number := self._one_register(Request.GET_ONE_REG, index, buffer):
            raise RegisterRefused(index, number)
        return int.from_bytes(buffer.raw, "little")

    def set(self, index: int, value: int) -> None:
        """Set a register. Raises `HiddenRegister`, `RegisterRefused`.

        A value that is too large for the register's size is an OverflowError.
        """
        self._check_hidden(index, "set")
        size = abi.register_bytes(index)
        buffer = ctypes.create_string_buffer(value.to_bytes(size, "little"), size)
        if number := self._one_register(Request.SET_ONE_REG, index, buffer):
            raise RegisterRefused(index, number, value)

    def get_list(self) -> dict[int, int]:
        """Index -> value of what QEMU would send, ascending. 331 registers take 0.06 s."""
        return {index: self.get(index) for index in self.migrated}

    def set_list(self, registers: Mapping[int, int]) -> list[RegisterRefused]:
        """Set registers in ascending order, as QEMU does; every refusal, none hides a later one.

        Raises `HiddenRegister` before anything is set when one of them is hidden.
        """
        for index in registers:
            self._check_hidden(index, "set")
        refusals = []
        for index in sorted(registers):
            try:
                self.set(index, registers[index])
            except RegisterRefused as refused:
                refusals.append(refused)
        return refusals

    def writable_masks(self) -> Mapping[int, int] | None:
        """Identification register -> bits that may be set; None when the kernel does not say."""
        if not self.capabilities[Capability.ARM_SUPPORTED_REG_MASK_RANGES] & 1:
            return None
        masks = ctypes.create_string_buffer(8 * abi.MASK_COUNT)
        request = abi.mask_range(ctypes.addressof(masks))
        _call("ask for writable masks", self._vm, Request.ARM_GET_REG_WRITABLE_MASKS, request)
        found = abi.writable_masks(masks.raw)
        return {index: mask for index, mask in found.items() if index not in self._hidden}

    def close(self) -> None:
        """Give the VM back. May be called twice."""
        self._descriptors.close()

    def _keep(self, descriptor: int) -> int:
        self._descriptors.callback(os.close, descriptor)
        return descriptor

    def _type(self) -> int:
        """VM type: the default 40-bit addresses, or what a smaller host has."""
        bits = fcntl.ioctl(self._kvm, Request.CHECK_EXTENSION, Capability.ARM_VM_IPA_SIZE)
        return bits if 0 < bits < _DEFAULT_ADDRESS_BITS else 0

    def _features(self, nested: bool) -> frozenset[Feature]:
        features = {
            feature
            for feature, needed in _FEATURE_CAPABILITIES.items()
            if all(self.capabilities[capability] for capability in needed)
        }
        if nested:
            if not self.capabilities[Capability.ARM_EL2]:
                raise KvmFault(
                    "this kernel offers no nested virtualisation (KVM_CAP_ARM_EL2): it needs a CPU"
                    " with FEAT_NV2 and kvm-arm.mode=nested on the kernel's command line"
                )
            features.add(Feature.HAS_EL2)
        return frozenset(features)

    def _initialise(self) -> tuple[int, ...] | None:
        """The lengths of its vectors in bits, all that the host has; None without SVE."""
        answer = abi.vcpu_init()
        _call("ask for the CPU target", self._vm, Request.ARM_PREFERRED_TARGET, answer)
        request = abi.vcpu_init(abi.vcpu_init_target(answer), self.features)
        _call("initialise a vCPU", self._vcpu, Request.ARM_VCPU_INIT, request)
        if Feature.SVE not in self.features:
            return None
        lengths = abi.vector_bits(self.get(abi.SVE_VECTOR_LENGTHS).to_bytes(64, "little"))
        what = Feature.SVE.to_bytes(4, "little")
        _call("finalise SVE", self._vcpu, Request.ARM_VCPU_FINALIZE, what)
        return lengths

    def _gics(self) -> tuple[tuple[int, ...], bool]:
        """Versions of the interrupt controller that this KVM can give, and whether an ITS too."""
        versions = {2: abi.DEVICE_VGIC_V2, 3: abi.DEVICE_VGIC_V3}
        given = tuple(version for version, kind in versions.items() if self._can_make(kind))
        return given, self._can_make(abi.DEVICE_VGIC_ITS)

    def _can_make(self, kind: int) -> bool:
        try:
            fcntl.ioctl(self._vm, Request.CREATE_DEVICE, abi.new_device(kind, only_ask=True))
        except OSError:
            return False
        return True

    def _add_gic(self) -> bool:
        """A GICv3, which shows in ID_AA64PFR0_EL1; False on a host that cannot emulate one."""
        request = abi.new_device(abi.DEVICE_VGIC_V3)
        try:
            fcntl.ioctl(self._vm, Request.CREATE_DEVICE, request)
        except OSError as refused:
            if refused.errno != errno.ENODEV:
                raise KvmFault(f"cannot create a GICv3: {refused.strerror}") from refused
            return False
        gic = self._keep(abi.device_descriptor(request))
        for attribute, value in (
            (abi.VGIC_ADDRESS_DISTRIBUTOR, _DISTRIBUTOR),
            (abi.VGIC_ADDRESS_REDISTRIBUTOR, _REDISTRIBUTOR),
        ):
            address = ctypes.c_uint64(value)
            request_bytes = abi.device_attribute(
                abi.VGIC_GROUP_ADDRESS, attribute, ctypes.addressof(address)
            )
            _call("place the GICv3", gic, Request.SET_DEVICE_ATTR, request_bytes)
        start = abi.device_attribute(abi.VGIC_GROUP_CONTROL, abi.VGIC_CONTROL_INIT, 0)
        _call("initialise the GICv3", gic, Request.SET_DEVICE_ATTR, start)
        return True

    def _list(self) -> tuple[int, ...]:
        request = abi.new_index_list(0)
        # With no room the kernel answers E2BIG and the length it needs.
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._vcpu, Request.GET_REG_LIST, request)
        request = abi.new_index_list(abi.index_count(request))
        _call("list the registers", self._vcpu, Request.GET_REG_LIST, request)
        return tuple(sorted(set(abi.index_list(request)) - self._hidden))

    def _one_register(
        self, request: Request, index: int, buffer: "ctypes.Array[ctypes.c_char]"
    ) -> int:
        """errno, 0 when it went well."""
        try:
            fcntl.ioctl(self._vcpu, request, abi.one_register(index, ctypes.addressof(buffer)))
        except OSError as refused:
            return refused.errno or errno.EIO
        return 0

    def _check_hidden(self, index: int, action: str) -> None:
        if index in self._hidden:
            raise HiddenRegister(index, action)


def _open() -> int:
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KvmFault(
            f"{DEVICE} does not exist: this kernel has no KVM, or was not booted at EL2 (a virtual"
            " machine needs nested virtualisation; see `dmesg | grep kvm`)"
        ) from None
    except PermissionError:
        raise KvmFault(
            f"{DEVICE} may not be opened: become root, or a member of the group kvm"
        ) from None
    except OSError as refused:
        raise KvmFault(f"{DEVICE} cannot be opened: {refused.strerror}") from refused


def _call(what: str, descriptor: int, request: Request, argument: int | bytes | bytearray) -> int:
    try:
        answer = fcntl.ioctl(descriptor, request, argument)
    except OSError as refused:
        raise KvmFault(
            f"KVM could not {what}: {request.name} gave {refused.strerror}; the kernel's log may"
            " say more"
        ) from refused
    return answer if isinstance(answer, int) else 0
