"""What a register is called and what it is: the name, kind and fields of an index.

Knows the names of the architecture (data/names.json, after the Arm Architecture Reference Manual,
DDI 0487), those that KVM gives to its pseudo-registers, and how an unnamed register is written.
Refuses to know any register list or value.

Names are unique. Where the architecture has one name for two registers they are told apart:
- a secure instance of an AArch32 register ends in `_S`, the non-secure one has the plain name;
- an AArch32 register with a 32-bit and a 64-bit form is `TTBR0_32` and `TTBR0_64`;
- `IMP_` marks a register of the newer Arm cores where an older core has the name elsewhere;
- `_QEMU` marks a register that QEMU keeps where the architecture has none;
- a size other than the usual one is added: `TTBR0_EL1:128`.

Two indexes mean one thing under KVM and another under TCG. The KVM user API swapped the virtual
timer's compare value and counter by accident, for ever: `0x603000000013df1a` is KVM's TIMER_CNT
(the counter CNTVCT) and `0x603000000013df02` its TIMER_CVAL, while TCG keeps to the encoding:
CNTV_CVAL_EL0 and CNTVCT_EL0. Without an accelerator the name is that of the ABI.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache

from .data_files import load
from .fields import Field, fields_of, names_cpu_fields
from .index import (
    Arm64System,
    Core,
    Cp32,
    Cp64,
    Demux,
    Encoding,
    Firmware,
    FirmwareBitmap,
    Sve,
    decode,
    encode,
)
from .kind import Kind, constant_of, kind_of

__all__ = [
    "Accelerator",
    "Register",
    "accelerator_of",
    "describe",
    "encoding_text",
    "is_constant",
    "kind",
    "name",
    "named_encodings",
    "names_cpu",
    "pseudo_names",
    "second_names",
    "vector_names",
]

TIMER_CNT = 0x603000000013DF1A
TIMER_CVAL = 0x603000000013DF02
_ABI_NAMES = {TIMER_CNT: "TIMER_CNT", TIMER_CVAL: "TIMER_CVAL"}
_ABI_NOTES = {
    TIMER_CNT: "under KVM the virtual counter (CNTVCT), under TCG CNTV_CVAL_EL0",
    TIMER_CVAL: "under KVM the virtual timer's compare value (CNTV_CVAL), under TCG CNTVCT_EL0",
}
_FIRMWARE_NAMES = (
    "PSCI_VERSION",
    "SMCCC_ARCH_WORKAROUND_1",
    "SMCCC_ARCH_WORKAROUND_2",
    "SMCCC_ARCH_WORKAROUND_3",
)
_BITMAP_NAMES = ("STD_BMAP", "STD_HYP_BMAP", "VENDOR_HYP_BMAP", "VENDOR_HYP_BMAP_2")
# struct kvm_regs, in 32-bit words: general registers, the EL1 ones, the banked SPSRs, then vectors.
_CORE_NAMES = {
    **{2 * n: f"X{n}" for n in range(31)},
    62: "SP",
    64: "PC",
    66: "PSTATE",
    68: "SP_EL1",
    70: "ELR_EL1",
    72: "SPSR_EL1",
    74: "SPSR_ABT",
    76: "SPSR_UND",
    78: "SPSR_IRQ",
    80: "SPSR_FIQ",
    **{84 + 4 * n: f"V{n}" for n in range(32)},
    212: "FPSR",
    213: "FPCR",
}
_SYSTEM_64 = 0x6030_0000_0013
"""What every index of a 64-bit system register begins with."""
_WHOLE_LIST = 30
"""Registers below which a list is a part of one: HVF lists 48 beside the debug registers."""
_GROUPS = ("aarch64", "instructions", "aarch32", "model", "qemu")


class Accelerator(Enum):
    """Who made a register list: it decides the meaning of two timer indexes.

    HVF is macOS' Hypervisor.framework, WHPX the Windows Hypervisor Platform.
    """

    KVM = "kvm"
    TCG = "tcg"
    HVF = "hvf"
    WHPX = "whpx"


@dataclass(frozen=True, slots=True)
class Register:
    """All that is known of one index, values apart.

    `encoding` is the encoding as a person writes it (`S3_0_C2_C0_3`, `p14,3,c0,c5,0`), `constant`
    whether the host or CPU model fixes the value, `note` empty or a sentence to show with it.
    """

    index: int
    name: str
    kind: Kind
    encoding: str
    size: int
    constant: bool
    fields: tuple[Field, ...]
    note: str = ""


@cache
def named_encodings() -> dict[str, str]:
    """The catalogue: encoding text to name."""
    return {text: name for group in _GROUPS for text, name in load("names.json")[group].items()}


@cache
def second_names() -> dict[str, str]:
    """Second names of the architecture: name to encoding text."""
    return dict(load("names.json")["aliases"])


@cache
def pseudo_names() -> dict[str, int]:
    """Names that no encoding of the architecture stands behind: name to index."""
    found = [Firmware(n) for n in range(len(_FIRMWARE_NAMES))]
    pseudo: list[Encoding] = [*found, *(FirmwareBitmap(n) for n in range(len(_BITMAP_NAMES)))]
    pseudo += [Demux(0, selector) for selector in range(14)]
    pseudo += [Core(offset, _core_size(offset)) for offset in _CORE_NAMES]
    return _labelled(pseudo) | {name: index for index, name in _ABI_NAMES.items()}


@cache
def vector_names() -> dict[str, int]:
    """Names of slices of vector registers, and of the vector lengths: name to index."""
    slices = [Sve(number, 256) for number in range(1024)]
    slices += [Sve(number, 32) for number in range(1024, 1024 + 17 * 32)]
    return _labelled([*slices, Sve(0xFFFF, 64)])


def _labelled(encodings: Iterable[Encoding]) -> dict[str, int]:
    return {_label(index := encode(one), one, None): index for one in encodings}


@lru_cache(maxsize=8192)
def describe(index: int, accelerator: Accelerator | None = None) -> Register:
    """Everything known of `index`; an unknown index is named by its encoding.

    Raises ValueError when `index` does not fit in 64 bits.
    """
    encoding = decode(index)
    label = _label(index, encoding, accelerator)
    sort = kind_of(encoding, _plain(label))
    return Register(
        index=index,
        name=label,
        kind=sort,
        encoding=encoding_text(encoding),
        size=1 << (index >> 52 & 0xF),
        constant=constant_of(_plain(label), sort),
        fields=fields_of(label),
        note=_ABI_NOTES.get(index, ""),
    )


def name(index: int, accelerator: Accelerator | None = None) -> str:
    """The unique name of `index`, or its encoding when it has none."""
    return describe(index, accelerator).name


def kind(index: int, accelerator: Accelerator | None = None) -> Kind:
    """What the register holds; else `Kind.UNKNOWN`."""
    return describe(index, accelerator).kind


def is_constant(index: int) -> bool:
    """Whether the host or the CPU model fixes the value and the guest cannot change it.

    Identification registers and the reserved part of their space, cache geometry, the PMU's event
    lists, the reset address, implementation-defined registers of the CPU model. TCG refuses
    another value when it reads the register back, KVM when it is set. Not the affinity: that
    belongs to the vCPU, and firmware versions are the user's choice.
    """
    return describe(index).constant


def names_cpu(index: int) -> bool:
    """Whether the register names a CPU or draws its caches: its fields are no features."""
    return names_cpu_fields(describe(index).name)


def counts_vcpus(index: int) -> bool:
    """Whether the value says how many vCPUs the machine has, so that it differs with -smp.

    The number of cores in bits 25:24 of L2CTLR (Cortex-A57 MPCore TRM, DDI 0488).
    """
    return describe(index).name in ("L2CTLR", "L2CTLR_EL1")


def accelerator_of(indexes: Iterable[int]) -> Accelerator:
    """Who made a register list.

    Only KVM lists firmware, cache geometry or core registers. TCG lists the AArch32 view too; a
    whole list without it, of 64-bit system registers alone, is HVF's.
    """
    seen = 0
    plain = True
    for index in indexes:
        if isinstance(decode(index), Firmware | FirmwareBitmap | Demux | Core):
            return Accelerator.KVM
        seen += 1
        plain = plain and index >> 16 == _SYSTEM_64
    return Accelerator.HVF if plain and seen >= _WHOLE_LIST else Accelerator.TCG


def encoding_text(encoding: Encoding) -> str:
    """An encoding as a person writes it; `parse_register` reads every form of it."""
    match encoding:
        case Arm64System(op0, op1, crn, crm, op2, size):
            return f"S{op0}_{op1}_C{crn}_C{crm}_{op2}" + ("" if size == 8 else f":{8 * size}")
        case Cp32(cp, opc1, crn, crm, opc2, nonsecure):
            return f"p{cp},{opc1},c{crn},c{crm},{opc2}" + ("" if nonsecure else ",s")
        case Cp64(cp, opc1, crm, nonsecure):
            return f"p{cp},{opc1},c{crm}" + ("" if nonsecure else ",s")
        case Core(offset, size):
            return f"core:{offset}:{8 * size}"
        case Demux(space, selector, size):
            return f"demux:{space}:{selector}:{8 * size}"
        case Firmware(number):
            return f"fw:{number}"
        case FirmwareBitmap(number):
            return f"fwbitmap:{number}"
        case Sve(number, size):
            return f"sve:{number}:{8 * size}"
    return f"{encoding.index:#018x}"


def _label(index: int, encoding: Encoding, accelerator: Accelerator | None) -> str:
    if accelerator is not Accelerator.TCG and index in _ABI_NAMES:
        return _ABI_NAMES[index]
    text = encoding_text(encoding)
    match encoding:
        case Arm64System():
            plain, colon, bits = text.partition(":")
            known = named_encodings().get(plain)
            return f"{known}{colon}{bits}" if known else text
        case Cp32(nonsecure=nonsecure) | Cp64(nonsecure=nonsecure):
            known = named_encodings().get(text.removesuffix(",s"))
            return (known if nonsecure else f"{known}_S") if known else text
        case Firmware(number) if number < len(_FIRMWARE_NAMES):
            return _FIRMWARE_NAMES[number]
        case FirmwareBitmap(number) if number < len(_BITMAP_NAMES):
            return _BITMAP_NAMES[number]
        case Demux(0, selector, 4) if selector < 14:
            return f"CCSIDR_L{encoding.level}{'I' if encoding.instruction else 'D'}"
        case Core(offset, size) if offset in _CORE_NAMES and size == _core_size(offset):
            return f"core.{_CORE_NAMES[offset]}"
        case Sve():
            return _vector_name(encoding) or text
    return text


def _plain(label: str) -> str:
    return label.partition(":")[0].removesuffix("_S")


def _core_size(offset: int) -> int:
    if offset >= 212:
        return 4
    return 16 if offset >= 84 else 8


def _vector_name(encoding: Sve) -> str | None:
    number, size = encoding.number, encoding.size
    bank, slot, piece = number >> 10, number >> 5 & 31, number & 31
    tail = f".{piece}" if piece else ""
    if number == 0xFFFF and size == 64:
        return "SVE_VLS"
    if bank == 0 and size == 256:
        return f"Z{slot}{tail}"
    if bank == 1 and size == 32:
        return f"FFR{tail}" if slot == 16 else f"P{slot}{tail}" if slot < 16 else None
    return None
