"""Names and kinds: complete for every recorded list, unique, and right where it matters."""

import pytest

from armferry.registers import (
    Accelerator,
    Kind,
    accelerator_of,
    describe,
    is_constant,
    kind,
    name,
    parse_register,
)
from armferry.registers.catalogue import named_encodings

TIMER_CNT = 0x603000000013DF1A
TIMER_CVAL = 0x603000000013DF02


def test_every_recorded_register_has_a_name_and_a_kind(recorded_indexes: tuple[int, ...]) -> None:
    assert len(recorded_indexes) == 674
    unknown = [name(index) for index in recorded_indexes if kind(index) is Kind.UNKNOWN]
    assert unknown == []


def test_what_has_no_name_of_its_own_is_reserved_or_of_the_model(
    recorded_indexes: tuple[int, ...],
) -> None:
    bare = [describe(i) for i in recorded_indexes if name(i) == describe(i).encoding]
    assert {register.kind for register in bare} == {Kind.RESERVED, Kind.IMPLEMENTATION_DEFINED}


@pytest.mark.parametrize("accelerator", [None, *Accelerator])
def test_names_are_unique_and_read_back(
    recorded_indexes: tuple[int, ...], accelerator: Accelerator | None
) -> None:
    names = {name(index, accelerator): index for index in recorded_indexes}
    assert len(names) == len(recorded_indexes)
    for text, index in names.items():
        assert parse_register(text, accelerator) == index
        assert parse_register(text.lower(), accelerator) == index


def test_the_whole_catalogue_reads_back() -> None:
    texts = named_encodings()
    assert len(set(texts.values())) == len(texts)
    for text in texts:
        index = parse_register(text)
        assert describe(index).encoding == text
        assert parse_register(name(index)) == index
        assert kind(index) is not Kind.UNKNOWN, name(index)


def test_a_register_of_the_future_is_named_by_its_encoding() -> None:
    register = describe(0x603000000013C5FF)
    assert register.name == register.encoding == "S3_0_C11_C15_7"
    assert register.kind is Kind.IMPLEMENTATION_DEFINED
    later = describe(0x603000000013C2EF)
    assert (later.name, later.kind, later.fields) == ("S3_0_C5_C13_7", Kind.UNKNOWN, ())
    assert not later.constant
    beyond = describe(0x7030000000FF0001)
    assert (beyond.name, beyond.kind) == ("0x7030000000ff0001", Kind.UNKNOWN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIDR_EL1", Kind.IDENTIFICATION),
        ("ID_AA64PFR0_EL1", Kind.IDENTIFICATION),
        ("ID_DFR0", Kind.IDENTIFICATION),
        ("MVFR2_EL1", Kind.IDENTIFICATION),
        ("CTR_EL0", Kind.IDENTIFICATION),
        ("DCZID_EL0", Kind.IDENTIFICATION),
        ("CLIDR", Kind.IDENTIFICATION),
        ("S3_0_C0_C7_7", Kind.RESERVED),
        ("p15,0,c0,c15,0", Kind.RESERVED),
        ("MPIDR_EL1", Kind.AFFINITY),
        ("MPIDR", Kind.AFFINITY),
        ("CSSELR_EL1", Kind.CONFIGURATION),
        ("RNDR", Kind.RANDOM),
        ("CCSIDR_EL1", Kind.CACHE_GEOMETRY),
        ("CCSIDR_L2D", Kind.CACHE_GEOMETRY),
        ("SCTLR_EL1", Kind.CONFIGURATION),
        ("TCR2_EL1", Kind.TRANSLATION),
        ("PIR_EL1", Kind.TRANSLATION),
        ("MAIR0", Kind.TRANSLATION),
        ("TTBR0_32_S", Kind.TRANSLATION),
        ("ESR_EL1", Kind.EXCEPTION),
        ("TPIDR_EL0", Kind.CONTEXT),
        ("APIAKEYLO_EL1", Kind.POINTER_AUTH_KEY),
        ("ZCR_EL1", Kind.VECTOR),
        ("Z31", Kind.VECTOR),
        ("PMCEID0_EL0", Kind.PMU),
        ("PMMIR_EL1", Kind.PMU),
        ("PM", Kind.CONTEXT),
        ("AMEVCNTR00_EL0", Kind.PMU),
        ("DBGDTRTX", Kind.DEBUG),
        ("MDSCR_EL1", Kind.DEBUG),
        ("TRCIDR0", Kind.TRACE),
        ("CNTKCTL_EL1", Kind.TIMER),
        ("CNTPCT_EL0", Kind.RUNNING_COUNTER),
        ("TIMER_CNT", Kind.RUNNING_COUNTER),
        ("TIMER_CVAL", Kind.TIMER),
        ("PMCCNTR_EL0", Kind.RUNNING_COUNTER),
        ("ICC_PMR_EL1", Kind.INTERRUPT_CONTROLLER),
        ("ERRIDR_EL1", Kind.RAS),
        ("HCR_EL2", Kind.HYPERVISOR),
        ("VPIDR_EL2", Kind.HYPERVISOR),
        ("HSCTLR", Kind.HYPERVISOR),
        ("SCTLR_EL12", Kind.HYPERVISOR),
        ("SCR_EL3", Kind.SECURE),
        ("MVBAR", Kind.SECURE),
        ("core.PC", Kind.CORE),
        ("PSCI_VERSION", Kind.FIRMWARE_VERSION),
        ("SMCCC_ARCH_WORKAROUND_3", Kind.FIRMWARE_VERSION),
        ("VENDOR_HYP_BMAP_2", Kind.FIRMWARE_BITMAP),
        ("CBAR_EL1", Kind.IMPLEMENTATION_DEFINED),
        ("IMP_CPUECTLR_EL1", Kind.IMPLEMENTATION_DEFINED),
        ("TLBI_IPAS2E1OS", Kind.INSTRUCTION),
    ],
)
def test_kind(text: str, expected: Kind) -> None:
    assert kind(parse_register(text)) is expected


@pytest.mark.parametrize(
    "text",
    [
        "MIDR_EL1",
        "ID_AA64DFR0_EL1",
        "ID_DFR0",
        "S3_0_C0_C7_7",
        "p15,0,c0,c9,0",
        "CCSIDR_L1D",
        "CLIDR_EL1",
        "CTR_EL0",
        "PMCEID0_EL0",
        "PMCEID2",
        "PMMIR_EL1",
        "RVBAR_EL1",
        "RVBAR_EL3",
        "CBAR_EL1",
        "L2CTLR",
        "IMP_CPUCFR_EL1",
        "DBGDIDR",
        "DBGDRAR_64",
        "DBGDEVID_QEMU",
        "ERRIDR_EL1",
        "MDRAR_EL1",
    ],
)
def test_constant(text: str) -> None:
    assert is_constant(parse_register(text))


@pytest.mark.parametrize(
    "text",
    [
        "MPIDR_EL1",
        "CSSELR_EL1",
        "VPIDR_EL2",
        "VMPIDR_EL2",
        "SCTLR_EL1",
        "OSLSR_EL1",
        "PMCR_EL0",
        "PSCI_VERSION",
        "STD_BMAP",
        "RNDR",
        "TIMER_CNT",
        "CNTFRQ_EL0",
        "TPIDR_EL0",
        "MVBAR",
        "DBGBCR0",
        "TCR2_EL1",
        "core.X0",
        "S3_0_C5_C13_7",
    ],
)
def test_not_constant(text: str) -> None:
    assert not is_constant(parse_register(text))


def test_the_swapped_timer_indexes_are_named_by_the_abi() -> None:
    # KVM_REG_ARM_TIMER_CNT is (3,3,14,3,2), KVM_REG_ARM_TIMER_CVAL is (3,3,14,0,2).
    assert (name(TIMER_CNT), kind(TIMER_CNT)) == ("TIMER_CNT", Kind.RUNNING_COUNTER)
    assert (name(TIMER_CVAL), kind(TIMER_CVAL)) == ("TIMER_CVAL", Kind.TIMER)
    assert name(TIMER_CNT, Accelerator.KVM) == "TIMER_CNT"
    assert describe(TIMER_CNT).encoding == "S3_3_C14_C3_2"
    assert describe(TIMER_CNT).note == (
        "under KVM the virtual counter (CNTVCT), under TCG CNTV_CVAL_EL0"
    )


def test_tcg_keeps_to_the_encoding_of_the_timers() -> None:
    assert name(TIMER_CNT, Accelerator.TCG) == "CNTV_CVAL_EL0"
    assert kind(TIMER_CNT, Accelerator.TCG) is Kind.TIMER
    assert name(TIMER_CVAL, Accelerator.TCG) == "CNTVCT_EL0"
    assert kind(TIMER_CVAL, Accelerator.TCG) is Kind.RUNNING_COUNTER


def test_the_accelerator_shows_in_the_list(recorded_lists: dict[str, tuple[int, ...]]) -> None:
    for label, indexes in recorded_lists.items():
        assert accelerator_of(indexes).value == label.partition("/")[0], label


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0x6020000000110000, "CCSIDR_L1D"),
        (0x6020000000110001, "CCSIDR_L1I"),
        (0x602000000011000C, "CCSIDR_L7D"),
        (0x6030000000140003, "SMCCC_ARCH_WORKAROUND_3"),
        (0x6030000000160003, "VENDOR_HYP_BMAP_2"),
        (0x6030000000100000, "core.X0"),
        (0x6030000000100040, "core.PC"),
        (0x6020000000100000 | 0xD5, "core.FPCR"),
        (0x606000000015FFFF, "SVE_VLS"),
        (0x6080000000150000 | 31 << 5, "Z31"),
        (0x6050000000150400, "P0"),
        (0x6050000000150600, "FFR"),
        (0x604000000013C100, "TTBR0_EL1:128"),
        (0x40200000200E0298, "DBGDTRTX"),
        (0x40200000200E0280, "DBGDTRTXINT"),
        (0x6030000000139820, "DBGDTR_EL0"),
        (0x40200000000F0800, "SCTLR_S"),
        (0x40200000200E0030, "TEECR"),
        (0x40200000200E0287 & ~3, "DBGBVR5"),
        (0x603000000013CF90, "CPUACTLR_EL1"),
        (0x603000000013C788, "IMP_CPUACTLR_EL1"),
    ],
)
def test_name(index: int, expected: str) -> None:
    assert name(index) == expected
    assert parse_register(expected) == index


def test_describe_says_it_all() -> None:
    register = describe(0x603000000013C103)
    assert (register.index, register.name, register.kind) == (
        0x603000000013C103,
        "TCR2_EL1",
        Kind.TRANSLATION,
    )
    assert (register.encoding, register.size, register.constant, register.note) == (
        "S3_0_C2_C0_3",
        8,
        False,
        "",
    )
    assert [field.name for field in register.fields][:3] == ["PnCH", "PIE", "E0POE"]


def test_sizes() -> None:
    assert describe(0x604000000013C100).size == 16
    assert describe(0x6020000000110000).size == 4
    assert describe(0x6080000000150000).size == 256


def test_kind_prints_as_its_word() -> None:
    assert f"{Kind.POINTER_AUTH_KEY}" == "pointer-auth key"


def test_encodings_read_back(recorded_indexes: tuple[int, ...]) -> None:
    for index in recorded_indexes:
        assert parse_register(describe(index).encoding) == index
