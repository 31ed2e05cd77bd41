"""One side of a move: register lists, sections, and where they were recorded.

Either a guest, as a stream brings it, or a host, as a fingerprint describes it. What was not
recorded is `UNKNOWN`, which is never taken for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from armferry.ends.unknown import UNKNOWN, NotKnown
from armferry.ends.vcpu import Destination
from armferry.facts import kept_bits
from armferry.registers import Accelerator

if TYPE_CHECKING:
    # a move of two fingerprints reads no stream
    from armferry.stream.description import DeviceLayout
    from armferry.stream.events import Configuration, RamBlock

__all__ = ["End", "HostFacts"]


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a host gives a guest beside the register list.

    `counter_hz` is CNTFRQ_EL0 in Hz, `page_bytes` the kernel's page size, `sve_bits` and `sme_bits`
    are vector lengths in bits, `gic` the versions of the interrupt controller that it can give,
    `its` whether it can give an ITS, `cores` MIDR_EL1 -> processors.
    """

    counter_hz: int | NotKnown = UNKNOWN
    page_bytes: int | NotKnown = UNKNOWN
    sve_bits: frozenset[int] | NotKnown = UNKNOWN
    sme_bits: frozenset[int] | NotKnown = UNKNOWN
    gic: frozenset[int] | NotKnown = UNKNOWN
    its: bool | NotKnown = UNKNOWN
    cores: Mapping[int, tuple[int, ...]] | NotKnown = UNKNOWN

    def completed_by(self, other: HostFacts) -> HostFacts:
        """These facts, and those of `other` where they are not known."""
        unknown = {
            one.name: getattr(other, one.name)
            for one in fields(self)
            if getattr(self, one.name) is UNKNOWN
        }
        return replace(self, **unknown)


@dataclass(frozen=True, slots=True)
class End:
    """One side of a move.

    `text` is how a person named it. `cpus` has one register list (index -> value) for each vCPU,
    never none. `guest` says that the lists are those of the very guest that moves, not of a host
    that could run it; `at_reset` that the values are those after reset: a guest that never ran, or
    a host recorded before any guest ran. `devices` is empty when nothing is known of the sections.

    `parts` has the content of each subsection of every other section, by the section's name and
    instance and its own name; those of equal name in one section are joined.
    `contents` has for each vCPU the content of each subsection of `cpu`, by name, and `words` the
    env.features word of each, both empty where the end is no stream. `features` is the host's own
    env.features word, None unless its QEMU takes the word from the stream. `writable` maps an
    identification register to the bits that the kernel lets be set, `hardware` to the value of the
    hardware. `memory` are the blocks of guest memory and `configuration` what a stream begins with.
    `partial` says that the lists need not be whole: somebody else made them. `whole` says that
    memory size, vCPUs and devices are those of one guest; else they are what the host was recorded
    with, and say nothing of the host.
    """

    text: str
    cpus: tuple[Mapping[int, int], ...]
    accelerator: Accelerator
    at_reset: bool
    guest: bool = False
    partial: bool = False
    whole: bool = False
    machine: str | NotKnown = UNKNOWN
    cpu: str | NotKnown = UNKNOWN
    qemu: str | NotKnown = UNKNOWN
    kernel: str | NotKnown = UNKNOWN
    devices: tuple[DeviceLayout, ...] = ()
    contents: tuple[Mapping[str, bytes], ...] = ()
    parts: Mapping[tuple[str, int, str], bytes] = field(default_factory=dict)
    words: tuple[int, ...] = ()
    features: int | None = None
    writable: Mapping[int, int] | NotKnown = UNKNOWN
    hardware: Mapping[int, int] | NotKnown = UNKNOWN
    memory: tuple[RamBlock, ...] | NotKnown = UNKNOWN
    configuration: Configuration | NotKnown = UNKNOWN
    host: HostFacts = field(default_factory=HostFacts)

    @property
    def fresh(self) -> bool:
        """Whether it is a guest that never ran."""
        return self.guest and self.at_reset

    def registers(self, vcpu: int) -> Mapping[int, int]:
        """The list of one vCPU; one that was not recorded is like the first."""
        return self.cpus[vcpu] if vcpu < len(self.cpus) else self.cpus[0]

    def destinations(self, vcpus: int, qemu: str | NotKnown = UNKNOWN) -> tuple[Destination, ...]:
        """What each of a guest's `vcpus` vCPUs would find here, with QEMU `qemu`."""
        measured = None
        if self.accelerator is Accelerator.TCG and qemu is not UNKNOWN:
            measured = kept_bits(qemu, "" if self.cpu is UNKNOWN else self.cpu, self.cpus[0])
        return tuple(
            Destination(
                self.registers(vcpu),
                self.accelerator,
                self.at_reset,
                None if self.writable is UNKNOWN else self.writable,
                vcpus == len(self.cpus) or self.whole,
                None if self.hardware is UNKNOWN else self.hardware,
                {} if measured is None else measured.kept,
                {} if measured is None else measured.unlisted,
            )
            for vcpu in range(vcpus)
        )
