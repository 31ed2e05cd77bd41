"""A guest as one end of a move, from the sections that carry it.

The one place that says what a stream tells of its sections: with a description, what that says;
without one (postcopy, suppress-vmdesc), what the bytes of the vCPUs' sections tell.
"""

from collections.abc import Iterable, Sequence

from armferry.ends.end import End, HostFacts
from armferry.ends.unknown import UNKNOWN, NotKnown
from armferry.registers import accelerator_of
from armferry.stream.cpu import CPU_SECTION, CpuState
from armferry.stream.description import DeviceLayout
from armferry.stream.events import Configuration, DeviceSection, RamBlock
from armferry.stream.subsections import subsections_of

__all__ = ["guest_end"]

_COUNTER_FREQUENCY = 0x6030_0000_0013_DF00
"""CNTFRQ_EL0, which TCG lists and KVM does not."""


def guest_end(
    text: str,
    machine: str | NotKnown,
    cpus: Sequence[CpuState],
    described: Sequence[DeviceLayout],
    *,
    fresh: bool,
    sections: Iterable[DeviceSection] = (),
    memory: tuple[RamBlock, ...] | NotKnown = UNKNOWN,
    configuration: Configuration | NotKnown = UNKNOWN,
) -> End:
    """The guest with these vCPUs; `described` is empty where the stream has no description.

    `fresh` says that it never ran. `sections` are those of its devices, for what their subsections
    hold. Raises CorruptStream where a description does not fit them.
    """
    registers = tuple(cpu.registers for cpu in cpus)
    return End(
        text,
        registers,
        accelerator_of(registers[0]),
        at_reset=fresh,
        guest=True,
        whole=True,
        machine=machine or UNKNOWN,
        devices=tuple(described) or tuple(cpu.layout for cpu in cpus),
        contents=tuple({part.name: part.payload for part in cpu.subsections} for cpu in cpus),
        parts=_parts(sections),
        words=tuple(cpu.features for cpu in cpus),
        features=cpus[0].trusted_features,
        host=HostFacts(counter_hz=registers[0].get(_COUNTER_FREQUENCY) or UNKNOWN),
        memory=memory,
        configuration=configuration,
    )


def _parts(sections: Iterable[DeviceSection]) -> dict[tuple[str, int, str], bytes]:
    parts: dict[tuple[str, int, str], bytes] = {}
    for section in sections:
        if section.name == CPU_SECTION:
            continue
        for part in subsections_of(section):
            key = section.name, section.instance, part.name
            parts[key] = parts.get(key, b"") + part.content
    return parts
