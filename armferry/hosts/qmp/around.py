"""What a running QEMU has around its vCPUs: machine type, accelerator, guest memory, devices.

Asked over QMP of the QEMU itself, so of a guest as it is, with what was plugged in since it
started. Knows `info ramblock` of the monitor, which no command of QMP replaces; a device is known
by its model and, on PCI, its place, for the place is in the name of its section.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from armferry.errors import ArmferryError
from armferry.registers import Accelerator
from armferry.stream.events import RamBlock

__all__ = ["Around", "around"]

Execute = Callable[..., Any]

_PERIPHERALS = ("/machine/peripheral", "/machine/peripheral-anon")
_BLOCK = re.compile(
    r"^\s*(?P<name>\S.*?)\s+\d+ [KMG]?i?B\s+0x[0-9a-f]+\s+0x(?P<used>[0-9a-f]+)\s+0x[0-9a-f]+"
)
"""A line of the monitor's `info ramblock`: name, page size, offset, used and greatest length."""


@dataclass(frozen=True, slots=True)
class Around:
    """`pci` is place -> what is there, such as `02.0/00.0` -> `1af4:1001`; `models` counts what
    the command line or a hot plug added, by its model.
    """

    machine: str
    accelerator: Accelerator
    vcpus: int
    memory: tuple[RamBlock, ...]
    pci: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, int] = field(default_factory=dict)

    def lacks(self, guest: "Around") -> Iterator[str]:
        """What `guest` has and this QEMU has not, in words: no load gets past it."""
        if guest.vcpus != self.vcpus:
            yield f"the guest has {guest.vcpus} vCPUs, the destination {self.vcpus}"
        for place, what in guest.pci.items():
            there = self.pci.get(place)
            if there != what:
                own = "nothing" if there is None else f"the PCI device {there}"
                yield f"the guest has the PCI device {what} at {place}, the destination {own}"
        for model, count in guest.models.items():
            there_count = self.models.get(model, 0)
            if there_count < count:
                yield f"the guest has {count} of {model}, the destination {there_count}"


def around(execute: Execute, refused: type[Exception]) -> Around:
    """What the QEMU behind `execute` has. `refused` is what that raises when QEMU says no.

    Raises what else `execute` raises, and ArmferryError for an answer that no QEMU gives.
    """
    machine = str(execute("qom-get", {"path": "/machine", "property": "type"}))
    return Around(
        machine.removesuffix("-machine"),
        _accelerator(execute, refused),
        len(execute("query-cpus-fast")),
        _blocks(execute("human-monitor-command", {"command-line": "info ramblock"})),
        dict(_places(bus for bus in execute("query-pci"))),
        _models(execute),
    )


def _accelerator(execute: Execute, refused: type[Exception]) -> Accelerator:
    try:
        return Accelerator(execute("query-accelerators")["enabled"])  # from QEMU 11.0 on
    except (refused, ValueError):
        return Accelerator.KVM if execute("query-kvm")["enabled"] else Accelerator.TCG


def _blocks(text: str) -> tuple[RamBlock, ...]:
    found = (_BLOCK.match(line) for line in text.splitlines())
    blocks = tuple(RamBlock(one["name"], int(one["used"], 16)) for one in found if one is not None)
    if not blocks:
        raise ArmferryError("the running QEMU does not list its memory blocks")
    return blocks


def _places(buses: Iterator[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    waiting = [("", device) for bus in buses for device in bus["devices"]]
    while waiting:
        above, device = waiting.pop(0)
        place = f"{above}{device['slot']:02x}.{device['function']:x}"
        yield place, f"{device['id']['vendor']:04x}:{device['id']['device']:04x}"
        behind = device.get("pci_bridge", {}).get("devices", [])
        waiting += [(f"{place}/", one) for one in behind]


def _models(execute: Execute) -> Mapping[str, int]:
    kinds = [one["type"] for path in _PERIPHERALS for one in execute("qom-list", {"path": path})]
    return Counter(kind[6:-1] for kind in kinds if kind.startswith("child<"))
