"""Where one answer ends and the next begins: fields, numbers, CPU names, accelerators."""

import pytest

from armferry.registers import (
    Accelerator,
    FieldDifference,
    RegisterTextError,
    accelerator_of,
    encode,
    field_fits,
    name,
    parse_register,
)
from armferry.registers.fields import Field, Safer
from armferry.registers.index import Arm64System, Core, Cp32, Demux, Firmware, FirmwareBitmap, Sve
from armferry.registers.midr import identify, processor_list
from armferry.registers.spellings import from_key


@pytest.mark.parametrize(
    ("safer", "left", "right", "fits"),
    [
        (Safer.LOWER, 1, 2, True),
        (Safer.LOWER, 2, 2, True),
        (Safer.LOWER, 2, 1, False),
        (Safer.HIGHER, 2, 1, True),
        (Safer.HIGHER, 2, 2, True),
        (Safer.HIGHER, 1, 2, False),
        (Safer.HIGHER_OR_ZERO, 0, 2, True),
        (Safer.HIGHER_OR_ZERO, 2, 1, True),
        (Safer.HIGHER_OR_ZERO, 2, 2, True),
        (Safer.HIGHER_OR_ZERO, 2, 0, False),
        (Safer.HIGHER_OR_ZERO, 1, 2, False),
        (Safer.SUPERSET, 0b101, 0b111, True),
        (Safer.SUPERSET, 0b101, 0b101, True),
        (Safer.SUPERSET, 0b101, 0b110, False),
        (Safer.EQUAL, 1, 1, False),
    ],
)
def test_a_field_that_is_at_least_as_good(safer: Safer, left: int, right: int, fits: bool) -> None:
    field = Field("field", 0, 4, safer=safer)
    assert field_fits(FieldDifference(field, left, right)) is fits


def test_a_whole_list_of_system_registers_alone_is_of_hvf() -> None:
    plain = [encode(Arm64System(3, 0, crn, crm, 0)) for crn in range(2) for crm in range(15)]
    assert accelerator_of(plain) is Accelerator.HVF
    assert accelerator_of(plain[:-1]) is Accelerator.TCG
    assert accelerator_of([*plain, encode(Cp32(15, 0, 1, 0, 0))]) is Accelerator.TCG
    for one in (Firmware(0), Demux(0, 1), Core(0, 8)):
        assert accelerator_of([*plain, encode(one)]) is Accelerator.KVM


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("demux:255:255:32", Demux(255, 255, 4)),
        ("fw:65535", Firmware(0xFFFF)),
        ("core:65535:64", Core(0xFFFF, 8)),
        ("sve:65535:512", Sve(0xFFFF, 64)),
    ],
)
def test_the_greatest_numbers(text: str, encoding: Demux | Firmware | Core | Sve) -> None:
    assert name(parse_register(text)) == name(encode(encoding))


@pytest.mark.parametrize(
    "text", ["demux:256:0:32", "demux:0:256:32", "fw:65536", "core:65536:64", "sve:65536:64"]
)
def test_numbers_beyond(text: str) -> None:
    with pytest.raises(RegisterTextError):
        parse_register(text)


@pytest.mark.parametrize(
    ("offset", "size", "text"),
    [
        (60, 8, "core.X30"),
        (62, 8, "core.SP"),
        (80, 8, "core.SPSR_FIQ"),
        (84, 16, "core.V0"),
        (208, 16, "core.V31"),
        (212, 4, "core.FPSR"),
        (213, 4, "core.FPCR"),
    ],
)
def test_core_registers_have_the_names_of_the_headers(offset: int, size: int, text: str) -> None:
    assert name(encode(Core(offset, size))) == text
    assert parse_register(text) == encode(Core(offset, size))


def test_a_key_has_32_bits() -> None:
    assert from_key(0x1013C030) == parse_register("ID_AA64ISAR0_EL1")
    for key in (1 << 32 | 0x1013C030, 0x1113C030, 0xFFFFFFFF, 0):
        assert from_key(key) is None


@pytest.mark.parametrize(
    ("midr", "text"),
    [
        (0x413FD0C1, "Arm Neoverse N1 r3p1"),
        (0x410FD083, "Arm Cortex-A72 r0p3"),
        (0x461F0010, "Fujitsu A64FX r1p0"),
        (0x481FD010, "HiSilicon Kunpeng 920 r1p0"),
        (0x4E0F0040, "NVIDIA Carmel r0p0"),
        (0x510FC000, "Qualcomm Falkor r0p0"),
        (0x610F0230, "Apple M1 Firestorm r0p0"),
        (0x6D0FD490, "Microsoft Cobalt 100 r0p0"),
        (0xC00FAC30, "Ampere AmpereOne r0p0"),
        (0x420F0001, "Broadcom part 0x000 r0p1"),
        (0x7F0FFFF0, "implementer 0x7f part 0xfff r0p0"),
    ],
)
def test_cpus_by_their_number(midr: int, text: str) -> None:
    assert identify(midr).text == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((), ""),
        ((0,), "0"),
        ((3, 1, 2), "1-3"),
        ((0, 1, 2, 3, 6), "0-3,6"),
        ((0, 2, 4), "0,2,4"),
        ((5, 6, 8, 9), "5-6,8-9"),
    ],
)
def test_processors_as_taskset_takes_them(numbers: tuple[int, ...], text: str) -> None:
    assert processor_list(numbers) == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        (Firmware(3), "SMCCC_ARCH_WORKAROUND_3"),
        (Firmware(4), "fw:4"),
        (FirmwareBitmap(3), "VENDOR_HYP_BMAP_2"),
        (FirmwareBitmap(4), "fwbitmap:4"),
        (Sve(1 << 10 | 16 << 5, 32), "FFR"),
        (Sve(1 << 10 | 17 << 5, 32), "sve:1568:256"),
        (Sve(2 << 10, 32), "sve:2048:256"),
        (Sve(0, 32), "sve:0:256"),
    ],
)
def test_behind_the_last_name_of_a_kind_the_encoding_is_the_name(
    encoding: Firmware | FirmwareBitmap | Sve, text: str
) -> None:
    assert name(encode(encoding)) == text
    assert parse_register(text) == encode(encoding)
