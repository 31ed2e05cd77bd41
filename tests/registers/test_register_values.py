"""Values taken apart: fields with sign, differences, firmware words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.registers import (
    Accelerator,
    AmbiguousRegister,
    Field,
    PsciVersionError,
    Safer,
    Sign,
    bitmap_services,
    counts_vcpus,
    decode_fields,
    describe,
    differing_fields,
    explain_value,
    names_cpu,
    parse_register,
    psci_version,
    psci_version_text,
)
from armferry.registers.data_files import load

WORD = st.integers(min_value=0, max_value=2**64 - 1)


def field(register: str, name: str) -> Field:
    fields = describe(parse_register(register)).fields
    return next(one for one in fields if one.name == name)


def test_midr_of_a_cortex_a57() -> None:
    values = {
        one.name: value for one, value in decode_fields(parse_register("MIDR_EL1"), 0x411FD070)
    }
    assert values == {
        "Revision": 0,
        "PartNum": 0xD07,
        "Architecture": 0xF,
        "Variant": 1,
        "Implementer": 0x41,
    }


def test_the_aarch64_view_of_an_aarch32_register_has_its_fields() -> None:
    assert (
        describe(parse_register("ID_DFR0_EL1")).fields == describe(parse_register("ID_DFR0")).fields
    )
    assert describe(parse_register("SCTLR_S")).fields == describe(parse_register("SCTLR")).fields
    assert field("CCSIDR_L1D", "LineSize").low == 0
    assert describe(parse_register("TIMER_CNT")).fields == ()


@pytest.mark.parametrize(
    ("register", "name"),
    [
        ("ID_AA64PFR0_EL1", "FP"),
        ("ID_AA64PFR0_EL1", "AdvSIMD"),
        ("ID_AA64MMFR0_EL1", "TGran4"),
        ("ID_AA64MMFR0_EL1", "TGran64"),
        ("ID_AA64PFR1_EL1", "MTE_frac"),
        ("ID_AA64DFR0_EL1", "DoubleLock"),
        ("ID_AA64DFR0_EL1", "MTPMU"),
        ("ID_AA64MMFR4_EL1", "E2H0"),
        ("ID_DFR1", "MTPMU"),
        ("ID_MMFR0_EL1", "InnerShr"),
        ("ID_MMFR0_EL1", "OuterShr"),
    ],
)
def test_signed_fields(register: str, name: str) -> None:
    signed = field(register, name)
    assert signed.sign is Sign.SIGNED
    assert signed.of(0xF << signed.low) == -1
    assert signed.of(0x8 << signed.low) == -8
    assert signed.raw(0xF << signed.low) == 0xF
    assert signed.of(0x7 << signed.low) == 7


@pytest.mark.parametrize(
    ("register", "name"),
    [("ID_AA64PFR0_EL1", "SVE"), ("ID_AA64MMFR0_EL1", "TGran16"), ("ID_AA64ISAR0_EL1", "RNDR")],
)
def test_unsigned_fields(register: str, name: str) -> None:
    unsigned = field(register, name)
    assert unsigned.sign is Sign.UNSIGNED
    assert unsigned.of(0xF << unsigned.low) == 15


@pytest.mark.parametrize(
    ("register", "name"), [("ID_AA64DFR0_EL1", "PMUVer"), ("ID_DFR0_EL1", "PerfMon")]
)
def test_version_of_the_pmu_has_one_value_that_is_none(register: str, name: str) -> None:
    version = field(register, name)
    assert version.sign is Sign.ALL_ONES
    assert [version.of(raw << version.low) for raw in (0, 7, 8, 9, 0xE, 0xF)] == [
        0, 7, 8, 9, 14, -1,
    ]  # fmt: skip


def test_which_way_a_field_may_differ() -> None:
    assert field("ID_AA64ISAR0_EL1", "AES").safer is Safer.LOWER
    assert field("ID_AA64MMFR1_EL1", "SpecSEI").safer is Safer.HIGHER
    assert field("ID_MMFR4_EL1", "SpecSEI").safer is Safer.HIGHER
    assert field("ID_AA64ISAR1_EL1", "APA").safer is Safer.EQUAL
    assert field("CTR_EL0", "L1Ip").safer is Safer.EQUAL
    assert field("CTR_EL0", "CWG").safer is Safer.HIGHER_OR_ZERO
    assert field("ID_AA64ISAR2_EL1", "BC").safer is Safer.LOWER
    assert {one.safer for one in describe(parse_register("MIDR_EL1")).fields} == {Safer.EQUAL}


def test_differing_fields_are_named() -> None:
    index = parse_register("ID_AA64DFR0_EL1")
    found = differing_fields(index, 0x10305106, 0x10305F06)
    assert [(one.field.name, one.left, one.right) for one in found] == [("PMUVer", 1, -1)]


def test_bits_outside_every_field_are_not_hidden() -> None:
    found = differing_fields(parse_register("TCR2_EL1"), 0, 1 | 0b110 << 6 | 1 << 63)
    assert [(one.field.name, one.left, one.right) for one in found] == [
        ("PnCH", 0, 1),
        ("bits 8:7", 0, 3),
        ("bit 63", 0, 1),
    ]


@given(WORD, WORD)
def test_differences_account_for_every_bit(left: int, right: int) -> None:
    for register in ("ID_AA64PFR0_EL1", "SCTLR_EL1", "PAR_EL1", "TPIDR_EL0", "S3_0_C5_C13_7"):
        covered = 0
        for one in differing_fields(parse_register(register), left, right):
            assert one.left != one.right
            covered |= one.field.mask
        assert not (left ^ right) & ~covered


def test_every_register_with_fields_is_in_the_catalogue() -> None:
    for name in load("fields.json")["fields"]:
        try:
            indexes: tuple[int, ...] = (parse_register(name, Accelerator.TCG),)
        except AmbiguousRegister as error:
            indexes = error.candidates
        for index in indexes:
            register = describe(index, Accelerator.TCG)
            assert register.fields, name
            assert len({one.name for one in register.fields}) == len(register.fields)
            # A 32-bit form shares the table of its 64-bit twin.
            bits = 64 if register.name.endswith("_32") else 8 * register.size
            assert max(one.low + one.width for one in register.fields) <= bits, name


@given(st.integers(0, 0x7FFF), st.integers(0, 0xFFFF))
def test_psci_version_round_trips(major: int, minor: int) -> None:
    value = major << 16 | minor
    assert psci_version(psci_version_text(value)) == value


def test_psci_version_of_a_kernel() -> None:
    assert psci_version_text(0x10003) == "1.3"
    assert psci_version("1.1") == 0x10001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", "PSCI version '1' is not MAJOR.MINOR, as in 1.1"),
        ("one.two", "PSCI version 'one.two' is not MAJOR.MINOR, as in 1.1"),
        ("1.²", "PSCI version '1.²' is not MAJOR.MINOR, as in 1.1"),
        ("32768.0", "PSCI version '32768.0' is out of range: 32767.65535 is the last"),
    ],
)
def test_psci_version_refused(text: str, message: str) -> None:
    with pytest.raises(PsciVersionError) as caught:
        psci_version(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("register", "value", "words"),
    [
        ("PSCI_VERSION", 0x10003, "PSCI 1.3"),
        ("SMCCC_ARCH_WORKAROUND_1", 2, "not required"),
        ("SMCCC_ARCH_WORKAROUND_2", 0, "not available"),
        ("SMCCC_ARCH_WORKAROUND_2", 0x12, "available, enabled"),
        ("SMCCC_ARCH_WORKAROUND_3", 1, "available"),
        ("SMCCC_ARCH_WORKAROUND_3", 9, "level 9"),
        ("STD_BMAP", 1, "TRNG_V1_0"),
        ("STD_HYP_BMAP", 1, "PV_TIME"),
        ("VENDOR_HYP_BMAP", 3, "FUNC_FEAT, PTP"),
        ("VENDOR_HYP_BMAP_2", 0, "no services"),
        ("VENDOR_HYP_BMAP_2", 1 << 9 | 1, "DISCOVER_IMPL_VER, bit 9"),
        ("MIDR_EL1", 0x411FD070, "Arm Cortex-A57 r1p0"),
        ("SCTLR_EL1", 1, ""),
    ],
)
def test_firmware_values_in_words(register: str, value: int, words: str) -> None:
    assert explain_value(parse_register(register), value) == words


def test_services_of_a_bitmap() -> None:
    assert bitmap_services(parse_register("VENDOR_HYP_BMAP"), 0b10) == ("PTP",)


@pytest.mark.parametrize(
    ("register", "of_the_cpu", "with_its_vcpus", "of_firmware"),
    [
        ("MIDR_EL1", True, False, False),
        ("CCSIDR_L1D", True, False, False),
        ("ID_AA64PFR0_EL1", False, False, False),
        ("s3_1_c11_c0_2", False, True, False),
        ("PSCI_VERSION", False, False, True),
        ("STD_BMAP", False, False, True),
    ],
)
def test_what_kind_of_thing_a_register_says(
    register: str, of_the_cpu: bool, with_its_vcpus: bool, of_firmware: bool
) -> None:
    index = parse_register(register)
    assert names_cpu(index) is of_the_cpu
    assert counts_vcpus(index) is with_its_vcpus
    assert describe(index).kind.is_firmware is of_firmware
