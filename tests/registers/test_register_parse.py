"""What a person may write for a register, and what is said when it is wrong."""

import pytest

from armferry.errors import ArmferryError
from armferry.registers import (
    Accelerator,
    AmbiguousRegister,
    RegisterTextError,
    UnknownRegister,
    parse_register,
)

TCR2 = 0x603000000013C103
ACCEPTED = (
    "a register is a number (0x603000000013c103), a name (TCR2_EL1) "
    "or an encoding (S3_0_C2_C0_3; AArch32: p14,3,c0,c5,0 or p15,0,c2)"
)

LIKE_TCR3 = "TCR_EL1 or TCR_EL12 or TCR2_EL1"
COLON_FORMS = "write fw:N, fwbitmap:N, core:OFFSET:BITS, sve:N:BITS or demux:SPACE:SELECTOR:BITS"


@pytest.mark.parametrize(
    "text",
    [
        "0x603000000013c103",
        "0x603000000013C103",
        "0X603000000013c103",
        " 6931039826524487939 ",
        "TCR2_EL1",
        "tcr2_el1",
        " Tcr2_El1\n",
        "S3_0_C2_C0_3",
        "s3_0_c2_c0_3",
        "S3_0_C2_C0_3:64",
    ],
)
def test_one_register_many_ways(text: str) -> None:
    assert parse_register(text) == TCR2


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("DBGDTRTX", 0x40200000200E0298),
        ("p14,3,c0,c5,0", 0x40200000200E0298),
        ("P14, 3, C0, C5, 0", 0x40200000200E0298),
        ("p15,0,c2", 0x40300000200F0100),
        ("p15,0,c1,c0,0,s", 0x40200000000F0800),
        ("sctlr", 0x40200000200F0800),
        ("sctlr_s", 0x40200000000F0800),
        ("PRRR", 0x40200000200F5100),
        ("DBGDTRRXINT", 0x40200000200E0280),
        ("psci_version", 0x6030000000140000),
        ("fw:0", 0x6030000000140000),
        ("VENDOR_HYP_BMAP_2", 0x6030000000160003),
        ("CCSIDR_L1I", 0x6020000000110001),
        ("TTBR0_EL1:128", 0x604000000013C100),
        ("0x6fffffffffffffff", 0x6FFFFFFFFFFFFFFF),
        ("0x000603000000013c103", 0x603000000013C103),
        (str(0x603000000013C103), 0x603000000013C103),
    ],
)
def test_forms(text: str, index: int) -> None:
    assert parse_register(text) == index


@pytest.mark.parametrize(
    ("text", "index"),
    [
        # QEMU 11.1.3 under TCG: its 32-bit keys
        ("0x1013c030", 0x603000000013C030),
        ("system register 0x10139820", 0x6030000000139820),
        ("0x200e0280", 0x40200000200E0280),
        ("0x200f8100", 0x40300000200F0100),
        ("0x000e0298", 0x40200000000E0298),
        # QEMU 11.1.3 under KVM
        ("system register op0:3 op1:0 crn:2 crm:0 op2:3", TCR2),
        ("op0:3 op1:0 crn:2 crm:0 op2:3", TCR2),
        ("fw reg 0", 0x6030000000140000),
        ("fw feat reg 3", 0x6030000000160003),
        # the kernel's log and its headers
        ("Op0( 3), Op1( 0), CRn( 2), CRm( 0), Op2( 3)", TCR2),
        ("sys_reg(3, 0, 2, 0, 3)", TCR2),
        ("ARM64_SYS_REG(3, 0, 2, 0, 3)", TCR2),
        ("SYS_TCR2_EL1", TCR2),
        ("KVM_REG_ARM_PSCI_VERSION", 0x6030000000140000),
        ("KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1", 0x6030000000140001),
        ("KVM_REG_ARM_VENDOR_HYP_BMAP_2", 0x6030000000160003),
        ("KVM_REG_ARM_FW_REG(2)", 0x6030000000140002),
        ("KVM_REG_ARM_FW_FEAT_BMAP_REG(1)", 0x6030000000160001),
        ("KVM_REG_ARM_TIMER_CNT", 0x603000000013DF1A),
        ("KVM_REG_ARM_TIMER_CVAL", 0x603000000013DF02),
        ("KVM_REG_ARM_PTIMER_CTL", 0x603000000013DF11),
        ("KVM_REG_ARM_PTIMER_CNT", 0x603000000013DF01),
        ("KVM_REG_ARM_PTIMER_CVAL", 0x603000000013DF12),
        ("KVM_REG_ARM64_SVE_VLS", 0x606000000015FFFF),
    ],
)
def test_spellings_of_qemu_and_the_kernel(text: str, index: int) -> None:
    assert parse_register(text) == index


IS_A_VALUE = (
    "this is not a register index (those begin with 0x60 or 0x40, QEMU's own with 0x10 or 0x20); "
    "is it a value?"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, f"{text!r}: {IS_A_VALUE} ") for text in ("0x10003", "0", "0xffffffffffffffff")),
        ("0x10140000", f"'0x10140000': {IS_A_VALUE} "),
        ("9" * 5000, f"'{'9' * 80}...': the number does not fit in 64 bits; "),
        ("TCR2", "'TCR2': no register goes by this name; did you mean TCR2_EL1 or "),
        (
            "TCR3_EL1",
            f"'TCR3_EL1': no register goes by this name; did you mean {LIKE_TCR3}? {ACCEPTED}",
        ),
        ("", f"'': no register goes by this name; {ACCEPTED}"),
        ("frobnicate", f"'frobnicate': no register goes by this name; {ACCEPTED}"),
        ("0x1603000000013c103f", "'0x1603000000013c103f': the number does not fit in 64 bits; "),
        ("S4_0_C2_C0_3", "'S4_0_C2_C0_3': 4 is too great where 3 is the last; "),
        ("S3_0_C16_C0_3", "'S3_0_C16_C0_3': 16 is too great where 15 is the last; "),
        ("S3_0_C2_C0_3:7", "'S3_0_C2_C0_3:7': a system register has 32, 64 or 128 bits; "),
        ("p13,0,c2", "'p13,0,c2': the coprocessor is p14 or p15; "),
        ("p15,0,c2,c0,8", "'p15,0,c2,c0,8': 8 is too great where 7 is the last; "),
        (
            "core:1",
            f"'core:1': {COLON_FORMS}; {ACCEPTED}",
        ),
        ("fw:65536", "'fw:65536': write fw:N, fwbitmap:N, "),
        ("SCTLR:64", "'SCTLR:64': there is no such register of 64 bits; "),
        ("PSCI_VERSION:32", "'PSCI_VERSION:32': there is no such register of 32 bits; "),
        ("TTBR0_EL1:127", "'TTBR0_EL1:127': no register goes by this name; did you mean "),
    ],
)
def test_unknown(text: str, message: str) -> None:
    with pytest.raises(UnknownRegister) as caught:
        parse_register(text)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(ACCEPTED)
    assert caught.value.text == text
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "text",
    [
        "op0:4 op1:0 crn:2 crm:0 op2:3",
        "op0:3 op1:0 crn:2 crm:0 op2:123",
        "fw reg 65536",
        "fw reg",
        "KVM_REG_ARM_NOTHING",
        "SYS_",
    ],
)
def test_spellings_out_of_range_are_unknown(text: str) -> None:
    with pytest.raises(UnknownRegister):
        parse_register(text)


@pytest.mark.parametrize(
    "text", ["0x", "-1", "0x-1", "1e9", "S3_0_C2_C0", "p16", "12_34", "1 2", "p15,0", "²"]
)
def test_near_misses_are_unknown(text: str) -> None:
    with pytest.raises(UnknownRegister):
        parse_register(text)


def test_a_name_of_two_registers_lists_both() -> None:
    with pytest.raises(AmbiguousRegister) as caught:
        parse_register("TTBR0")
    assert str(caught.value) == (
        "'TTBR0' names more than one register: TTBR0_64 (0x40300000200f0100), "
        "TTBR0_32 (0x40200000200f1000); give one of these"
    )
    assert caught.value.candidates == (0x40300000200F0100, 0x40200000200F1000)
    with pytest.raises(AmbiguousRegister):
        parse_register("TTBR0_S")


def test_the_swapped_timers_need_an_accelerator() -> None:
    with pytest.raises(AmbiguousRegister) as caught:
        parse_register("CNTV_CVAL_EL0")
    assert str(caught.value) == (
        "'CNTV_CVAL_EL0' names more than one register: "
        "TIMER_CNT (0x603000000013df1a; under KVM the virtual counter (CNTVCT), under TCG "
        "CNTV_CVAL_EL0), TIMER_CVAL (0x603000000013df02; under KVM the virtual timer's compare "
        "value (CNTV_CVAL), under TCG CNTVCT_EL0); give one of these"
    )
    assert parse_register("CNTV_CVAL_EL0", Accelerator.TCG) == 0x603000000013DF1A
    assert parse_register("CNTV_CVAL_EL0", Accelerator.KVM) == 0x603000000013DF02
    assert parse_register("CNTVCT_EL0", Accelerator.TCG) == 0x603000000013DF02
    assert parse_register("CNTVCT_EL0", Accelerator.KVM) == 0x603000000013DF1A
    assert parse_register("TIMER_CNT") == 0x603000000013DF1A


def test_one_tree_of_errors() -> None:
    assert issubclass(UnknownRegister, RegisterTextError)
    assert issubclass(AmbiguousRegister, RegisterTextError)
    assert issubclass(RegisterTextError, ArmferryError)
