"""A saved state as large as wanted, guest memory full: made from one that a real QEMU saved.

QEMU sends an untouched page as nine bytes. Between the head and the device state of a real
stream, this puts sections of guest memory in which every page has content.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.qemu_install import install
from armferry.lab.releases import release_named
from armferry.stream import StreamParser
from armferry.stream.events import Footer, RamBlocks, SectionBegins
from armferry.stream.wire import BE32, BE64, RamFlag, SectionType

__all__ = ["MACHINE", "PAGE", "page_records", "write_full_state"]

MACHINE = "virt-10.0"
PAGE = 4096
_PAGES_AT_ONCE = 4096


def page_records(pages: range, block: str, *, zero_every: int = 0) -> bytes:
    """The records of `pages` of a memory block; of `zero_every` pages one is a zero page."""
    content = os.urandom(PAGE)
    name = bytes([len(block)]) + block.encode()
    parts = []
    for number in pages:
        empty = zero_every and number % zero_every == 0
        flags = RamFlag.ZERO if empty else RamFlag.PAGE
        if number != pages.start:
            flags |= RamFlag.CONTINUE
        parts.append(BE64.pack(number * PAGE | flags))
        if number == pages.start:
            parts.append(name)
        parts.append(b"\0" if empty else content)
    return b"".join(parts)


def write_full_state(path: Path, release: str, size: int) -> None:
    """Writes the state of a paused guest with `size` bytes of memory, all of it with content.

    Waits until it is on disk.
    """
    spec = MachineSpec(machine=MACHINE, memory=size >> 20)
    with QemuProcess(install(release_named(release)), spec, paused=True) as machine:
        machine.save(path)
        machine.quit()
    real = path.read_bytes()
    section, block, begin, end = _guest_memory(real)
    with path.open("wb") as file:
        file.write(real[:begin])
        for part in _parts(section, block, size // PAGE):
            file.write(part)
        file.write(real[end:])
        file.flush()
        os.fsync(file.fileno())


def _guest_memory(stream: bytes) -> tuple[int, str, int, int]:
    """(section id, largest block, first byte, byte after the last) of the pages in `stream`."""
    begin = section = 0
    block = ""
    ending = False
    for event in StreamParser().feed(stream):
        match event:
            case RamBlocks():
                block = max(event.blocks, key=lambda one: one.length).name
            case SectionBegins(kind=SectionType.PART | SectionType.LAST):
                begin = begin or event.offset
                section = event.id
                ending = event.kind == SectionType.LAST
            case Footer() if ending:
                return section, block, begin, event.offset + 5
    raise ValueError("the stream holds no guest memory")


def _parts(section: int, block: str, pages: int) -> Iterator[bytes]:
    end = BE64.pack(RamFlag.EOS) + bytes([SectionType.FOOTER]) + BE32.pack(section)
    for start in range(0, pages, _PAGES_AT_ONCE):
        records = page_records(range(start, min(start + _PAGES_AT_ONCE, pages)), block)
        yield bytes([SectionType.PART]) + BE32.pack(section) + records + end
    yield bytes([SectionType.LAST]) + BE32.pack(section) + end
