"""A saved state with other register lists, checked by a reader that shares no code with it."""

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armferry.stream import CpuEdit, StateEdit, Window, old_tail, read_saved, rewrite_tail
from armferry.stream.subsections import subsections_of

Named = Callable[[str], bytes]
WindowOn = Callable[[bytes], Window]

NAMES = (
    "tcg_5.2.0_virt-5.2_cortex-a57_2",
    "tcg_10.0.13_virt-10.0_cortex-a57_8",
    "kvm_6.12_neoverse-n1_10.0.13",
    "virtio-mem",
)


class DescribedWalk:
    """Reads device sections as the description says, field after field, as an analyser does."""

    def __init__(self, stream: bytes) -> None:
        self.stream = stream
        mark = stream.rindex(b"\0\6")
        while True:
            (length,) = struct.unpack_from(">I", stream, mark + 2)
            if mark + 6 + length == len(stream):
                break
            mark = stream.rindex(b"\0\6", 0, mark)
        self.end = mark
        self.document: dict[str, Any] = json.loads(stream[mark + 6 :])

    def lists(self, begin: int) -> dict[int, dict[int, int]]:
        """Instance to register list; fails unless every byte up to the end mark is described."""
        devices = {(d["name"], d["instance_id"]): d for d in self.document["devices"]}
        found: dict[int, dict[int, int]] = {}
        at = begin
        while at < self.end:
            assert self.stream[at] == 4
            number = self.stream[at + 1 : at + 5]
            size = self.stream[at + 5]
            name = self.stream[at + 6 : at + 6 + size].decode()
            instance, _ = struct.unpack_from(">II", self.stream, at + 6 + size)
            device = devices[name, instance]
            values: dict[str, list[bytes]] = {}
            at = self._struct(at + 14 + size, device, values)
            assert self.stream[at : at + 5] == b"\x7e" + number
            at += 5
            if name == "cpu":
                (count,) = struct.unpack(">i", values["cpreg_vmstate_array_len"][0])
                words = [
                    [struct.unpack(">Q", raw)[0] for raw in values[key]]
                    for key in ("cpreg_vmstate_indexes", "cpreg_vmstate_values")
                ]
                assert count == len(words[0]) == len(words[1])
                found[instance] = dict(zip(*words, strict=True))
        assert at == self.end
        return found

    def _struct(self, at: int, struct_: Any, values: dict[str, list[bytes]]) -> int:
        for field in struct_["fields"]:
            for _ in range(field.get("array_len", 1)):
                raw = self.stream[at : at + field["size"]]
                values.setdefault(field["name"], []).append(raw)
                at += field["size"]
        for part in struct_.get("subsections", ()):
            name = part["vmsd_name"].encode()
            assert self.stream[at : at + 2 + len(name)] == bytes([5, len(name)]) + name
            at = self._struct(at + 6 + len(name), part, values)
        return at


def test_the_old_end_is_that_of_the_stream(recorded: bytes, window_on: WindowOn) -> None:
    saved = read_saved(window_on(recorded))
    tail = old_tail(saved)
    assert tail.offset == saved.state_offset
    if not saved.postcopy:
        assert recorded[tail.offset :] == tail.data


@pytest.mark.parametrize("name", NAMES)
def test_the_same_lists_change_nothing(slim_named: Named, window_on: WindowOn, name: str) -> None:
    saved = read_saved(window_on(slim_named(name)))
    assert rewrite_tail(saved, StateEdit([CpuEdit(cpu.registers) for cpu in saved.cpus])) is None


@given(name=st.sampled_from(NAMES), data=st.data())
@settings(
    max_examples=3 * settings().max_examples // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_new_lists_arrive_and_nothing_else_changes(
    slim_named: Named, window_on: WindowOn, name: str, data: st.DataObject
) -> None:
    stream = slim_named(name)
    saved = read_saved(window_on(stream))
    words = st.integers(0, (1 << 64) - 1)
    indexes = st.integers(0, (1 << 60) - 1).map(lambda low: low | 6 << 60)
    extra = data.draw(st.dictionaries(indexes, words, max_size=30))
    wanted = []
    for cpu in saved.cpus:
        kept = dict(list(cpu.registers.items())[data.draw(st.integers(0, 200)) :])
        wanted.append(dict(sorted({**kept, **extra}.items())))
    tail = rewrite_tail(saved, StateEdit([CpuEdit(registers) for registers in wanted]))
    if tail is None:
        assert wanted == [dict(cpu.registers) for cpu in saved.cpus]
        return
    new = stream[: tail.offset] + tail.data
    walk = DescribedWalk(new).lists(saved.state_offset)
    assert [walk[cpu.instance] for cpu in saved.cpus] == wanted
    again = read_saved(window_on(new))
    assert [dict(cpu.registers) for cpu in again.cpus] == wanted
    assert new[: saved.state_offset] == stream[: saved.state_offset]
    for old_section, new_section in zip(saved.sections, again.sections, strict=True):
        assert (old_section.name, old_section.id) == (new_section.name, new_section.id)
        if old_section.name != "cpu":
            assert old_section.payload == new_section.payload
    # and the way back restores every byte but the spaces of the oldest QEMU's description
    back = rewrite_tail(again, StateEdit([CpuEdit(cpu.registers) for cpu in saved.cpus]))
    assert back is not None
    restored = new[: back.offset] + back.data
    assert restored[: saved.end_offset + 1] == stream[: saved.end_offset + 1]
    assert json.loads(restored[saved.end_offset + 6 :]) == saved.description


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_list_put_back_gives_every_byte_back(
    slim_named: Named, window_on: WindowOn, name: str
) -> None:
    stream = slim_named(name)
    saved = read_saved(window_on(stream))
    old = StateEdit([CpuEdit(cpu.registers) for cpu in saved.cpus])
    tail = rewrite_tail(saved, StateEdit([CpuEdit({0x603000000013C103: 1})] * len(old.cpus)))
    assert tail is not None
    new = stream[: tail.offset] + tail.data
    back = rewrite_tail(read_saved(window_on(new)), old)
    assert back is not None
    assert new[: back.offset] + back.data == stream


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("described", [True, False])
def test_a_subsection_is_taken_out_and_a_word_put_in(
    slim_named: Named, window_on: WindowOn, name: str, described: bool
) -> None:
    stream = slim_named(name)
    if not described:
        stream = stream[: read_saved(window_on(stream)).end_offset + 1]
    saved = read_saved(window_on(stream))
    before = [part.name for part in saved.cpus[0].subsections]
    assert "cpu/vfp" in before
    edits = [CpuEdit(cpu.registers, frozenset({"cpu/vfp"}), 0x1234) for cpu in saved.cpus]
    tail = rewrite_tail(saved, StateEdit(edits))
    assert tail is not None
    new = stream[: tail.offset] + tail.data
    again = read_saved(window_on(new))
    for old, cpu in zip(saved.cpus, again.cpus, strict=True):
        assert cpu.features == 0x1234
        assert cpu.registers == old.registers
        left = [part for part in old.subsections if part.name != "cpu/vfp"]
        assert [(part.name, part.payload) for part in cpu.subsections] == [
            (part.name, part.payload) for part in left
        ]
    if described:
        assert DescribedWalk(new).lists(saved.state_offset)


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_subsection_of_another_section_is_taken_out(
    slim_named: Named, window_on: WindowOn, name: str
) -> None:
    stream = slim_named(name)
    saved = read_saved(window_on(stream))
    edits = [CpuEdit(cpu.registers) for cpu in saved.cpus]
    gone = frozenset({"pl011/clock"})
    tail = rewrite_tail(saved, StateEdit(edits, {("pl011", 0): gone}))
    assert tail is not None
    new = stream[: tail.offset] + tail.data
    DescribedWalk(new).lists(saved.state_offset)
    again = read_saved(window_on(new))
    for old, now in zip(saved.sections, again.sections, strict=True):
        if old.name == "pl011":
            assert old.payload.startswith(now.payload)
            assert b"pl011/clock" in old.payload[len(now.payload) :]
            assert subsections_of(now) == ()
        else:
            assert now.payload == old.payload


def test_a_cpu_without_subsections_is_rewritten_again(
    slim_named: Named, window_on: WindowOn
) -> None:
    stream = slim_named(NAMES[0])
    saved = read_saved(window_on(stream))
    for dropped in range(2):
        edits = []
        for cpu in saved.cpus:
            parts = frozenset(part.name for part in cpu.subsections)
            assert bool(parts) is (dropped == 0)
            edits.append(CpuEdit(dict([*cpu.registers.items()][dropped:]), parts))
        tail = rewrite_tail(saved, StateEdit(edits))
        assert tail is not None
        stream = stream[: tail.offset] + tail.data
        walk = DescribedWalk(stream)
        cpus = [one for one in walk.document["devices"] if one["name"] == "cpu"]
        assert [one for one in cpus if "subsections" in one] == []
        assert [*walk.lists(saved.state_offset).values()] == [edit.registers for edit in edits]
        saved = read_saved(window_on(stream))
