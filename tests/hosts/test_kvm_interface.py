"""ioctl numbers and layouts of arm64 KVM, as the headers of the kernel have them."""

import struct

import pytest

from armferry.hosts.fingerprints.kvm import abi
from armferry.hosts.fingerprints.kvm.abi import Feature, Request
from armferry.registers import name
from armferry.registers.midr import identify

NUMBERS = {
    "GET_API_VERSION": 0xAE00,
    "CREATE_VM": 0xAE01,
    "CHECK_EXTENSION": 0xAE03,
    "CREATE_VCPU": 0xAE41,
    "GET_ONE_REG": 0x4010AEAB,
    "SET_ONE_REG": 0x4010AEAC,
    "ARM_VCPU_INIT": 0x4020AEAE,
    "ARM_PREFERRED_TARGET": 0x8020AEAF,
    "GET_REG_LIST": 0xC008AEB0,
    "ARM_GET_REG_WRITABLE_MASKS": 0x8040AEB6,
    "ARM_VCPU_FINALIZE": 0x4004AEC2,
    "CREATE_DEVICE": 0xC00CAEE0,
    "SET_DEVICE_ATTR": 0x4018AEE1,
}


def test_every_request_has_the_number_of_the_headers() -> None:
    assert {request.name: request.value for request in Request} == NUMBERS


@pytest.mark.parametrize(
    ("index", "size"),
    [
        (0x6020000000110003, 4),
        (0x603000000013C103, 8),
        (0x6040000000100054, 16),
        (0x6050000000150400, 32),
        (0x6080000000150000, 256),
    ],
)
def test_the_index_says_how_large_the_value_is(index: int, size: int) -> None:
    assert abi.register_bytes(index) == size


def test_features_are_bits_of_the_first_word() -> None:
    request = abi.vcpu_init(5, [Feature.PSCI_0_2, Feature.PMU_V3, Feature.PMU_V3])
    assert struct.unpack("<8I", request) == (5, 0b1100, 0, 0, 0, 0, 0, 0)
    assert abi.vcpu_init_target(request) == 5


def test_an_index_list_says_its_length_also_when_it_had_no_room() -> None:
    answer = abi.new_index_list(0)
    struct.pack_into("<Q", answer, 0, 331)
    assert abi.index_count(answer) == 331
    full = abi.new_index_list(2)
    struct.pack_into("<QQ", full, 8, 7, 9)
    assert abi.index_list(full) == (7, 9)


def test_a_device_answers_with_its_descriptor() -> None:
    request = abi.new_device(abi.DEVICE_VGIC_V3)
    assert struct.unpack("<III", request) == (7, 0, 0)
    struct.pack_into("<I", request, 4, 42)
    assert abi.device_descriptor(request) == 42
    assert struct.unpack("<IIQQ", abi.device_attribute(4, 2, 0xABC)) == (0, 4, 2, 0xABC)


def test_writable_masks_are_found_by_op1_crm_and_op2() -> None:
    masks = [0] * abi.MASK_COUNT
    masks[4 << 3 | 0] = 0xF
    masks[1 << 6 | 1] = 0xE
    masks[2 << 6 | 1] = 0xD
    found = abi.writable_masks(struct.pack(f"<{abi.MASK_COUNT}Q", *masks))
    assert {name(index): mask for index, mask in found.items()} == {
        "ID_AA64PFR0_EL1": 0xF,
        "CLIDR_EL1": 0xE,
        "CTR_EL0": 0xD,
    }


@pytest.mark.parametrize(
    ("midr", "text"),
    [
        (0x414FD0C1, "Arm Neoverse N1 r4p1"),
        (0x411FD401, "Arm Neoverse V1 r1p1"),
        (0x481FD010, "HiSilicon Kunpeng 920 r1p0"),
        (0x412FABC3, "Arm part 0xabc r2p3"),
        (0x7F0F0010, "implementer 0x7f part 0x001 r0p0"),
    ],
)
def test_a_cpu_is_named_as_far_as_it_is_known(midr: int, text: str) -> None:
    assert identify(midr).text == text
