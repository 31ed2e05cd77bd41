"""The 64-bit register index: taken apart and put together.

Knows the bits of an index and nothing about what a register is for. The layout is the KVM user
API of Linux (Documentation/virt/kvm/api.rst, KVM_SET_ONE_REG). QEMU uses the same numbers under
TCG, with one addition: bit 29 tells the non-secure instance of an AArch32 register from the
secure one.

    63..60  architecture: 6 arm64, 4 arm (the AArch32 view)
    55..52  size: log2 of the bytes
    29      AArch32 only: non-secure instance
    27..16  class: 0x10 core, 0x11 demux, 0x13 system register, 0x14 firmware, 0x15 SVE,
            0x16 firmware bitmap; for AArch32 0x0e cp14, 0x0f cp15
    15..0   depends on the class

Whatever does not fit becomes `Unknown` and keeps its number, so that `encode(decode(i)) == i`
for every 64-bit `i`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "Arm64System",
    "Core",
    "Cp32",
    "Cp64",
    "Demux",
    "Encoding",
    "Firmware",
    "FirmwareBitmap",
    "Sve",
    "Unknown",
    "decode",
    "encode",
    "system_index",
]

_ARM64 = 6 << 60
_ARM = 4 << 60
_NONSECURE = 1 << 29
_MAX_INDEX = (1 << 64) - 1

_CORE = 0x10
_DEMUX = 0x11
_SYSTEM = 0x13
_FIRMWARE = 0x14
_SVE = 0x15
_FIRMWARE_BITMAP = 0x16
_CP14 = 0x0E
_CP15 = 0x0F
_REMEMBERED = 4096  # more than any host lists; a decision asks for each of them several times


@dataclass(frozen=True, slots=True)
class Arm64System:
    """An AArch64 system register; `size` is 8 bytes but for the 128-bit ones (16)."""

    op0: int
    op1: int
    crn: int
    crm: int
    op2: int
    size: int = 8


@dataclass(frozen=True, slots=True)
class Core:
    """A word of the kernel's `kvm_regs`; `offset` counts 32-bit words from its start."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Demux:
    """A register chosen through a selector; `space` 0 is CCSIDR, `selector` CSSELR's value."""

    space: int
    selector: int
    size: int = 4

    @property
    def level(self) -> int:
        """Cache level from 1, of a CCSIDR."""
        return (self.selector >> 1 & 7) + 1

    @property
    def instruction(self) -> bool:
        """Whether a CCSIDR is that of an instruction cache (else data or unified)."""
        return bool(self.selector & 1)


@dataclass(frozen=True, slots=True)
class Firmware:
    """A pseudo-register of KVM as firmware: PSCI version, workaround levels. 8 bytes."""

    number: int


@dataclass(frozen=True, slots=True)
class FirmwareBitmap:
    """A bitmap of hypercall services that KVM offers to the guest. 8 bytes."""

    number: int


@dataclass(frozen=True, slots=True)
class Sve:
    """A slice of a vector or predicate register, or the vector lengths (`number` 0xffff)."""

    number: int
    size: int


@dataclass(frozen=True, slots=True)
class Cp32:
    """A 32-bit AArch32 register: MRC/MCR `cp, opc1, crn, crm, opc2`."""

    cp: int
    opc1: int
    crn: int
    crm: int
    opc2: int
    nonsecure: bool = True


@dataclass(frozen=True, slots=True)
class Cp64:
    """A 64-bit AArch32 register: MRRC/MCRR `cp, opc1, crm`."""

    cp: int
    opc1: int
    crm: int
    nonsecure: bool = True


@dataclass(frozen=True, slots=True)
class Unknown:
    """An index whose bits fit none of the layouts above."""

    index: int


Encoding: TypeAlias = (
    Arm64System | Core | Demux | Firmware | FirmwareBitmap | Sve | Cp32 | Cp64 | Unknown
)


@functools.lru_cache(_REMEMBERED)
def decode(index: int) -> Encoding:
    """Take an index apart. Raises ValueError when it is not a 64-bit number."""
    if not 0 <= index <= _MAX_INDEX:
        raise ValueError(f"register index {index:#x} does not fit in 64 bits")
    size = 1 << (index >> 52 & 0xF)
    group = index >> 16 & 0xFFF
    rest = index & 0xFFFF
    frame = index & ~(0xF << 52 | 0xFFF_FFFF)
    if frame == _ARM64:
        return _decode_arm64(index, group, size, rest)
    if frame & ~_NONSECURE == _ARM and group in (_CP14, _CP15):
        nonsecure = bool(frame & _NONSECURE)
        opc1, crm = rest >> 3 & 0xF, rest >> 7 & 0xF
        if size == 4 and rest < 0x8000:
            return Cp32(group, opc1, rest >> 11, crm, rest & 7, nonsecure)
        if size == 8 and not rest & ~0x7F8:
            return Cp64(group, opc1, crm, nonsecure)
    return Unknown(index)


def _decode_arm64(index: int, group: int, size: int, rest: int) -> Encoding:
    if group == _SYSTEM and size in (4, 8, 16):
        return Arm64System(
            rest >> 14, rest >> 11 & 7, rest >> 7 & 0xF, rest >> 3 & 0xF, rest & 7, size
        )
    if group == _CORE:
        return Core(rest, size)
    if group == _DEMUX:
        return Demux(rest >> 8, rest & 0xFF, size)
    if group == _FIRMWARE and size == 8:
        return Firmware(rest)
    if group == _FIRMWARE_BITMAP and size == 8:
        return FirmwareBitmap(rest)
    if group == _SVE:
        return Sve(rest, size)
    return Unknown(index)


def encode(encoding: Encoding) -> int:
    """The index of an encoding: the inverse of `decode`."""
    match encoding:
        case Arm64System(op0, op1, crn, crm, op2, size):
            rest = op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
            return _arm64(_SYSTEM, size) | rest
        case Core(offset, size):
            return _arm64(_CORE, size) | offset
        case Demux(space, selector, size):
            return _arm64(_DEMUX, size) | space << 8 | selector
        case Firmware(number):
            return _arm64(_FIRMWARE, 8) | number
        case FirmwareBitmap(number):
            return _arm64(_FIRMWARE_BITMAP, 8) | number
        case Sve(number, size):
            return _arm64(_SVE, size) | number
        case Cp32(cp, opc1, crn, crm, opc2, nonsecure):
            return _arm(cp, 4, nonsecure) | crn << 11 | crm << 7 | opc1 << 3 | opc2
        case Cp64(cp, opc1, crm, nonsecure):
            return _arm(cp, 8, nonsecure) | crm << 7 | opc1 << 3
        case Unknown(index):  # pragma: no branch - the last there is
            return index


def system_index(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """The index of a 64-bit AArch64 system register."""
    return encode(Arm64System(op0, op1, crn, crm, op2))


def _arm64(group: int, size: int) -> int:
    return _ARM64 | (size.bit_length() - 1) << 52 | group << 16


def _arm(cp: int, size: int, nonsecure: bool) -> int:
    bank = _NONSECURE if nonsecure else 0
    return _ARM | (size.bit_length() - 1) << 52 | bank | cp << 16
