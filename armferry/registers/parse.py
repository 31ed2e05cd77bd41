"""A register from what a person writes: a number, a name, or an encoding.

Knows every form that `name` and `encoding_text` print and those of `spellings`, and refuses to
guess: a name that the architecture gave to two registers is an error that lists both, and a number
that is no index is no register. Letters may be of either case.
AArch32 names mean the non-secure instance, which is also the one of a CPU without EL3; the secure
one ends in `_S` (`SCTLR_S`, or `p15,0,c1,c0,0,s`).
"""

from __future__ import annotations

import re
from functools import cache

from armferry.errors import ArmferryError

from .catalogue import (
    TIMER_CNT,
    TIMER_CVAL,
    Accelerator,
    describe,
    named_encodings,
    pseudo_names,
    second_names,
    vector_names,
)
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
    Unknown,
    decode,
    encode,
)
from .spellings import from_key, is_index, plain_name, spelled

__all__ = ["AmbiguousRegister", "RegisterTextError", "UnknownRegister", "parse_register"]

_ACCEPTED = (
    "a register is a number (0x603000000013c103), a name (TCR2_EL1) "
    "or an encoding (S3_0_C2_C0_3; AArch32: p14,3,c0,c5,0 or p15,0,c2)"
)
_N = r"([0-9]{1,20})"
_SYSTEM = re.compile(rf"s{_N}_{_N}_c{_N}_c{_N}_{_N}(?::{_N})?")
_CP = re.compile(rf"p{_N},{_N},c{_N}(?:,c{_N},{_N})?(,s)?")
_COLON = re.compile(rf"(core|demux|fw|fwbitmap|sve):{_N}(?::{_N})?(?::{_N})?")
_SIZES = {"32": 4, "64": 8, "128": 16}
_SHORTEST_START, _LONGEST_NAME = 3, 40  # letters of a name that suggestions are made from
_LONGEST_SHOWN = 80
_MOST_DIGITS = 20  # of a 64-bit number in decimal


class RegisterTextError(ArmferryError):
    """A text that names no single register. `text` is what was given."""

    def __init__(self, text: str, message: str) -> None:
        super().__init__(message)
        self.text = text


class UnknownRegister(RegisterTextError):
    """No register goes by this text. `suggestions` are names close to it, best first."""

    def __init__(self, text: str, reason: str = "", suggestions: tuple[str, ...] = ()) -> None:
        why = reason or "no register goes by this name"
        hint = f"; did you mean {' or '.join(suggestions)}?" if suggestions else ""
        hint = hint or ("" if why.endswith("?") else ";")
        shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
        super().__init__(text, f"{shown!r}: {why}{hint} {_ACCEPTED}")
        self.suggestions = suggestions


class AmbiguousRegister(RegisterTextError):
    """More than one register goes by this name. `candidates` are their indexes."""

    def __init__(self, text: str, candidates: tuple[int, ...]) -> None:
        listed = ", ".join(_candidate(index) for index in candidates)
        super().__init__(
            text, f"{text!r} names more than one register: {listed}; give one of these"
        )
        self.candidates = candidates


def parse_register(text: str, accelerator: Accelerator | None = None) -> int:
    """The index that `text` stands for.

    Accepts a 64-bit index (decimal, or hex after 0x), a catalogue name, an encoding as
    `encoding_text` writes it, and the forms of `spellings`: QEMU's 32-bit key, `fw reg 0`,
    `op0:3 op1:0 crn:2 crm:0 op2:3`, `KVM_REG_ARM_PSCI_VERSION`, `SYS_TCR2_EL1`.
    `accelerator` decides the two timer names that KVM and TCG give to different indexes
    (CNTV_CVAL_EL0, CNTVCT_EL0). Raises `UnknownRegister` or `AmbiguousRegister`.
    """
    folded = re.sub(r"\s*,\s*", ",", text.strip()).casefold()
    folded = folded.removeprefix("system register ")
    if re.fullmatch(r"0x[0-9a-f]+|[0-9]+", folded):
        return _parse_number(text, folded)
    encoding = spelled(folded) or _parse_encoding(text, folded)
    if encoding is not None:
        return encode(encoding)
    plain, colon, bits = plain_name(folded).partition(":")
    found = _lookup(plain, accelerator)
    if len(found) > 1:
        raise AmbiguousRegister(text, found)
    if not found or (colon and bits not in _SIZES):
        raise UnknownRegister(text, suggestions=_close_names(plain))
    if colon:
        index = found[0] & ~(0xF << 52) | (_SIZES[bits].bit_length() - 1) << 52
        if isinstance(decode(index), Unknown):
            raise UnknownRegister(text, f"there is no such register of {bits} bits")
        return index
    return found[0]


def _parse_number(text: str, folded: str) -> int:
    """An index, or the index behind QEMU's 32-bit key. Raises UnknownRegister."""
    digits = folded.removeprefix("0x").lstrip("0")
    if len(digits) > _MOST_DIGITS:
        raise UnknownRegister(text, "the number does not fit in 64 bits")
    number = int(digits or "0", 16 if folded.startswith("0x") else 10)
    if number >> 64:
        raise UnknownRegister(text, "the number does not fit in 64 bits")
    if is_index(number):
        return number
    index = from_key(number)
    if index is None:
        raise UnknownRegister(
            text,
            "this is not a register index (those begin with 0x60 or 0x40, QEMU's own with 0x10 or "
            "0x20); is it a value?",
        )
    return index


def _lookup(folded: str, accelerator: Accelerator | None) -> tuple[int, ...]:
    if folded in ("cntv_cval_el0", "cntvct_el0"):
        if accelerator is None:
            return (TIMER_CNT, TIMER_CVAL)
        counter = folded == "cntvct_el0"
        return (TIMER_CNT if counter == (accelerator is Accelerator.KVM) else TIMER_CVAL,)
    texts = _encodings_by_name().get(folded)
    if texts is None:
        index = _pseudo_indexes().get(folded) or _vector_indexes().get(folded)
        return () if index is None else (index,)
    return tuple(dict.fromkeys(map(_index_of, texts)))


def _index_of(text: str) -> int:
    encoding = _parse_encoding(text, text.casefold())
    if encoding is None:
        raise AssertionError(f"the catalogue has an encoding that does not parse: {text}")
    return encode(encoding)


@cache
def _encodings_by_name() -> dict[str, tuple[str, ...]]:
    """Each name of the architecture, in small letters, with the encodings it may mean.

    As text: a command asks for a few of them, and to parse all takes longer than the command.
    """
    table: dict[str, tuple[str, ...]] = {}

    def add(name: str, text: str) -> None:
        folded = name.casefold()
        table[folded] = (*table.get(folded, ()), text)

    def add_with_secure(name: str, text: str) -> None:
        add(name, text)
        if text.startswith("p"):
            add(f"{name}_S", f"{text},s")

    for text, name in named_encodings().items():
        add_with_secure(name, text)
        if text.startswith("p") and name.endswith(("_32", "_64")):
            add_with_secure(name[:-3], text)
    for name, text in second_names().items():
        add_with_secure(name, text)
    return table


@cache
def _pseudo_indexes() -> dict[str, int]:
    return {name.casefold(): index for name, index in pseudo_names().items()}


@cache
def _vector_indexes() -> dict[str, int]:
    return {name.casefold(): index for name, index in vector_names().items()}


def _close_names(folded: str) -> tuple[str, ...]:
    import difflib  # only a failing command pays for it

    names = {*_encodings_by_name(), *_pseudo_indexes(), *_vector_indexes()}
    longer = sorted((one for one in names if one.startswith(folded)), key=lambda n: (len(n), n))
    close = longer if len(folded) >= _SHORTEST_START else []
    close = [*close, *difflib.get_close_matches(folded[:_LONGEST_NAME], names, n=3, cutoff=0.75)]
    found = dict.fromkeys(describe(index).name for one in close for index in _lookup(one, None))
    return tuple(found)[:3]


def _candidate(index: int) -> str:
    register = describe(index)
    note = f"; {register.note}" if register.note else ""
    return f"{register.name} ({index:#018x}{note})"


def _parse_encoding(text: str, folded: str) -> Encoding | None:
    if match := _SYSTEM.fullmatch(folded):
        op0, op1, crn, crm, op2 = _numbers(text, match.groups()[:5], (3, 7, 15, 15, 7))
        bits = match[6] or "64"
        if bits not in _SIZES:
            raise UnknownRegister(text, "a system register has 32, 64 or 128 bits")
        return Arm64System(op0, op1, crn, crm, op2, _SIZES[bits])
    if match := _CP.fullmatch(folded):
        if match[1] not in ("14", "15"):
            raise UnknownRegister(text, "the coprocessor is p14 or p15")
        nonsecure = match[6] is None
        if match[4] is None:
            opc1, crm = _numbers(text, match.group(2, 3), (15, 15))
            return Cp64(int(match[1]), opc1, crm, nonsecure)
        opc1, crn, crm, opc2 = _numbers(text, match.group(2, 3, 4, 5), (15, 15, 15, 7))
        return Cp32(int(match[1]), opc1, crn, crm, opc2, nonsecure)
    if match := _COLON.fullmatch(folded):
        return _parse_colon_form(text, match)
    return None


def _parse_colon_form(text: str, match: re.Match[str]) -> Encoding:
    numbers = [int(part) for part in match.groups()[1:] if part is not None]
    sizes = {8 << power: 1 << power for power in range(16)}
    match match[1], numbers:
        case "fw", [number] if number <= 0xFFFF:
            return Firmware(number)
        case "fwbitmap", [number] if number <= 0xFFFF:
            return FirmwareBitmap(number)
        case "core", [offset, bits] if offset <= 0xFFFF and bits in sizes:
            return Core(offset, sizes[bits])
        case "sve", [number, bits] if number <= 0xFFFF and bits in sizes:
            return Sve(number, sizes[bits])
        case "demux", [space, selector, bits] if max(space, selector) <= 255 and bits in sizes:
            return Demux(space, selector, sizes[bits])
    raise UnknownRegister(
        text, "write fw:N, fwbitmap:N, core:OFFSET:BITS, sve:N:BITS or demux:SPACE:SELECTOR:BITS"
    )


def _numbers(text: str, parts: tuple[str | None, ...], highest: tuple[int, ...]) -> tuple[int, ...]:
    numbers = tuple(int(part or "0") for part in parts)
    for number, limit in zip(numbers, highest, strict=True):
        if number > limit:
            raise UnknownRegister(text, f"{number} is too great where {limit} is the last")
    return numbers
