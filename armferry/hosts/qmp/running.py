"""What a running QEMU says of itself: its version, its machine and CPU and all their properties.

Every property is read as QEMU's object model has it (qom-list and qom-get, qapi/qom.json), none is
known by name but those that say nothing of the CPU or the machine's own devices: files of the
host, what the guest boots, sizes of memory. Refuses to know what a property does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["QemuVersion", "RunningMachine", "running_machine", "running_version"]

Execute = Callable[..., Any]
"""A command of QMP and its arguments; what it returns."""

_MACHINE = "/machine"
_PLAIN = ("bool", "string", "str", "enum", "OnOffAuto", "OnOffSplit")
_NUMBERS = ("int", "uint", "size")
_ELSEWHERE = frozenset(
    (
        # what the guest boots, and files of the host
        *("kernel", "initrd", "append", "dtb", "dumpdtb", "firmware", "shim"),
        *("pflash0", "pflash1", "dt-compatible", "dtb-randomness", "dtb-kaslr-seed"),
        # memory, and objects that stand for it
        *("memory-backend", "memory-encryption", "confidential-guest-support", "mem-merge"),
        *("dump-guest-core", "aux-ram-share", "nvdimm-persistence"),
        # states of an object, not settings
        *("type", "realized", "hotplugged", "hotpluggable", "node-id", "phandle-start"),
        "legacy-memory",
    )
)
"""Properties of the machine and the CPU that change neither registers nor the CPU's sections."""


@dataclass(frozen=True, slots=True)
class QemuVersion:
    """What a QEMU says of itself: `version` such as 10.0.13, `package` as its packager put it."""

    version: str
    package: str


@dataclass(frozen=True, slots=True)
class RunningMachine:
    """The version, machine type, CPU model, accelerator, vCPUs, and the properties of both by name.

    The values are as QEMU's command line takes them: on, off, a number or a text.
    """

    about: QemuVersion
    machine: str
    cpu: str
    accel: str
    smp: int
    machine_properties: Mapping[str, str]
    cpu_properties: Mapping[str, str]


def running_version(execute: Execute) -> QemuVersion:
    """The version of a running QEMU. Raises what `execute` raises."""
    said = execute("query-version")
    numbers = said["qemu"]
    version = f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}"
    return QemuVersion(version, said["package"].strip(" ()"))


def running_machine(execute: Execute, refused: type[Exception]) -> RunningMachine:
    """What a running QEMU was started as.

    `refused` is what `execute` raises when QEMU answers with an error: some properties cannot be
    read. Raises what else `execute` raises.
    """
    cpus = execute("query-cpus-fast")
    cpu = cpus[0]["qom-path"]
    return RunningMachine(
        about=running_version(execute),
        machine=_type_of(execute, _MACHINE).removesuffix("-machine"),
        cpu=_type_of(execute, cpu).removesuffix("-arm-cpu"),
        accel="kvm" if execute("query-kvm")["enabled"] else "tcg",
        smp=len(cpus),
        machine_properties=_properties(execute, _MACHINE, refused),
        cpu_properties=_properties(execute, cpu, refused),
    )


def _type_of(execute: Execute, path: str) -> str:
    return str(execute("qom-get", {"path": path, "property": "type"}))


def _properties(execute: Execute, path: str, refused: type[Exception]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in execute("qom-list", {"path": path}):
        name, kind = one["name"], one["type"]
        if name in _ELSEWHERE or not kind.startswith((*_PLAIN, *_NUMBERS)):
            continue  # a link, a child, a structure
        try:
            value = execute("qom-get", {"path": path, "property": name})
        except refused:
            continue  # it can only be set
        if isinstance(value, bool):
            found[name] = "on" if value else "off"
        elif isinstance(value, int | str):
            found[name] = str(value)
    return found
