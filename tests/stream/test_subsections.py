"""Subsections of any section: found where the description puts them, and taken out."""

import pytest

from armferry.stream.description import DeviceLayout, FieldLayout, StructLayout
from armferry.stream.errors import CorruptStream
from armferry.stream.events import DeviceSection
from armferry.stream.subsections import described_without, payload_without, subsections_of

INNER = StructLayout("chip_cpu/nmi", 1, (FieldLayout("word", "uint32", 4, 1),), ())
CPU = StructLayout("chip_cpu", 1, (FieldLayout("level", "uint16", 2, 1),), (INNER,))
CPU_LENGTH = 2 + 6 + len("chip_cpu/nmi") + 4
OUTER = StructLayout("chip/more", 1, (FieldLayout("bits", "buffer", 8, 1),), ())
STATE = StructLayout(
    "chip",
    1,
    (FieldLayout("cpu", "struct", CPU_LENGTH, 2, CPU), FieldLayout("end", "uint8", 1, 1)),
    (OUTER,),
)


def part(name: str, content: bytes) -> bytes:
    return b"\x05" + bytes([len(name)]) + name.encode() + b"\0\0\0\1" + content


PAYLOAD = b"".join(
    (
        *(b"aa", part("chip_cpu/nmi", b"1111")),
        *(b"bb", part("chip_cpu/nmi", b"2222")),
        *(b"e", part("chip/more", b"12345678")),
    )
)


def section(payload: bytes = PAYLOAD, *, described: bool = True) -> DeviceSection:
    layout = DeviceLayout("chip", 3, 1, STATE) if described else None
    return DeviceSection(100, 7, "chip", 3, 1, 120, payload, layout)


def test_every_subsection_is_found_in_the_order_of_the_stream() -> None:
    found = subsections_of(section())
    assert [(one.name, one.content) for one in found] == [
        ("chip_cpu/nmi", b"1111"),
        ("chip_cpu/nmi", b"2222"),
        ("chip/more", b"12345678"),
    ]
    assert all(PAYLOAD[one.begin] == 5 for one in found)
    assert found[-1].end == len(PAYLOAD)


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (set(), PAYLOAD),
        ({"chip/none"}, PAYLOAD),
        ({"chip/more"}, PAYLOAD[: -len(part("chip/more", b"12345678"))]),
        ({"chip_cpu/nmi"}, b"aabbe" + part("chip/more", b"12345678")),
        ({"chip_cpu/nmi", "chip/more"}, b"aabbe"),
    ],
)
def test_the_rest_stays_to_the_byte(names: set[str], left: bytes) -> None:
    assert payload_without(section(), names) == left


def test_without_a_description_nothing_is_found() -> None:
    assert subsections_of(section(described=False)) == ()
    assert payload_without(section(described=False), {"chip/more"}) == PAYLOAD


@pytest.mark.parametrize("at", [2, 3, 4, len(PAYLOAD) - 20])
def test_bytes_that_are_no_subsection_are_named(at: int) -> None:
    wrong = bytearray(PAYLOAD)
    wrong[at] ^= 1
    with pytest.raises(CorruptStream) as caught:
        subsections_of(section(bytes(wrong)))
    assert "begins where one is expected" in str(caught.value)
    assert "chip" in str(caught.value)


def test_a_payload_that_ends_early_is_corrupt() -> None:
    with pytest.raises(CorruptStream):
        subsections_of(section(PAYLOAD[:4]))


def test_the_description_is_shortened_with_it() -> None:
    nmi = {"vmsd_name": "chip_cpu/nmi", "fields": [{"name": "word", "size": 4}]}
    cpu = {"vmsd_name": "chip_cpu", "fields": [{"name": "level", "size": 2}], "subsections": [nmi]}
    more = {"vmsd_name": "chip/more", "fields": [{"name": "bits", "size": 8}]}
    field = {"name": "cpu", "array_len": 2, "size": CPU_LENGTH, "struct": cpu}
    device = {"name": "chip", "fields": [field, {"name": "end", "size": 1}], "subsections": [more]}
    assert described_without(device, frozenset()) == device
    assert described_without(device, {"chip_cpu/nmi", "chip/more"}) == {
        "name": "chip",
        "fields": [
            {
                "name": "cpu",
                "array_len": 2,
                "size": 2,
                "struct": {"vmsd_name": "chip_cpu", "fields": [{"name": "level", "size": 2}]},
            },
            {"name": "end", "size": 1},
        ],
    }
