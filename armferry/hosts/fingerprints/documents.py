"""Documents with a register list, of any program: each becomes a fingerprint.

Armferry's own; what Firecracker's cpu-template-helper dumps (its custom CPU template, `addr` and
`bitmap` of each register, alone or inside `guest_cpu_config`); and a plain list of register ids
and values, as JSON or as lines of text. Knows their forms; refuses to guess what they leave out:
a list of others says nothing of devices, of memory, or of which values are those after reset.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from armferry.hosts.fingerprints.fingerprint import (
    MAX_DOCUMENT,
    Fingerprint,
    FingerprintError,
    Provenance,
    parse,
)
from armferry.registers import (
    Accelerator,
    Core,
    RegisterTextError,
    Sve,
    Unknown,
    decode,
    parse_register,
)

__all__ = ["OTHERS", "document_start", "read_document"]

_FIRECRACKER, _LIST = "firecracker", "list"
OTHERS = (_FIRECRACKER, _LIST)
"""`how` a fingerprint was made that somebody else wrote."""

_TEMPLATE = "reg_modifiers"
_CONFIG = "guest_cpu_config"
_OWN = "format"
_MAX_LINE = 4096
_STARTS = b"{[#"
_VALUE = re.compile(r"0x[0-9a-fA-F]{1,32}|0b[01]{1,128}|[0-9]{1,39}")
_LINE = re.compile(r"(?P<register>\S+?)\s*(?:[=:,\s])\s*(?P<value>0[xb][0-9a-fA-F]+|[0-9]+)")
_NUMBER_START = re.compile(rb"0[xX][0-9a-fA-F]{1,16}\s*[=:,\s]\s*0?[xXbB]?[0-9a-fA-F]")


def document_start(start: bytes) -> bool:
    """Whether a file that begins with `start`, 64 bytes or so, is a document and no stream."""
    text = start.lstrip()
    return text[:1] != b"" and (text[:1] in _STARTS or bool(_NUMBER_START.match(text)))


def read_document(data: bytes, where: str) -> Fingerprint:
    """The fingerprint in `data`; `where` begins every message. Raises FingerprintError."""
    if len(data) > MAX_DOCUMENT:
        return parse(data, where)  # says so
    if data.lstrip()[:1] not in (b"{", b"["):
        return _plain_text(data, where)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return parse(data, where)
    if isinstance(document, Mapping):
        if _OWN in document:
            return parse(data, where)
        config = document.get(_CONFIG, document)
        if isinstance(config, Mapping) and _TEMPLATE in config:
            return _template(config[_TEMPLATE], document, where)
        if document and all(_is_pair(key, value) for key, value in document.items()):
            return _listed(document.items(), _LIST, {}, where)
    elif document and isinstance(document, list) and all(_is_row(row) for row in document):
        return _listed(map(tuple, document), _LIST, {}, where)
    return parse(data, where)


def _is_pair(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, str | int) and not isinstance(value, bool)


def _is_row(row: object) -> bool:
    return isinstance(row, list) and len(row) == 2 and _is_pair(*row)


def _template(rows: Any, document: Mapping[str, Any], where: str) -> Fingerprint:
    """What Firecracker dumps. A template that leaves bits open (`x`) is no dump."""
    if not isinstance(rows, list) or not rows:
        raise FingerprintError(
            f"{where}: this is a document of Firecracker's cpu-template-helper without registers "
            "of aarch64; dump it on an Arm host"
        )
    pairs = []
    for row in rows:
        try:
            register, bitmap = str(row["addr"]), str(row["bitmap"])
        except (TypeError, KeyError):
            raise FingerprintError(
                f"{where}: a {_TEMPLATE} entry of Firecracker has addr and bitmap, this one is "
                f"{str(row)[:80]!r}"
            ) from None
        digits = bitmap.removeprefix("0b").replace("_", "")
        if "x" in digits:
            raise FingerprintError(
                f"{where}: this template leaves bits of {register} open, so it is no list of a "
                "host: make one with cpu-template-helper fingerprint dump"
            )
        pairs.append((register, "0b" + digits))
    more = {key: value for key, value in document.items() if key not in (_CONFIG, _TEMPLATE)}
    return _listed(pairs, _FIRECRACKER, more, where)


def _plain_text(data: bytes, where: str) -> Fingerprint:
    pairs = []
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise FingerprintError(f"{where}: not a register list: it is not text") from None
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        found = _LINE.fullmatch(text) if len(text) <= _MAX_LINE else None
        if found is None:
            raise FingerprintError(
                f"{where}: line {number}: {text[:60]!r} is no register and value, as in "
                "0x603000000013c103 0x0"
            )
        pairs.append((found["register"], found["value"]))
    return _listed(pairs, _LIST, {}, where)


def _listed(
    pairs: Iterable[tuple[str, str | int]], how: str, more: Mapping[str, Any], where: str
) -> Fingerprint:
    from armferry.stream.wire import MAX_REGISTERS

    registers: dict[int, int] = {}
    for text, value in pairs:
        try:
            index = parse_register(text)
        except RegisterTextError as error:
            raise FingerprintError(f"{where}: {error}") from None
        encoding = decode(index)
        if isinstance(encoding, Unknown):
            raise FingerprintError(
                f"{where}: {text[:40]} is no register of arm64: an id begins with 0x60 or 0x40"
            )
        if isinstance(encoding, Core | Sve):
            continue  # QEMU sends these apart, not in its list
        if index in registers:
            raise FingerprintError(f"{where}: {text[:40]} comes twice")
        registers[index] = _number(value, text, where)
    if not registers:
        raise FingerprintError(f"{where}: not a register list: it has no register")
    if len(registers) > MAX_REGISTERS:
        raise FingerprintError(f"{where}: {len(registers)} registers are no list of a vCPU")
    ordered = dict(sorted(registers.items()))
    return Fingerprint(
        Provenance(
            how=how,
            # only TCG lists the AArch32 view; a list of another tool is one of KVM's
            accelerator=Accelerator.TCG if any(i >> 60 == 4 for i in ordered) else Accelerator.KVM,
            kernel=str(more.get("kernel_version", "")),
            more=more,
        ),
        (ordered,),
        # of a VM that never ran, as far as such a document goes: Firecracker dumps before the start
        at_reset=how == _FIRECRACKER,
    )


def _number(value: str | int, register: str, where: str) -> int:
    text = str(value)
    if not _VALUE.fullmatch(text):
        raise FingerprintError(f"{where}: the value of {register[:40]} is {text[:40]!r}, no number")
    number = int(text, 0) if text[:1] == "0" and len(text) > 1 and text[1] in "xXbB" else int(text)
    if number >> 64:
        raise FingerprintError(f"{where}: the value of {register[:40]} does not fit in 64 bits")
    return number
