"""A cpu section by its bytes: where its register list is, where it ends, what follows it."""

import pytest

from armferry.registers import system_index
from armferry.stream import CorruptStream, CpuState, OversizedStream, read_cpu
from armferry.stream.description import DeviceLayout, layouts_of
from armferry.stream.events import DeviceSection
from armferry.stream.saved_state import cpus_of
from armferry.stream.wire import MAX_REGISTERS, MAX_REGISTERS_IN_ALL

USUAL = 568
BEHIND = 65
"""Bytes of the fields between the list and the subsections."""
INDEXES = tuple(system_index(3, 0, 0, number, 0) for number in range(4, 7))


def register_list(indexes: tuple[int, ...]) -> bytes:
    words = (*indexes, *range(100, 100 + len(indexes)))
    return len(indexes).to_bytes(4, "big") + b"".join(word.to_bytes(8, "big") for word in words)


def part(name: bytes, content: bytes) -> bytes:
    return b"\5" + bytes([len(name)]) + name + b"\0\0\0\1" + content


def section(
    payload: bytes, layout: DeviceLayout | None = None, *, instance: int = 0
) -> DeviceSection:
    return DeviceSection(0, 1, "cpu", instance, 22, 17, payload, layout)


def described(before: int, count: int) -> DeviceLayout:
    fields = [
        {"name": "rest", "size": before},
        {"name": "cpreg_vmstate_array_len", "size": 4},
        {"name": "cpreg_vmstate_indexes", "size": 8, "array_len": count},
        {"name": "cpreg_vmstate_values", "size": 8, "array_len": count},
        {"name": "rest", "size": BEHIND},
    ]
    return layouts_of({"devices": [{"name": "cpu", "instance_id": 0, "fields": fields}]}, 0)[0]


def values(cpu: CpuState) -> dict[int, int]:
    return dict(cpu.registers)


@pytest.mark.parametrize("place", [320, 321, 560, USUAL, 569, 600, 4000, 8000])
@pytest.mark.parametrize("count", [1, 3])
def test_a_list_is_found_wherever_it_stands(place: int, count: int) -> None:
    indexes = INDEXES[:count]
    payload = bytes(place) + register_list(indexes) + bytes(max(BEHIND, USUAL - place))
    cpu = read_cpu(section(payload[: place + 4 + 16 * count + BEHIND]))
    assert cpu.list_offset == place
    assert values(cpu) == dict(zip(indexes, range(100, 100 + count), strict=True))


def test_a_list_beyond_the_reach_is_none() -> None:
    payload = bytes(8192) + register_list(INDEXES) + bytes(BEHIND)
    with pytest.raises(CorruptStream, match="the cpu section holds no register list"):
        read_cpu(section(payload))


def test_the_fields_behind_the_list_must_be_whole() -> None:
    payload = bytes(USUAL) + register_list(INDEXES) + bytes(BEHIND)
    assert read_cpu(section(payload)).subsections == ()
    with pytest.raises(CorruptStream) as caught:
        read_cpu(section(payload[:-1]))
    assert str(caught.value) == (
        "the cpu section ends behind its register list "
        f"(at byte {17 + USUAL + 4 + 16 * 3}, section 'cpu' instance 0)"
    )


def test_a_description_that_names_another_list_is_not_believed() -> None:
    one = register_list(INDEXES)
    payload = bytes(USUAL) + one + one + bytes(BEHIND)
    with pytest.raises(CorruptStream) as caught:
        read_cpu(section(payload, described(USUAL + len(one), 3)))
    assert str(caught.value) == (
        "the description and the bytes disagree about where the register list is "
        f"(at byte {17 + USUAL + len(one)}, section 'cpu' instance 0)"
    )


def test_a_description_that_counts_otherwise_is_not_believed() -> None:
    payload = bytes(USUAL) + register_list(INDEXES) + bytes(BEHIND)
    assert values(read_cpu(section(payload, described(USUAL, 3))))
    with pytest.raises(CorruptStream) as caught:
        read_cpu(section(payload, described(USUAL, 2)))
    assert str(caught.value) == (
        "the register list has 3 entries, its description puts 2 of 8 bytes at "
        f"{USUAL + 4} (at byte {17 + USUAL}, section 'cpu' instance 0)"
    )


def test_what_only_looks_like_a_subsection_belongs_to_the_one_around_it() -> None:
    inner = part(b"cpu/one/deep", b"inside")
    for content in (b"a cpu/ and more", inner, b"\5\xffcpu/cut", b"\5\7cpu/\x01\x02\x03"):
        payload = bytes(USUAL) + register_list(INDEXES) + bytes(BEHIND)
        payload += part(b"cpu/one", content) + part(b"cpu/two", b"last")
        found = read_cpu(section(payload)).subsections
        assert [(one.name, one.payload) for one in found] == [
            ("cpu/one", content),
            ("cpu/two", b"last"),
        ]


def test_the_registers_of_all_vcpus_are_bounded() -> None:
    indexes = tuple(6 << 60 | number for number in range(MAX_REGISTERS))
    payload = bytes(USUAL) + register_list(indexes) + bytes(BEHIND)
    vcpus = MAX_REGISTERS_IN_ALL // MAX_REGISTERS
    sections = [section(payload, instance=number) for number in range(vcpus)]
    few = section(bytes(USUAL) + register_list(INDEXES) + bytes(BEHIND), instance=vcpus)
    with pytest.raises(OversizedStream) as caught:
        cpus_of([*sections, few], 0)
    assert str(caught.value) == (
        f"the vCPUs have more than 524288 registers (at byte 0, section 'cpu' instance {vcpus})"
    )
