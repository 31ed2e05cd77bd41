"""A saved state's device state with other cpu sections, and without some subsections.

Knows which bytes change: each section that is edited, and what the description says of it.
Everything else comes out as it came in; when nothing is edited, every byte does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from armferry.stream.cpu import CPU_SECTION, CpuEdit, CpuState, rewrite_cpu
from armferry.stream.errors import UnsupportedStream
from armferry.stream.events import DeviceSection
from armferry.stream.saved_state import SavedState
from armferry.stream.subsections import described_without, payload_without
from armferry.stream.wire import BE32, SectionType

__all__ = [
    "NewTail",
    "StateEdit",
    "new_payloads",
    "old_tail",
    "rewrite_description",
    "rewrite_sections",
    "rewrite_tail",
]

_COUNTED = ("cpreg_vmstate_indexes", "cpreg_vmstate_values")


@dataclass(frozen=True, slots=True)
class StateEdit:
    """What a device state is to become.

    `cpus` has an edit for each vCPU in order; `without` maps the name and instance of another
    section to the names of the subsections that it loses.
    """

    cpus: Sequence[CpuEdit]
    without: Mapping[tuple[str, int], frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewTail:
    """What a stream has from `offset` to its end after the rewrite."""

    offset: int
    data: bytes


def old_tail(saved: SavedState) -> NewTail:
    """The device state and all that follows it, to the byte as it came."""
    data = rewrite_sections(saved.sections, {}) + bytes([SectionType.END])
    if saved.description is not None:
        data += _described(saved.description_text)
    return NewTail(saved.state_offset, data)


def rewrite_tail(saved: SavedState, edit: StateEdit) -> NewTail | None:
    """The end of the stream after `edit`.

    None when nothing changes. Begins at the first section that does. Raises UnsupportedStream
    for a recording of a postcopy migration: only its source can finish that.
    """
    if saved.postcopy:
        raise UnsupportedStream(
            "this is a recording of a postcopy migration, not a saved state",
            offset=saved.state_offset,
            advice="save the guest to a file instead",
        )
    payloads = new_payloads(saved.sections, saved.cpus, edit)
    changed = [one for one in saved.sections if payloads.get(_key(one), one.payload) != one.payload]
    if not changed:
        return None
    offset = changed[0].offset
    rest = tuple(section for section in saved.sections if section.offset >= offset)
    data = rewrite_sections(rest, payloads) + bytes([SectionType.END])
    if saved.description is not None:
        document = rewrite_description(saved.description, saved.cpus, edit)
        data += _described(json.dumps(document).encode())
    return NewTail(offset, data)


def new_payloads(
    sections: Sequence[DeviceSection], cpus: Sequence[CpuState], edit: StateEdit
) -> dict[tuple[str, int], bytes]:
    """The payload of each section that `edit` is about, by name and instance.

    Raises CorruptStream where a subsection does not stand where the description says.
    """
    payloads = {
        (CPU_SECTION, cpu.instance): rewrite_cpu(cpu, one)
        for cpu, one in zip(cpus, edit.cpus, strict=True)
    }
    for section in sections:
        if _key(section) in edit.without:
            payloads[_key(section)] = payload_without(section, edit.without[_key(section)])
    return payloads


def rewrite_sections(
    sections: Sequence[DeviceSection], payloads: Mapping[tuple[str, int], bytes]
) -> bytes:
    """`sections` on the wire, headers and footers included, those of `payloads` with theirs."""
    parts: list[bytes] = []
    for section in sections:
        payload = payloads.get(_key(section), section.payload)
        name = section.name.encode()
        parts += (
            bytes([SectionType.FULL]) + BE32.pack(section.id) + bytes([len(name)]) + name,
            BE32.pack(section.instance) + BE32.pack(section.version),
            payload,
            bytes([SectionType.FOOTER]) + BE32.pack(section.id),
        )
    return b"".join(parts)


def rewrite_description(
    document: Mapping[str, Any], cpus: Sequence[CpuState], edit: StateEdit
) -> dict[str, Any]:
    """A copy of `document` that describes each section as it is after `edit`."""
    edits = {cpu.instance: one for cpu, one in zip(cpus, edit.cpus, strict=True)}
    return {
        **document,
        "devices": [_edited(device, edits, edit.without) for device in document["devices"]],
    }


def _edited(
    device: Mapping[str, Any],
    edits: Mapping[int, CpuEdit],
    without: Mapping[tuple[str, int], frozenset[str]],
) -> Mapping[str, Any]:
    key = device["name"], device["instance_id"]
    if key in without:
        return described_without(device, without[key])
    if key[0] == CPU_SECTION and key[1] in edits:
        return _edited_cpu(device, edits[key[1]])
    return device


def _key(section: DeviceSection) -> tuple[str, int]:
    return section.name, section.instance


def _described(text: bytes) -> bytes:
    return bytes([SectionType.DESCRIPTION]) + BE32.pack(len(text)) + text


def _edited_cpu(device: Mapping[str, Any], edit: CpuEdit) -> dict[str, Any]:
    """What the description says of one cpu, after its edit."""
    new = dict(device)
    new["fields"] = [
        {**field, "array_len": len(edit.registers)} if field["name"] in _COUNTED else field
        for field in device["fields"]
    ]
    if "subsections" in device:
        new["subsections"] = [
            part for part in device["subsections"] if part["vmsd_name"] not in edit.without
        ]
        if not new["subsections"]:
            del new["subsections"]
    return new
