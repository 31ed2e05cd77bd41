"""The codec: both directions, for every layout and for anything that fits none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.registers import (
    Arm64System,
    Core,
    Cp32,
    Cp64,
    Demux,
    Encoding,
    Firmware,
    FirmwareBitmap,
    Sve,
    Unknown,
    decode,
    encode,
    encoding_text,
    parse_register,
    system_index,
)

# Each row is a fact of the KVM user API or of a recorded stream.
LAYOUTS: list[tuple[int, Encoding, str]] = [
    (0x603000000013C103, Arm64System(3, 0, 2, 0, 3), "S3_0_C2_C0_3"),
    (0x604000000013C100, Arm64System(3, 0, 2, 0, 0, 16), "S3_0_C2_C0_0:128"),
    (0x603000000013DF1A, Arm64System(3, 3, 14, 3, 2), "S3_3_C14_C3_2"),
    (0x6030000000100042, Core(0x42, 8), "core:66:64"),
    (0x6020000000110003, Demux(0, 3), "demux:0:3:32"),
    (0x6030000000140000, Firmware(0), "fw:0"),
    (0x6030000000160003, FirmwareBitmap(3), "fwbitmap:3"),
    (0x606000000015FFFF, Sve(0xFFFF, 64), "sve:65535:512"),
    (0x6080000000150020, Sve(0x20, 256), "sve:32:2048"),
    (0x40200000200E0298, Cp32(14, 3, 0, 5, 0), "p14,3,c0,c5,0"),
    (0x40200000000F0800, Cp32(15, 0, 1, 0, 0, False), "p15,0,c1,c0,0,s"),
    (0x40300000200F0788, Cp64(15, 1, 15), "p15,1,c15"),
    (0x40300000000F0380, Cp64(15, 0, 7, False), "p15,0,c7,s"),
]


@pytest.mark.parametrize(("index", "encoding", "text"), LAYOUTS)
def test_layout(index: int, encoding: Encoding, text: str) -> None:
    assert decode(index) == encoding
    assert encode(encoding) == index
    assert encoding_text(encoding) == text
    assert parse_register(text) == index


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_any_number_round_trips(index: int) -> None:
    assert encode(decode(index)) == index


@st.composite
def plausible_indexes(draw: st.DrawFn) -> int:
    """Numbers near the layouts: random ones hardly ever leave `Unknown`."""
    frame = draw(st.sampled_from([6 << 60, 4 << 60, 4 << 60 | 1 << 29, 6 << 60 | 1 << 29]))
    size = draw(st.integers(0, 15))
    group = draw(st.sampled_from([0x0E, 0x0F, 0x10, 0x11, 0x13, 0x14, 0x15, 0x16, 0x17]))
    return frame | size << 52 | group << 16 | draw(st.integers(0, 0xFFFF))


@given(plausible_indexes())
def test_plausible_numbers_round_trip(index: int) -> None:
    encoding = decode(index)
    assert encode(encoding) == index
    assert parse_register(encoding_text(encoding)) == index


@given(plausible_indexes(), st.integers(0, 63))
def test_no_bit_is_lost(index: int, bit: int) -> None:
    assert decode(index) != decode(index ^ 1 << bit)


@pytest.mark.parametrize(
    "index",
    [
        0,
        0x603000000017C103,  # no such class
        0x605000000013C103,  # a system register of 32 bytes
        0x603000002013C103,  # the bank bit on an AArch64 register
        0x40300000200F0001,  # a 64-bit AArch32 register with opc2
        0x40200000200F8000,  # bit 15 of a 32-bit one
        0x40300000200D0000,  # cp13
    ],
)
def test_what_fits_no_layout_keeps_its_number(index: int) -> None:
    assert decode(index) == Unknown(index)
    assert encoding_text(decode(index)) == f"0x{index:016x}"


@pytest.mark.parametrize("index", [-1, 2**64])
def test_more_than_64_bits_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="does not fit in 64 bits"):
        decode(index)


def test_cache_level_and_type_of_a_ccsidr() -> None:
    data, instruction, second = (Demux(0, selector) for selector in (0, 1, 2))
    assert (data.level, data.instruction) == (1, False)
    assert (instruction.level, instruction.instruction) == (1, True)
    assert (second.level, second.instruction) == (2, False)


def test_system_index() -> None:
    assert system_index(3, 0, 2, 0, 3) == 0x603000000013C103


def test_recorded_lists_decode_to_defined_layouts(
    recorded_lists: dict[str, tuple[int, ...]],
) -> None:
    for label, indexes in recorded_lists.items():
        assert list(indexes) == sorted(set(indexes)), label
        for index in indexes:
            assert not isinstance(decode(index), Unknown), f"{label}: {index:#x}"
            assert encode(decode(index)) == index
