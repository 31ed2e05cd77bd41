"""Whole streams of 10 to 20 KB, cut from real ones: few devices, few registers, few pages.

Cut anew each time from the streams that the tests keep, so that there is one copy of each.
"""

import json
import lzma
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from armferry.stream import CpuEdit, StateEdit, StreamParser
from armferry.stream.cpu import CPU_SECTION, CpuState, read_cpu, rewrite_cpu
from armferry.stream.events import (
    Description,
    DeviceSection,
    DeviceStateBegins,
    EndOfStream,
    Event,
    RamRecord,
    RamRecordKind,
)
from armferry.stream.rewrite import rewrite_description, rewrite_sections
from tests.hosts.qcow2.conftest import Kind, make

__all__ = ["DATA", "IMAGE_KINDS", "NAMES", "recorded", "small", "small_image"]

DATA = Path(__file__).parents[1] / "tests" / "stream" / "data"
NAMES = (
    "tcg_5.2.0_virt-5.2_cortex-a57_2",
    "tcg_11.1.3_virt-10.0_cortex-a57_1",
    "kvm_6.12_neoverse-n1_10.0.13",
    "virtio-mem",
    "ignore-shared",
    "postcopy",
    "suppress-vmdesc",
    "xbzrle",
)
IMAGE_KINDS = (
    Kind(cluster_bits=9),
    Kind(cluster_bits=9, refcount_order=2, resumed=True),
    Kind(cluster_bits=9, compressed=True),
    Kind(cluster_bits=14, extended=True, refcount_order=0, disk_clusters=0),
    Kind(cluster_bits=10, version=2, extra=0),
)
"""Sorts of images that are small and differ in what is read of them."""
_KEPT = (CPU_SECTION, "globalstate", "timer", "slirp")
_REGISTERS = 12
_RECORDS = 6  # of each block


@cache
def recorded(name: str) -> bytes:
    """A stream of the tests, whole."""
    return lzma.decompress((DATA / f"{name}.mig.xz").read_bytes())


@cache
def small(name: str) -> bytes:
    """The stream `name`, made small; one of a postcopy migration keeps its device state."""
    stream = recorded(name)
    parser = StreamParser(ram_records=True)
    events = [*parser.feed(stream), *parser.close()]
    begin = next((e.offset for e in events if isinstance(e, DeviceStateBegins)), len(stream))
    head = b"".join(_without_pages(stream[:begin], events))
    end = next((e.offset for e in events if isinstance(e, EndOfStream)), None)
    if end is None or begin == len(stream):
        return head
    return head + _small_state([e for e in events if getattr(e, "offset", 0) >= begin])


@cache
def small_image(kind: Kind) -> bytes:
    """A qcow2 image with a small stream as one snapshot, and a few bytes of none as another."""
    return make(kind, {"whole": small(NAMES[1]), "none": bytes(range(200))})


def _without_pages(stream: bytes, events: list[Event]) -> Iterator[bytes]:
    """The pieces of `stream` that are left without most records of guest memory."""
    at, seen = 0, 0
    for event in events:
        if isinstance(event, RamRecord) and event.offset < len(stream):
            page = event.kind in (RamRecordKind.PAGE, RamRecordKind.ZERO)
            again = page and stream[event.offset + 7] & 0x20
            seen = seen + 1 if again else 0
            if again and (seen > _RECORDS or event.kind is RamRecordKind.PAGE):
                yield stream[at : event.offset]
                at = event.offset + event.length
    yield stream[at:]


def _small_state(events: list[Event]) -> bytes:
    sections = [e for e in events if isinstance(e, DeviceSection) and e.name in _KEPT]
    described = next((e for e in events if isinstance(e, Description)), None)
    payloads: dict[tuple[str, int], bytes] = {}
    cpus: list[CpuState] = []
    edits: list[CpuEdit] = []
    for section in sections:
        if section.name == CPU_SECTION:
            cpu = read_cpu(section)
            kept = dict(list(cpu.registers.items())[:_REGISTERS])
            cpus.append(cpu)
            edits.append(CpuEdit(kept))
            payloads[section.name, section.instance] = rewrite_cpu(cpu, edits[-1])
    state = rewrite_sections(sections, payloads) + b"\0"
    if described is None:
        return state
    known = {(one.name, one.instance) for one in sections}
    document: dict[str, Any] = {
        **described.document,
        "devices": [
            one
            for one in described.document["devices"]
            if (one["name"], one["instance_id"]) in known
        ],
    }
    text = json.dumps(rewrite_description(document, cpus, StateEdit(edits))).encode()
    return state + b"\x06" + struct.pack(">I", len(text)) + text
