"""The KVM interface of an arm64 kernel as numbers and byte layouts; calls nothing.

Everything here can be tested on any machine: ioctl numbers come from the kernel's own rule, and
structures are packed and unpacked as bytes. Sources of fact: Documentation/virt/kvm/api.rst,
include/uapi/asm-generic/ioctl.h, include/uapi/linux/kvm.h, arch/arm64/include/uapi/asm/kvm.h.
"""

import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum

__all__ = [
    "API_VERSION",
    "MASK_COUNT",
    "Capability",
    "Feature",
    "Group",
    "Request",
    "device_attribute",
    "features_word",
    "group_of",
    "index_list",
    "mask_range",
    "new_device",
    "new_index_list",
    "one_register",
    "register_bytes",
    "vcpu_init",
    "vcpu_init_target",
    "vector_bits",
    "writable_masks",
]

API_VERSION = 12

_KVMIO = 0xAE
_WRITE, _READ = 1, 2


def _request(direction: int, number: int, size: int) -> int:
    """_IOC(): direction in bits 31..30, size in 29..16, type in 15..8, number in 7..0."""
    return direction << 30 | size << 16 | _KVMIO << 8 | number


_INIT = struct.Struct("<I7I")
_ONE_REGISTER = struct.Struct("<QQ")
_LIST_LENGTH = struct.Struct("<Q")
_DEVICE = struct.Struct("<III")
_ATTRIBUTE = struct.Struct("<IIQQ")
_MASK_RANGE = struct.Struct("<QI13I")
_VECTOR_LENGTHS = struct.Struct("<8Q")


class Request(IntEnum):
    """ioctl numbers."""

    GET_API_VERSION = _request(0, 0x00, 0)
    CREATE_VM = _request(0, 0x01, 0)
    CHECK_EXTENSION = _request(0, 0x03, 0)
    CREATE_VCPU = _request(0, 0x41, 0)
    GET_ONE_REG = _request(_WRITE, 0xAB, _ONE_REGISTER.size)
    SET_ONE_REG = _request(_WRITE, 0xAC, _ONE_REGISTER.size)
    ARM_VCPU_INIT = _request(_WRITE, 0xAE, _INIT.size)
    ARM_PREFERRED_TARGET = _request(_READ, 0xAF, _INIT.size)
    GET_REG_LIST = _request(_READ | _WRITE, 0xB0, _LIST_LENGTH.size)
    ARM_GET_REG_WRITABLE_MASKS = _request(_READ, 0xB6, _MASK_RANGE.size)
    ARM_VCPU_FINALIZE = _request(_WRITE, 0xC2, 4)
    CREATE_DEVICE = _request(_READ | _WRITE, 0xE0, _DEVICE.size)
    SET_DEVICE_ATTR = _request(_WRITE, 0xE1, _ATTRIBUTE.size)


class Capability(IntEnum):
    """What CHECK_EXTENSION is asked for, as far as it decides or explains a register list."""

    ONE_REG = 70
    DEVICE_CTRL = 89
    ARM_EL1_32BIT = 93
    ARM_PSCI_0_2 = 102
    ARM_PMU_V3 = 126
    ARM_VM_IPA_SIZE = 165
    ARM_SVE = 170
    ARM_PTRAUTH_ADDRESS = 171
    ARM_PTRAUTH_GENERIC = 172
    ARM_MTE = 205
    ARM_SUPPORTED_REG_MASK_RANGES = 230
    ARM_WRITABLE_IMP_ID_REGS = 239
    ARM_EL2 = 240
    ARM_EL2_E2H0 = 241


class Feature(IntEnum):
    """Bits of kvm_vcpu_init.features; the value is the bit number."""

    PSCI_0_2 = 2
    PMU_V3 = 3
    SVE = 4
    PTRAUTH_ADDRESS = 5
    PTRAUTH_GENERIC = 6
    HAS_EL2 = 7


class Group(IntEnum):
    """The coprocessor field of an index, bits 27..16, as far as QEMU treats one differently."""

    CORE = 0x10
    SVE = 0x15


DEVICE_VGIC_V2 = 5
DEVICE_VGIC_V3 = 7
DEVICE_VGIC_ITS = 8
_CREATE_DEVICE_TEST = 1
VGIC_GROUP_ADDRESS = 0
VGIC_GROUP_CONTROL = 4
VGIC_ADDRESS_DISTRIBUTOR = 2
VGIC_ADDRESS_REDISTRIBUTOR = 3
VGIC_CONTROL_INIT = 0

SVE_VECTOR_LENGTHS = 0x6060_0000_0015_FFFF

MASK_COUNT = 3 * 8 * 8
"""Writable masks of the identification space: op0 3, op1 0, 1 and 3, CRn 0, CRm 0..7, op2 0..7."""

_SYSTEM_64 = 0x6030_0000_0013_0000


def register_bytes(index: int) -> int:
    """Size of the register's value in bytes: bits 55..52 of the index are its logarithm."""
    return 1 << (index >> 52 & 0xF)


def group_of(index: int) -> int:
    return index >> 16 & 0xFFF


def features_word(features: Iterable[Feature]) -> int:
    return sum(1 << feature for feature in set(features))


def vcpu_init(target: int = 0, features: Iterable[Feature] = ()) -> bytearray:
    """struct kvm_vcpu_init; with the defaults, room for the kernel's answer."""
    return bytearray(_INIT.pack(target, features_word(features), 0, 0, 0, 0, 0, 0))


def vcpu_init_target(answer: bytes | bytearray) -> int:
    target: int = _INIT.unpack(answer)[0]
    return target


def one_register(index: int, address: int) -> bytes:
    """struct kvm_one_reg; `address` is where the value lies in this process."""
    return _ONE_REGISTER.pack(index, address)


def new_index_list(length: int) -> bytearray:
    """struct kvm_reg_list with room for `length` indexes."""
    return bytearray(_LIST_LENGTH.pack(length) + bytes(8 * length))


def index_list(answer: bytes | bytearray) -> tuple[int, ...]:
    """The indexes in a filled struct kvm_reg_list; with no room, none: see `index_count`."""
    (length,) = _LIST_LENGTH.unpack_from(answer)
    return struct.unpack_from(f"<{length}Q", answer, _LIST_LENGTH.size)


def index_count(answer: bytes | bytearray) -> int:
    """How many indexes the kernel has, also when the list had no room for them."""
    length: int = _LIST_LENGTH.unpack_from(answer)[0]
    return length


def new_device(kind: int, *, only_ask: bool = False) -> bytearray:
    """struct kvm_create_device; with `only_ask`, nothing is made."""
    return bytearray(_DEVICE.pack(kind, 0, _CREATE_DEVICE_TEST if only_ask else 0))


def device_descriptor(answer: bytes | bytearray) -> int:
    descriptor: int = _DEVICE.unpack(answer)[1]
    return descriptor


def device_attribute(group: int, attribute: int, address: int) -> bytes:
    """struct kvm_device_attr."""
    return _ATTRIBUTE.pack(0, group, attribute, address)


def vector_bits(answer: bytes) -> tuple[int, ...]:
    """Vector lengths in bits, ascending, from KVM_REG_ARM64_SVE_VLS: bit n is (n + 1) times 128."""
    words = _VECTOR_LENGTHS.unpack(answer)
    bits = sum(word << 64 * place for place, word in enumerate(words))
    return tuple(128 * (n + 1) for n in range(512) if bits >> n & 1)


def mask_range(address: int) -> bytes:
    """struct reg_mask_range for range 0; `address` has room for MASK_COUNT 64-bit masks."""
    return _MASK_RANGE.pack(address, 0, *[0] * 13)


def writable_masks(answer: bytes) -> Mapping[int, int]:
    """Register index -> bits that may be set, from a filled array; registers without are left out.

    The array's position is op1 (0, 1, 3 counted 0, 1, 2), CRm, op2.
    """
    masks = {}
    for position, mask in enumerate(struct.unpack(f"<{MASK_COUNT}Q", answer)):
        op1, crm, op2 = position >> 6, position >> 3 & 7, position & 7
        op1 += op1 == 2
        if mask:
            masks[_SYSTEM_64 | 3 << 14 | op1 << 11 | crm << 3 | op2] = mask
    return masks
