"""A saved state's device state with other cpu sections.

Knows which bytes change: each cpu section that is edited, and what the description says of it.
Everything else comes out as it came in; when nothing is edited, every byte does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from armferry.stream.cpu import CPU_SECTION, CpuEdit, rewrite_cpu
from armferry.stream.errors import UnsupportedStream
from armferry.stream.events import DeviceSection
from armferry.stream.saved_state import SavedState
from armferry.stream.wire import BE32, SectionType

__all__ = [
    "NewTail",
    "old_tail",
    "rewrite_description",
    "rewrite_sections",
    "rewrite_tail",
]

_COUNTED = ("cpreg_vmstate_indexes", "cpreg_vmstate_values")


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


def rewrite_tail(saved: SavedState, edits: Sequence[CpuEdit]) -> NewTail | None:
    """The end of the stream after `edits`, one for each vCPU in order.

    None when nothing changes. Begins at the first section that does. Raises UnsupportedStream
    for a recording of a postcopy migration: only its source can finish that.
    """
    if saved.postcopy:
        raise UnsupportedStream(
            "this is a recording of a postcopy migration, not a saved state",
            offset=saved.state_offset,
            advice="save the guest to a file instead",
        )
    payloads = {
        cpu.instance: rewrite_cpu(cpu, edit) for cpu, edit in zip(saved.cpus, edits, strict=True)
    }
    changed = [cpu for cpu in saved.cpus if cpu.section.payload != payloads[cpu.instance]]
    if not changed:
        return None
    offset = changed[0].section.offset
    rest = tuple(section for section in saved.sections if section.offset >= offset)
    data = rewrite_sections(rest, payloads) + bytes([SectionType.END])
    if saved.description is not None:
        by_cpu = dict(zip((cpu.instance for cpu in saved.cpus), edits, strict=True))
        text = json.dumps(rewrite_description(saved.description, by_cpu)).encode()
        data += _described(text)
    return NewTail(offset, data)


def rewrite_sections(sections: Sequence[DeviceSection], payloads: Mapping[int, bytes]) -> bytes:
    """`sections` on the wire, headers and footers included; each cpu with its new payload."""
    parts: list[bytes] = []
    for section in sections:
        payload = section.payload
        if section.name == CPU_SECTION:
            payload = payloads.get(section.instance, payload)
        name = section.name.encode()
        parts += (
            bytes([SectionType.FULL]) + BE32.pack(section.id) + bytes([len(name)]) + name,
            BE32.pack(section.instance) + BE32.pack(section.version),
            payload,
            bytes([SectionType.FOOTER]) + BE32.pack(section.id),
        )
    return b"".join(parts)


def rewrite_description(
    document: Mapping[str, Any], edits: Mapping[int, CpuEdit]
) -> dict[str, Any]:
    """A copy of `document` that describes each cpu, by its instance, as it is after its edit."""
    devices = [
        _edited(device, edits[device["instance_id"]])
        if device["name"] == CPU_SECTION and device["instance_id"] in edits
        else device
        for device in document["devices"]
    ]
    return {**document, "devices": devices}


def _described(text: bytes) -> bytes:
    return bytes([SectionType.DESCRIPTION]) + BE32.pack(len(text)) + text


def _edited(device: Mapping[str, Any], edit: CpuEdit) -> dict[str, Any]:
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
