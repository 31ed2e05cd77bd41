"""A fingerprint: what one host would accept, as a value and as a JSON document.

Knows register lists at reset, the layout of every device section, and where they came from.
Refuses to know how they were obtained (`probe`, `recorded`, `kvm`). The document is versioned;
its schema is in docs/json.md.
"""

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from armferry.errors import ArmferryError
from armferry.hosts.fingerprints.host_record import HostRecord, host_json, read_host
from armferry.registers import Accelerator, accelerator_of

if TYPE_CHECKING:
    from armferry.stream.description import DeviceLayout, FieldLayout, StructLayout
    from armferry.stream.events import Configuration, RamBlock

__all__ = [
    "MAX_DOCUMENT",
    "Fingerprint",
    "FingerprintError",
    "Provenance",
    "Scope",
    "dump",
    "parse",
    "read_object",
]

_TEXTS = ("how", "machine", "cpu", "qemu", "package", "kernel", "hardware")
FORMAT = "armferry-fingerprint"
VERSION = 1
MAX_DOCUMENT = 16 << 20
_MOST_DIGITS = 40
_LONGEST_WORD = 1000  # a CPU with all of its properties is the longest
"""Bytes of a document; one vCPU takes 10 KiB, all the devices of a machine 50."""


class FingerprintError(ArmferryError):
    """A document that is no fingerprint, or one that this armferry cannot read."""


class Scope(enum.StrEnum):
    """Of what a fingerprint was made."""

    KIND = "kind"
    """A machine type and a CPU alone: memory size, vCPUs and devices are those of the probe."""
    GUEST = "guest"
    """One guest: memory size, vCPUs and devices are its own."""


_SCOPE_UNSAID = {"stream": Scope.GUEST}  # in documents older than the key


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a fingerprint came from; an empty text means that it is not known.

    `how` is `probe`, `stream`, `kvm` or `atlas`. `qemu` is the version of the QEMU (`10.0.13`),
    `package` that of its package, `kernel` the release of the host's kernel, `hardware` the
    machine and, for KVM, its CPU. `more` are keys that a newer armferry wrote: kept, not read.
    """

    how: str
    machine: str = ""
    cpu: str = ""
    accelerator: Accelerator | None = None
    qemu: str = ""
    package: str = ""
    kernel: str = ""
    hardware: str = ""
    scope: Scope = Scope.KIND
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What one host would accept.

    `cpus` has one register list (index -> value) for each vCPU. `at_reset` says that the values
    are those after reset: a list taken from a guest that ran has others. `devices` is empty when
    nothing is known of the devices. `writable` maps an identification register to the bits that
    the host's kernel lets be set; None when the kernel was not asked. `hardware` maps it to what
    the hardware says in fields that the kernel no longer shows (`armferry.facts.kvm`), 0 in all
    others; None when that was not asked. `features` is the host's
    env.features word, None unless its QEMU takes the word from the stream. `memory` are the blocks
    of guest memory as a stream lists them and `configuration` what such a stream begins with; None
    where they were not recorded. `host` is what the host gives beside the list.
    """

    provenance: Provenance
    cpus: tuple[Mapping[int, int], ...]
    at_reset: bool
    devices: "tuple[DeviceLayout, ...]" = ()
    writable: Mapping[int, int] | None = None
    capabilities: Mapping[str, int] = field(default_factory=dict)
    features: int | None = None
    memory: "tuple[RamBlock, ...] | None" = None
    configuration: "Configuration | None" = None
    host: HostRecord = field(default_factory=HostRecord)
    hardware: Mapping[int, int] | None = None

    @property
    def accelerator(self) -> Accelerator:
        """Who made the lists; told from the indexes when the provenance does not say."""
        return self.provenance.accelerator or accelerator_of(self.cpus[0])


def dump(fingerprint: Fingerprint) -> str:
    """The JSON document, numbers as hexadecimal text, one register a line."""
    about = fingerprint.provenance
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "provenance": {
            **about.more,
            "how": about.how,
            "machine": about.machine,
            "cpu": about.cpu,
            "accelerator": about.accelerator.value if about.accelerator else "",
            "qemu": about.qemu,
            "package": about.package,
            "kernel": about.kernel,
            "hardware": about.hardware,
            "scope": about.scope.value,
        },
        "at_reset": fingerprint.at_reset,
        "cpus": [{"registers": _numbers(registers)} for registers in fingerprint.cpus],
        "writable": None if fingerprint.writable is None else _numbers(fingerprint.writable),
        "hardware": None if fingerprint.hardware is None else _numbers(fingerprint.hardware),
        "capabilities": dict(fingerprint.capabilities),
        "features": None if fingerprint.features is None else f"{fingerprint.features:#x}",
        "host": host_json(fingerprint.host),
        "configuration": _configuration_json(fingerprint.configuration),
        "memory": None
        if fingerprint.memory is None
        else [_block_json(block) for block in fingerprint.memory],
        "devices": [_device_json(device) for device in fingerprint.devices],
    }
    return json.dumps(document, indent=1) + "\n"


def parse(data: bytes, where: str) -> Fingerprint:
    """The fingerprint in `data`; `where` begins every message. Raises FingerprintError."""
    if len(data) > MAX_DOCUMENT:
        raise FingerprintError(
            f"{where}: not a fingerprint: it is longer than {MAX_DOCUMENT} bytes"
        )
    try:
        document = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise FingerprintError(f"{where}: not a fingerprint: it is not text") from None
    except (ValueError, RecursionError) as error:
        raise FingerprintError(f"{where}: not a fingerprint: it is not JSON ({error})") from None
    return read_object(document, where)


def read_object(document: object, where: str) -> Fingerprint:
    """The fingerprint in a JSON object that was read already. Raises FingerprintError."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FingerprintError(
            f'{where}: not a fingerprint: it does not say "format": "{FORMAT}"; make one with '
            "armferry fingerprint"
        )
    if document.get("version") != VERSION:
        raise FingerprintError(
            f"{where}: fingerprint version {document.get('version')!r}; this armferry reads "
            f"version {VERSION}: make it again with armferry fingerprint"
        )
    try:
        return _read(document)
    except KeyError as error:
        raise FingerprintError(f"{where}: malformed fingerprint: {error} is missing") from None
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise FingerprintError(f"{where}: malformed fingerprint: {error}") from None


def _read(document: Mapping[str, Any]) -> Fingerprint:
    about = document["provenance"]
    known = set(_TEXTS) | {"accelerator", "scope"}
    accelerator = about.get("accelerator", "")
    # the order of HVF's lists says where QEMU looks for a register; all others ascend
    ordered = accelerator == Accelerator.HVF.value
    cpus = tuple(_registers(cpu["registers"], ordered=ordered) for cpu in document["cpus"])
    if not all(cpus) or not cpus:
        raise ValueError("a vCPU without registers" if cpus else "no vCPU")
    if not isinstance(document["at_reset"], bool):
        raise ValueError(f"at_reset is {document['at_reset']!r}, not true or false")
    writable, hardware = document.get("writable"), document.get("hardware")
    devices = tuple(_device(device) for device in document.get("devices", ()))
    for device in devices:
        if device.name == "cpu" and not 0 <= device.instance < len(cpus):
            raise ValueError(f"a section of vCPU {device.instance}, and {len(cpus)} vCPUs")
    return Fingerprint(
        Provenance(
            accelerator=Accelerator(accelerator) if accelerator else None,
            scope=Scope(about.get("scope") or _SCOPE_UNSAID.get(about["how"], Scope.KIND)),
            more={key: value for key, value in about.items() if key not in known},
            **{key: _short(key, about[key]) for key in _TEXTS if key in about},
        ),
        cpus,
        document["at_reset"],
        devices,
        None if writable is None else _registers(writable),
        {str(key): int(value) for key, value in document.get("capabilities", {}).items()},
        _word(document.get("features")),
        _memory(document.get("memory")),
        _configuration(document.get("configuration")),
        read_host(document.get("host")),
        None if hardware is None else _registers(hardware),
    )


def _block_json(block: "RamBlock") -> dict[str, Any]:
    size = {} if block.page_size is None else {"page_bytes": block.page_size}
    return {"name": block.name, "bytes": block.length, **size}


def _memory(rows: Sequence[Mapping[str, Any]] | None) -> "tuple[RamBlock, ...] | None":
    if rows is None:
        return None
    from armferry.stream.events import RamBlock
    from armferry.stream.wire import MAX_RAM_BLOCKS

    if len(rows) > MAX_RAM_BLOCKS:
        raise ValueError(f"{len(rows)} memory blocks")
    blocks = tuple(
        RamBlock(str(row["name"]), int(row["bytes"]), _size(row.get("page_bytes"))) for row in rows
    )
    for block in blocks:
        if not 0 < block.length < 1 << 64:
            raise ValueError(f"memory block {block.name!r} of {block.length} bytes")
    return blocks


def _size(number: int | None) -> int | None:
    if number is not None and not 0 < int(number) < 1 << 64:
        raise ValueError(f"pages of {number} bytes")
    return None if number is None else int(number)


def _configuration_json(configuration: "Configuration | None") -> dict[str, Any] | None:
    if configuration is None:
        return None
    return {
        "machine": configuration.machine,
        "page_bytes": configuration.page_size,
        "capabilities": list(configuration.capabilities),
    }


def _configuration(document: Mapping[str, Any] | None) -> "Configuration | None":
    if document is None:
        return None
    from armferry.stream.events import Configuration

    return Configuration(
        0,
        str(document["machine"]),
        _size(document["page_bytes"]) or 0,
        tuple(str(one) for one in document["capabilities"]),
        (),
    )


def _short(key: str, value: object) -> str:
    """A word of the provenance. Raises ValueError for one that is no such word."""
    text = str(value)
    if len(text) > _LONGEST_WORD:
        raise ValueError(f"{key} has {len(text)} characters, more than {_LONGEST_WORD}")
    return text


def _numbers(registers: Mapping[int, int]) -> dict[str, str]:
    return {f"{index:#018x}": f"{value:#x}" for index, value in registers.items()}


def _registers(numbers: Mapping[str, str], *, ordered: bool = False) -> dict[int, int]:
    from armferry.stream.wire import MAX_REGISTERS

    if len(numbers) > MAX_REGISTERS:
        raise ValueError(f"{len(numbers)} registers")
    read = {_hex(index): _hex(value) for index, value in numbers.items()}
    for index, value in read.items():
        if not (0 <= index < 1 << 64 and 0 <= value < 1 << 64):
            raise ValueError(f"register {index:#x} = {value:#x} is out of range")
    return read if ordered else dict(sorted(read.items()))


def _hex(text: object) -> int:
    """A hexadecimal number. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no number in text")
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text, 16)


def _word(text: str | None) -> int | None:
    if text is None:
        return None
    word = _hex(text)
    if not 0 <= word < 1 << 64:
        raise ValueError(f"features {word:#x} is out of range")
    return word


def _device_json(device: "DeviceLayout") -> dict[str, Any]:
    return {
        "name": device.name,
        "instance": device.instance,
        **_struct_json(device.state),
    }


def _struct_json(struct: "StructLayout") -> dict[str, Any]:
    return {
        "vmsd": struct.name,
        "version": struct.version,
        "fields": [_field_json(one) for one in struct.fields],
        "subsections": [_struct_json(part) for part in struct.subsections],
    }


def _field_json(one: "FieldLayout") -> list[Any]:
    plain: list[Any] = [one.name, one.type, one.size, one.count]
    return plain if one.struct is None else [*plain, _struct_json(one.struct)]


def _device(document: Mapping[str, Any]) -> "DeviceLayout":
    from armferry.stream.description import DeviceLayout

    state = _struct(document)
    return DeviceLayout(str(document["name"]), int(document["instance"]), state.version, state)


def _struct(document: Mapping[str, Any]) -> "StructLayout":
    from armferry.stream.description import StructLayout

    return StructLayout(
        str(document["vmsd"]),
        int(document["version"]),
        tuple(_field(one) for one in document["fields"]),
        tuple(_struct(part) for part in document["subsections"]),
    )


def _field(row: Sequence[Any]) -> "FieldLayout":
    from armferry.stream.description import FieldLayout

    name, kind, size, count, *struct = row
    return FieldLayout(
        str(name), str(kind), int(size), int(count), _struct(struct[0]) if struct else None
    )
