"""The `cpu` section: where its register list lies, and the section with another list.

Knows three fields of vmstate_arm_cpu (version 22): cpreg_vmstate_array_len (be32),
cpreg_vmstate_indexes and cpreg_vmstate_values (be64 each), and the program counter, the
env.features word and where subsections begin and end. Everything else of the section is carried
as it is. The list is found through the description, or, without one, by its structure; where both
exist they must agree.

Indexes ascend, but for those of HVF up to QEMU 10.1, which stand in the order of a table of QEMU's
(target/arm/hvf/hvf.c): a list's order is kept, for the destination compares by place.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from armferry.stream.description import (
    SUBSECTION_HEADER,
    DeviceLayout,
    FieldLayout,
    StructLayout,
)
from armferry.stream.errors import CorruptStream, OversizedStream, UnsupportedStream
from armferry.stream.events import DeviceSection, Subsection
from armferry.stream.wire import BE32, BE64, MAX_REGISTERS, SectionType

__all__ = ["CPU_SECTION", "CpuEdit", "CpuState", "read_cpu", "rewrite_cpu"]

CPU_SECTION = "cpu"
CPU_VERSION = 22

_LENGTH_FIELD = "cpreg_vmstate_array_len"
_INDEX_FIELD = "cpreg_vmstate_indexes"
_VALUE_FIELD = "cpreg_vmstate_values"
_USUAL_OFFSET = 568
"""Payload offset of the list in QEMU 5.2 to 11.1."""
_PC_OFFSET = 16 * 4 + 32 * 8
"""env.regs and env.xregs come before env.pc."""
_PC_IN_REGS = slice(15 * 4, 16 * 4)
"""R15 of AArch32, which holds the entry point after reset."""
_ARCHES = (0x4, 0x6)
_SYSTEM_64 = 0x6030_0000_0013
_SCAN_LIMIT = 8_192
_FEATURES_FIELD = "env.features"
_FEATURES_OFFSET = 3 * 8
"""Bytes from the end of the list: after exclusive_addr, exclusive_val and exclusive_high."""
_SUBSECTION_PREFIX = b"cpu/"
_AFTER_LIST = _FEATURES_OFFSET + 8 + 4 + 4 + 8 + 2 * 8 + 1
"""Bytes of the fields behind the list: those three, env.features (8), the exception's syndrome (4),
fsr (4) and vaddress (8), two timers (16) and power_state (1); the same in QEMU 5.2 to 11.1."""


@dataclass(frozen=True, slots=True)
class CpuState:
    """One vCPU's register list and where it lies.

    `list_offset` is the payload offset of the list's be32 length; `list_length` its bytes, all
    three fields together. `registers` maps index to value, in the order of the list. `pc` is the
    program counter.
    """

    section: DeviceSection
    list_offset: int
    registers: Mapping[int, int]
    pc: int

    @property
    def instance(self) -> int:
        """The vCPU's number."""
        return self.section.instance

    @property
    def untouched(self) -> bool:
        """Whether every general register is 0, as after reset: programs leave something there."""
        general = bytearray(self.section.payload[:_PC_OFFSET])
        general[_PC_IN_REGS] = bytes(4)
        return not any(general)

    @property
    def list_length(self) -> int:
        """Bytes of the list in the payload."""
        return 4 + 16 * len(self.registers)

    @property
    def features(self) -> int:
        """The env.features word; QEMU writes 0 where it no longer has the field."""
        at = self.list_offset + self.list_length + _FEATURES_OFFSET
        return int(BE64.unpack_from(self.section.payload, at)[0])

    @property
    def trusted_features(self) -> int | None:
        """The word, where its writer has the field and so trusts what comes; None elsewhere.

        Without a description, a word that is not 0 tells: newer releases write 0.
        """
        layout = self.section.layout
        if layout is None:
            return self.features or None
        return (
            self.features if any(f.name == _FEATURES_FIELD for f in layout.state.fields) else None
        )

    @property
    def subsections(self) -> tuple[Subsection, ...]:
        """The section's subsections in order, offsets in the stream. Raises CorruptStream."""
        payload, base = self.section.payload, self.section.payload_offset
        found = []
        bounds = self._subsection_bounds()
        for begin, end in pairwise(bounds):
            length = payload[begin + 1]
            version = BE32.unpack_from(payload, begin + 2 + length)[0]
            name = payload[begin + 2 : begin + 2 + length].decode("ascii", "backslashreplace")
            content = payload[begin + SUBSECTION_HEADER + length : end]
            found.append(Subsection(base + begin, name, version, content))
        return tuple(found)

    @property
    def layout(self) -> DeviceLayout:
        """What the description says of the section.

        Without one, its subsections as they stand, and of its fields the trusted word alone.
        """
        if self.section.layout is not None:
            return self.section.layout
        parts = tuple(
            StructLayout(
                part.name, part.version, (FieldLayout("", "buffer", len(part.payload), 1),), ()
            )
            for part in self.subsections
        )
        version = self.section.version
        trusts = self.trusted_features is not None
        fields = (FieldLayout(_FEATURES_FIELD, "uint64", 8, 1),) if trusts else ()
        state = StructLayout(CPU_SECTION, version, fields, parts)
        return DeviceLayout(CPU_SECTION, self.instance, version, state)

    def _subsection_bounds(self) -> tuple[int, ...]:
        """Payload offsets of the subsections, and the end.

        Raises CorruptStream when the bytes there begin no subsection.
        """
        payload = self.section.payload
        layout = self.section.layout
        found = []
        if layout is not None:
            at = layout.state.fields_length
            for part in layout.state.subsections:
                self._require_subsection(at, part.name.encode())
                found.append(at)
                at += SUBSECTION_HEADER + len(part.name) + part.length
            return (*found, at)
        at = self.list_offset + self.list_length + _AFTER_LIST
        while 0 <= at < len(payload):
            self._require_subsection(at, _SUBSECTION_PREFIX)
            found.append(at)
            at = _next_subsection(payload, at + SUBSECTION_HEADER + payload[at + 1])
        return (*found, len(payload))

    def _require_subsection(self, at: int, name: bytes) -> None:
        """A whole header stands at `at`, of a subsection whose name begins with `name`."""
        payload = self.section.payload
        if (
            len(payload) < at + SUBSECTION_HEADER
            or payload[at] != SectionType.SUBSECTION
            or len(payload) < at + SUBSECTION_HEADER + payload[at + 1]
            or not payload.startswith(name, at + 2)
        ):
            raise _corrupt(
                self.section, at, f"no subsection '{name.decode()}' begins where one is expected"
            )


@dataclass(frozen=True, slots=True)
class CpuEdit:
    """What one cpu section is to become.

    `registers` is the list it gets, in this order, `without` the subsections it loses, by name, and
    `features` the env.features word it gets, None to keep its own.
    """

    registers: Mapping[int, int]
    without: frozenset[str] = frozenset()
    features: int | None = None


def read_cpu(section: DeviceSection) -> CpuState:
    """The register list of a `cpu` section.

    Raises UnsupportedStream for the CPU of another architecture, CorruptStream when there is no
    list, when subsections do not begin where they should, or when the description and the bytes
    disagree.
    """
    if section.version != CPU_VERSION:
        raise UnsupportedStream(
            f"this is no Arm CPU with a register list: its section has version "
            f"{section.version}, not {CPU_VERSION}",
            offset=section.offset,
            section=section.name,
            instance=section.instance,
            advice="armferry carries aarch64 guests only",
        )
    found = _by_structure(section.payload)
    if section.layout is not None:
        described = _by_description(section)
        if described != found:
            raise _corrupt(
                section,
                described,
                "the description and the bytes disagree about where the register list is",
            )
    if found is None:
        raise _corrupt(section, 0, "the cpu section holds no register list")
    cpu = CpuState(
        section,
        found,
        _registers(section.payload, found),
        BE64.unpack_from(section.payload, _PC_OFFSET)[0],
    )
    behind = found + cpu.list_length
    if len(section.payload) < behind + _AFTER_LIST:
        raise _corrupt(section, behind, "the cpu section ends behind its register list")
    cpu._subsection_bounds()  # a later caller has no name of a file to put into the error
    return cpu


def rewrite_cpu(cpu: CpuState, edit: CpuEdit) -> bytes:
    """The payload of the same section as `edit` wants it."""
    payload = cpu.section.payload
    behind = cpu.list_offset + cpu.list_length
    features = behind + _FEATURES_OFFSET
    word = payload[features : features + 8] if edit.features is None else BE64.pack(edit.features)
    bounds = cpu._subsection_bounds()
    kept = (
        payload[begin:end]
        for begin, end, part in zip(bounds, bounds[1:], cpu.subsections, strict=False)
        if part.name not in edit.without
    )
    return b"".join(
        (
            payload[: cpu.list_offset],
            BE32.pack(len(edit.registers)),
            _packed(edit.registers),
            _packed(edit.registers.values()),
            payload[behind:features],
            word,
            payload[features + 8 : bounds[0]],
            *kept,
        )
    )


def _next_subsection(payload: bytes, position: int) -> int:
    """Where the next `cpu/` subsection begins, -1 when there is none."""
    at = payload.find(_SUBSECTION_PREFIX, position)
    while at >= 0:
        begin = at - 2
        length = payload[at - 1]
        text = payload[at : at + length]
        # one more slash names a subsection inside a subsection
        if (
            begin >= position
            and len(text) == length
            and payload[begin] == SectionType.SUBSECTION
            and text.count(b"/") == 1
            and text.isascii()
            and text.decode().isprintable()
        ):
            return begin
        at = payload.find(_SUBSECTION_PREFIX, at + 1)
    return -1


def _packed(words: Iterable[int]) -> bytes:
    return b"".join(BE64.pack(word) for word in words)


def _by_description(section: DeviceSection) -> int:
    assert section.layout is not None
    position = 0
    places: dict[str, int] = {}
    fields: dict[str, tuple[int, int]] = {}
    for field in section.layout.state.fields:
        if field.name in (_LENGTH_FIELD, _INDEX_FIELD, _VALUE_FIELD):
            places[field.name] = position
            fields[field.name] = (field.size, field.count)
        position += field.length
    if len(places) != 3:
        raise _corrupt(section, 0, "the description names no register list")
    found = places[_LENGTH_FIELD]
    if fields[_LENGTH_FIELD] != (4, 1) or len(section.payload) < found + 4:
        raise _corrupt(section, found, "the description gives the list's length no 4 bytes")
    stated: int = BE32.unpack_from(section.payload, found)[0]
    if stated > MAX_REGISTERS:
        raise OversizedStream(
            f"the register list has {stated} entries, more than {MAX_REGISTERS}",
            offset=section.payload_offset + found,
            section=section.name,
            instance=section.instance,
        )
    for name, place in ((_INDEX_FIELD, found + 4), (_VALUE_FIELD, found + 4 + 8 * stated)):
        if fields[name] != (8, stated) or places[name] != place:
            size, count = fields[name]
            raise _corrupt(
                section,
                found,
                f"the register list has {stated} entries, its description puts {count} of "
                f"{size} bytes at {places[name]}",
            )
    return found


def _by_structure(payload: bytes) -> int | None:
    if _is_list(payload, _USUAL_OFFSET):
        return _USUAL_OFFSET
    end = min(len(payload), _SCAN_LIMIT + 4 + 8 * MAX_REGISTERS)
    runs = _ascending_runs(payload, _PC_OFFSET + 4, end)
    for at in range(_PC_OFFSET, min(len(payload) - 4, _SCAN_LIMIT)):
        count = BE32.unpack_from(payload, at)[0]
        fits = 0 < count <= MAX_REGISTERS and at + 4 + 16 * count <= len(payload)
        if fits and runs[at - _PC_OFFSET] >= count:
            return at
    return None


def _ascending_runs(payload: bytes, begin: int, end: int) -> list[int]:
    """For each offset from `begin` on, how many ascending indexes stand one behind the other.

    Each is looked at once, from the end, however many lists could begin before it.
    """
    runs = [0] * max(0, end - begin)
    words = [0] * 8  # what stands 8 bytes further on, for each alignment
    for at in range(end - 8, begin - 1, -1):
        word = BE64.unpack_from(payload, at)[0]
        if word >> 60 in _ARCHES:
            further = runs[at - begin + 8] if at + 16 <= end and word < words[at % 8] else 0
            runs[at - begin] = further + 1
        words[at % 8] = word
    return runs


def _is_list(payload: bytes, position: int) -> bool:
    if len(payload) < position + 4:
        return False
    count = BE32.unpack_from(payload, position)[0]
    if not 0 < count <= MAX_REGISTERS or len(payload) < position + 4 + 16 * count:
        return False
    last = -1
    for at in range(position + 4, position + 4 + 8 * count, 8):
        index = BE64.unpack_from(payload, at)[0]
        if index <= last or index >> 60 not in _ARCHES:
            return _is_unordered(payload, position + 4, count)
        last = index
    return True


def _is_unordered(payload: bytes, position: int, count: int) -> bool:
    """Whether `count` indexes at `position` are of 64-bit system registers, each another one."""
    seen: set[int] = set()
    for at in range(position, position + 8 * count, 8):
        index = BE64.unpack_from(payload, at)[0]
        if index >> 16 != _SYSTEM_64 or index in seen:
            return False
        seen.add(index)
    return True


def _registers(payload: bytes, position: int) -> dict[int, int]:
    count = BE32.unpack_from(payload, position)[0]
    indexes = position + 4
    values = indexes + 8 * count
    return {
        BE64.unpack_from(payload, indexes + 8 * at)[0]: BE64.unpack_from(payload, values + 8 * at)[
            0
        ]
        for at in range(count)
    }


def _corrupt(section: DeviceSection, position: int, problem: str) -> CorruptStream:
    return CorruptStream(
        problem,
        offset=section.payload_offset + position,
        section=section.name,
        instance=section.instance,
    )
