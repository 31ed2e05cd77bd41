"""The scratch vCPU: what it lists, what it lets through, and that hidden registers are not there.

On a simulated KVM; `tests/lab/test_real_kernels.py` does the same on real ones.
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from armferry.hosts.fingerprints.from_kvm import fingerprint_of_kvm
from armferry.hosts.fingerprints.kvm import (
    Capability,
    Feature,
    HiddenRegister,
    KvmFault,
    Loaded,
    NotKept,
    Refusal,
    RegisterRefused,
    Vcpu,
    VcpuLists,
    VcpuLoads,
    ask,
    device,
    load_list,
    preflight,
)
from armferry.hosts.fingerprints.kvm.abi import MASK_COUNT, Request, register_bytes
from armferry.hosts.fingerprints.kvm.hardware import kinds_of_cores
from armferry.registers import parse_register

MIDR = 0x603000000013C000
TCR2, SCTLR, MPIDR = 0x603000000013C103, 0x603000000013C080, 0x603000000013C005
VECTOR_LENGTHS = 0x606000000015FFFF
CCSIDR, PSCI, PC = 0x6020000000110000, 0x6030000000140000, 0x6030000000100040
VIRTUAL_COUNTER = 0x603000000013DF1A
VECTOR, SVE_Z0 = 0x6040000000100054, 0x6080000000150000


@dataclass
class SimulatedKvm:
    """Registers with values, those that refuse a value, and every register ioctl that came.

    `kept` are bits that a register keeps of what is put; a put of 0 to a register of `taken_away`
    takes the other one away; `values` are those that a register takes, all where it has none.

    Nothing but what Documentation/virt/kvm/api.rst says of these ioctls.
    """

    registers: dict[int, int]
    constant: frozenset[int] = frozenset()
    kept: dict[int, int] = field(default_factory=dict)
    taken_away: dict[int, int] = field(default_factory=dict)
    values: dict[int, frozenset[int]] = field(default_factory=dict)
    capabilities: dict[Capability, int] = field(default_factory=dict)
    api: int = 12
    devices: frozenset[int] = frozenset({5, 7, 8})
    masks: dict[int, int] = field(default_factory=dict)
    asked: list[tuple[Request, int]] = field(default_factory=list)
    features: int = 0
    finalised: bool = False

    def ioctl(
        self, descriptor: int, request: Request, argument: int | bytes | bytearray = 0
    ) -> int:
        match request:
            case Request.GET_API_VERSION:
                return self.api
            case Request.CHECK_EXTENSION:
                return self.capabilities.get(Capability(int(argument)), 0)
            case Request.CREATE_VM | Request.CREATE_VCPU:
                return os.open(os.devnull, os.O_RDONLY)
            case Request.ARM_VCPU_INIT:
                assert isinstance(argument, bytearray)
                self.features = struct.unpack_from("<II", argument)[1]
            case Request.ARM_VCPU_FINALIZE:
                assert argument == Feature.SVE.to_bytes(4, "little")
                self.finalised = True
            case Request.CREATE_DEVICE:
                assert isinstance(argument, bytearray)
                kind, _, flags = struct.unpack("<III", argument)
                if kind not in self.devices:
                    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
                if not flags & 1:
                    struct.pack_into("<I", argument, 4, os.open(os.devnull, os.O_RDONLY))
            case Request.GET_REG_LIST:
                assert isinstance(argument, bytearray)
                (room,) = struct.unpack_from("<Q", argument)
                struct.pack_into("<Q", argument, 0, len(self.registers))
                if room < len(self.registers):
                    raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
                unsorted = reversed(self.registers)
                struct.pack_into(f"<{len(self.registers)}Q", argument, 8, *unsorted)
            case Request.ARM_GET_REG_WRITABLE_MASKS:
                assert isinstance(argument, bytes)
                positions = (self.masks.get(position, 0) for position in range(MASK_COUNT))
                packed = struct.pack(f"<{MASK_COUNT}Q", *positions)
                ctypes.memmove(struct.unpack_from("<Q", argument)[0], packed, len(packed))
            case Request.GET_ONE_REG | Request.SET_ONE_REG:
                assert isinstance(argument, bytes)
                self._one(request, *struct.unpack("<QQ", argument))
        return 0

    def _one(self, request: Request, index: int, address: int) -> None:
        self.asked.append((request, index))
        if index not in self.registers:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        size = register_bytes(index)
        if request is Request.GET_ONE_REG:
            ctypes.memmove(address, self.registers[index].to_bytes(size, "little"), size)
            return
        value = int.from_bytes(ctypes.string_at(address, size), "little")
        refused = index in self.constant and value != self.registers[index]
        if refused or (index in self.values and value not in self.values[index]):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.registers[index] = value & self.kept.get(index, (1 << 8 * size) - 1)
        if index in self.taken_away and value == 0:
            self.registers.pop(self.taken_away[index], None)


@pytest.fixture
def simulated_kvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimulatedKvm:
    """An aarch64 host with /dev/kvm; its registers are there to be filled in."""
    simulated = SimulatedKvm({}, capabilities={Capability.ARM_PSCI_0_2: 1})
    node = tmp_path / "kvm"
    node.touch()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(device, "DEVICE", node)
    monkeypatch.setattr(device, "fcntl", SimpleNamespace(ioctl=simulated.ioctl))
    return simulated


@pytest.fixture
def kernel(simulated_kvm: SimulatedKvm) -> SimulatedKvm:
    simulated_kvm.registers = {
        SCTLR: 0xC50838,
        TCR2: 0,
        MPIDR: 0x80000000,
        CCSIDR: 0x700FE01A,
        PSCI: 0x10001,
        PC: 0,
        VECTOR: 1 << 127,
        SVE_Z0: 1 << 2047,
        VECTOR_LENGTHS: 0b1011,
    }
    simulated_kvm.constant = frozenset({MPIDR, PSCI})
    return simulated_kvm


def test_lists_are_ascending_and_leave_out_what_qemu_sends_apart(kernel: SimulatedKvm) -> None:
    with Vcpu() as vcpu:
        assert vcpu.indexes == tuple(sorted(kernel.registers))
        assert vcpu.migrated == (CCSIDR, MPIDR, SCTLR, TCR2, PSCI)
        assert list(vcpu.get_list().items()) == [
            (CCSIDR, 0x700FE01A),
            (MPIDR, 0x80000000),
            (SCTLR, 0xC50838),
            (TCR2, 0),
            (PSCI, 0x10001),
        ]


@pytest.mark.parametrize("index", [CCSIDR, SCTLR, VECTOR, SVE_Z0])
def test_values_of_every_size_go_in_and_come_out(index: int, kernel: SimulatedKvm) -> None:
    with Vcpu() as vcpu:
        largest = (1 << 8 * register_bytes(index)) - 1
        for value in (0, 1, largest):
            vcpu.set(index, value)
            assert vcpu.get(index) == value
        with pytest.raises(OverflowError):
            vcpu.set(index, largest + 1)


def test_what_the_kernel_refuses_says_register_value_and_errno(kernel: SimulatedKvm) -> None:
    with Vcpu() as vcpu:
        with pytest.raises(RegisterRefused) as refused:
            vcpu.set(PSCI, 0x10003)
        assert str(refused.value) == (
            "the kernel does not let PSCI_VERSION (0x6030000000140000) be set to 0x10003: EINVAL,"
            " Invalid argument"
        )
        with pytest.raises(RegisterRefused) as missing:
            vcpu.get(0x603000000013C512)
        assert str(missing.value) == (
            "the kernel does not let PIRE0_EL1 (0x603000000013c512) be read: ENOENT, No such file"
            " or directory"
        )


def test_preflight_reports_every_refusal_in_qemus_order(kernel: SimulatedKvm) -> None:
    pire0 = 0x603000000013C512
    incoming = {PSCI: 0x10003, SCTLR: 0xC50839, pire0: 7, MPIDR: 0x80000001, TCR2: 0}
    with Vcpu() as vcpu:
        assert load_list(vcpu, incoming).refused == (
            Refusal(MPIDR, errno.EINVAL, 0x80000001, 0x80000000),
            Refusal(pire0, errno.ENOENT, 7, None),
            Refusal(PSCI, errno.EINVAL, 0x10003, 0x10001),
        )
    sets = [index for request, index in kernel.asked if request.name == "SET_ONE_REG"]
    assert sets == [*vcpu.migrated, *sorted({*incoming, *vcpu.migrated})]
    assert kernel.registers[SCTLR] == 0xC50839


def test_preflight_reads_back_what_was_taken(kernel: SimulatedKvm) -> None:
    kernel.kept = {SCTLR: 0xFF00}
    kernel.registers[VIRTUAL_COUNTER] = 5
    kernel.kept[VIRTUAL_COUNTER] = 0
    with Vcpu() as vcpu:
        loaded = load_list(vcpu, {SCTLR: 0xC50839, VIRTUAL_COUNTER: 7, PSCI: 0x10001})
    assert loaded == Loaded((), (NotKept(SCTLR, 0xC50839, 0x0800),))


def test_preflight_puts_the_hosts_own_registers_too(kernel: SimulatedKvm) -> None:
    kernel.taken_away = {SCTLR: TCR2}
    with Vcpu() as vcpu:
        loaded = load_list(vcpu, {SCTLR: 0})
    assert loaded == Loaded((Refusal(TCR2, errno.ENOENT, 0, None),), ())


def test_what_the_hardware_has_is_what_the_kernel_takes(kernel: SimulatedKvm) -> None:
    mmfr2 = parse_register("ID_AA64MMFR2_EL1")
    assert ask().hardware is None
    kernel.capabilities[Capability.ARM_SUPPORTED_REG_MASK_RANGES] = 1
    assert ask().hardware == {}
    kernel.registers[mmfr2] = 0x11
    kernel.kept = {mmfr2: 0xFFFF}
    kernel.values = {mmfr2: frozenset({0x11, 2 << 24 | 0x11})}
    assert ask().hardware == {mmfr2: 2 << 24}
    kernel.values = {mmfr2: frozenset({0x11})}
    assert ask().hardware == {mmfr2: 0}
    kernel.registers[mmfr2] = 1 << 24
    kernel.values = {mmfr2: frozenset({1 << 24})}
    kernel.kept = {}
    assert ask().hardware == {mmfr2: 1 << 24}


def test_preflight_tries_both_lists_of_every_vcpu(kernel: SimulatedKvm) -> None:
    pire0 = 0x603000000013C512
    refused = Refusal(PSCI, errno.EINVAL, 0x10003, 0x10001)
    lists = [
        VcpuLists({SCTLR: 1, pire0: 0, PSCI: 0x10003}, {SCTLR: 1, PSCI: 0x10001}),
        VcpuLists({MPIDR: 0x80000000}, {PSCI: 0x10003}),
    ]
    answer = preflight(lists, hidden=[TCR2])
    assert answer.vcpus == (
        VcpuLoads(Loaded((Refusal(pire0, errno.ENOENT, 0, None), refused)), Loaded()),
        VcpuLoads(Loaded(), Loaded((refused,))),
    )
    assert not answer.psci_refused

    assert preflight(lists[:1], psci_version=0x10003).psci_refused
    kernel.constant = frozenset()
    assert not preflight(lists[:1], psci_version=0x10003).psci_refused


def test_preflight_sends_no_hidden_register(kernel: SimulatedKvm) -> None:
    with pytest.raises(HiddenRegister) as hidden:
        preflight([VcpuLists({TCR2: 0}, {TCR2: 0})], hidden=[TCR2])
    assert str(hidden.value) == (
        "cannot set TCR2_EL1 (0x603000000013c103): it is hidden from this VM; take it out of"
        " x-mig-hidden-regs to let the VM have it"
    )


PATHS: dict[str, Callable[[Vcpu], object]] = {
    "get": lambda vcpu: vcpu.get(TCR2),
    "set": lambda vcpu: vcpu.set(TCR2, 0),
    "set_list": lambda vcpu: vcpu.set_list({SCTLR: 1, TCR2: 0}),
    "load_list": lambda vcpu: load_list(vcpu, {SCTLR: 1, TCR2: 0}),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_hidden_register_cannot_be_reached(path: str, kernel: SimulatedKvm) -> None:
    with Vcpu(hidden=[TCR2]) as vcpu:
        with pytest.raises(HiddenRegister) as hidden:
            PATHS[path](vcpu)
        action = "read" if path == "get" else "set"
        assert str(hidden.value) == (
            f"cannot {action} TCR2_EL1 (0x603000000013c103): it is hidden from this VM; take it"
            " out of x-mig-hidden-regs to let the VM have it"
        )
        assert kernel.asked == []


def test_a_hidden_register_is_in_no_list(kernel: SimulatedKvm) -> None:
    kernel.capabilities[Capability.ARM_SUPPORTED_REG_MASK_RANGES] = 1
    kernel.masks = {5: 0xFF, 4 << 3: 0xF}
    with Vcpu(hidden=[TCR2, MPIDR, PC]) as vcpu:
        assert not {TCR2, MPIDR, PC} & {*vcpu.indexes, *vcpu.migrated, *vcpu.get_list()}
        assert list((vcpu.writable_masks() or {}).values()) == [0xF]
        assert TCR2 not in {index for _, index in kernel.asked}


def test_a_hidden_register_that_the_host_lacks_is_hidden_all_the_same(
    kernel: SimulatedKvm,
) -> None:
    del kernel.registers[TCR2]
    with Vcpu(hidden=[TCR2]) as vcpu, pytest.raises(HiddenRegister):
        vcpu.get(TCR2)


@pytest.mark.parametrize(
    ("capabilities", "features"),
    [
        ((), ()),
        ((Capability.ARM_PSCI_0_2, Capability.ARM_PMU_V3), (Feature.PSCI_0_2, Feature.PMU_V3)),
        ((Capability.ARM_PTRAUTH_ADDRESS,), ()),
        (
            (Capability.ARM_PTRAUTH_ADDRESS, Capability.ARM_PTRAUTH_GENERIC),
            (Feature.PTRAUTH_ADDRESS, Feature.PTRAUTH_GENERIC),
        ),
        ((Capability.ARM_SVE, Capability.ARM_EL2), (Feature.SVE,)),
    ],
)
def test_the_kernels_capabilities_decide_the_features(
    capabilities: tuple[Capability, ...], features: tuple[Feature, ...], kernel: SimulatedKvm
) -> None:
    kernel.capabilities = dict.fromkeys(capabilities, 1)
    with Vcpu() as vcpu:
        assert vcpu.features == frozenset(features)
        assert kernel.features == sum(1 << feature for feature in features)
        assert kernel.finalised == (Feature.SVE in features)


def test_el2_is_given_where_asked_and_offered(kernel: SimulatedKvm) -> None:
    with pytest.raises(KvmFault) as refused:
        Vcpu(nested=True)
    assert str(refused.value) == (
        "this kernel offers no nested virtualisation (KVM_CAP_ARM_EL2): it needs a CPU with"
        " FEAT_NV2 and kvm-arm.mode=nested on the kernel's command line"
    )
    kernel.capabilities[Capability.ARM_EL2] = 1
    with Vcpu(nested=True) as vcpu:
        assert Feature.HAS_EL2 in vcpu.features


def test_what_the_host_gives_beside_the_list(kernel: SimulatedKvm) -> None:
    kernel.capabilities[Capability.ARM_SVE] = 1
    host = ask()
    assert host.vector_bits == (128, 256, 512)
    assert (host.gic_versions, host.has_its) == ((2, 3), True)
    assert host.page_bytes == os.sysconf("SC_PAGE_SIZE")
    kernel.devices = frozenset({5})
    kernel.capabilities[Capability.ARM_SVE] = 0
    host = ask()
    assert host.vector_bits == ()
    assert (host.gic_versions, host.has_its) == ((2,), False)


def test_kinds_of_cores_are_told_apart(tmp_path: Path) -> None:
    for number, midr in enumerate(["0x00000000410fd050", "0x410fd050", "0x414fd0b0", "junk"]):
        folder = tmp_path / f"cpu{number}" / "regs/identification"
        folder.mkdir(parents=True)
        (folder / "midr_el1").write_text(midr + "\n")
    assert kinds_of_cores(tmp_path) == {0x410FD050: (0, 1), 0x414FD0B0: (2,)}
    assert kinds_of_cores(tmp_path / "cpu0") is None


def test_a_host_without_a_gic_v3_has_a_list_all_the_same(kernel: SimulatedKvm) -> None:
    kernel.devices = frozenset({5})
    with Vcpu() as vcpu:
        assert not vcpu.has_gic
        assert vcpu.writable_masks() is None


def _descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_nothing_stays_open(kernel: SimulatedKvm) -> None:
    before = _descriptors()
    with Vcpu() as vcpu:
        assert _descriptors() > before
    vcpu.close()
    with pytest.raises(KvmFault):
        Vcpu(nested=True)
    assert _descriptors() == before


def test_another_architecture_is_told_where_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(KvmFault) as fault:
        Vcpu()
    assert str(fault.value) == (
        "this machine is x86_64, and arm64 KVM is only on aarch64: run this on the host itself, or"
        " take a fingerprint recorded there (armferry fingerprint kvm -o)"
    )
    assert fault.value.exit_code == 4


def test_a_missing_device_says_what_is_missing(
    kernel: SimulatedKvm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device, "DEVICE", tmp_path / "none")
    with pytest.raises(KvmFault) as fault:
        Vcpu()
    assert str(fault.value) == (
        f"{tmp_path}/none does not exist: this kernel has no KVM, or was not booted at EL2 (a"
        " virtual machine needs nested virtualisation; see `dmesg | grep kvm`)"
    )
    assert fault.value.exit_code == 4


def test_a_device_that_is_not_kvm_is_told(
    kernel: SimulatedKvm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "fcntl", fcntl)
    with pytest.raises(KvmFault) as fault:
        Vcpu()
    assert str(fault.value) == (
        "KVM could not say its version: GET_API_VERSION gave Inappropriate ioctl for device; the"
        " kernel's log may say more"
    )


def test_the_cpu_is_told_from_its_own_register_unless_that_is_hidden(
    kernel: SimulatedKvm,
) -> None:
    kernel.registers[MIDR] = 0x414FD0C1
    told = ask().cpu
    assert told is not None
    assert told.text == "Arm Neoverse N1 r4p1"
    assert ask(hidden=[MIDR]).cpu is None
    assert fingerprint_of_kvm(ask(hidden=[MIDR])).provenance.hardware == ""


def test_preflight_of_a_guest_with_el2(kernel: SimulatedKvm) -> None:
    with pytest.raises(KvmFault):
        preflight([VcpuLists({}, {})], nested=True)
    kernel.capabilities[Capability.ARM_EL2] = 1
    assert preflight([VcpuLists({}, {})], nested=True).vcpus == (VcpuLoads(Loaded(), Loaded()),)
    assert kernel.features >> Feature.HAS_EL2 & 1


def test_another_interface_version_is_refused(kernel: SimulatedKvm, tmp_path: Path) -> None:
    kernel.api = 13
    with pytest.raises(KvmFault) as fault:
        Vcpu()
    assert str(fault.value) == (
        f"{tmp_path}/kvm speaks KVM interface version 13, armferry knows 12"
    )
