"""What differs beyond the register lists: devices, their versions, fields and subsections.

Knows what QEMU was measured to refuse (a device, an instance or a newer version that it does not
have; a subsection that it does not know) and to let pass (a device or a subsection that does not
come). What is the CPU's own is rewritten: a subsection that the destination does not know is left
out while nothing of the guest is in it, and a destination that takes the features word from the
stream is sent its own. Anything else is named and refused, or, where it is not known, said.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from armferry.decide.consent import accepts_subsection
from armferry.decide.risk_level import Risk
from armferry.ends import Move
from armferry.facts import (
    QemuRules,
    is_reset_content,
    knows_device_subsection,
    means_unused,
    qemu_rules,
)
from armferry.policy import AcceptedRisk

if TYPE_CHECKING:
    # a move of two fingerprints reads no stream
    from armferry.stream.description import DeviceLayout, StructLayout

__all__ = [
    "CPU",
    "FEATURES",
    "Effect",
    "SectionDifference",
    "brings_own_word",
    "compare_sections",
    "is_of_a_device",
    "paired_sections",
]

FEATURES = "env.features"
"""The field of the cpu section that QEMU 5.2 takes from the stream; newer ones send 0 there."""

CPU = "cpu"
_PER_VCPU = (CPU, "cpu_common")
_LIST = ("cpreg_vmstate_indexes", "cpreg_vmstate_values")
_WITHOUT_A_PLACE = ("dbus-vmstate", "ramfb-dev", "slirp", "tpm-emulator", "vmcoreinfo", "vmgenid")
"""Sections of what only the command line adds, such as a user network (QEMU 10.0.2, 11.1.3)."""
_OLDEST = "5.2"
_PROPERTIES = {
    "arm_gic": "-machine gic-version=2",
    "arm_gicv3": "-machine gic-version=3",
    "arm_gicv3_its": "-machine its=on",
    "smmuv3": "-machine iommu=smmuv3",
    "hvf-vtimer": "-accel hvf",
}
"""Section -> what makes it, where that is a property of the machine."""


class Effect(enum.StrEnum):
    """What a finding means for the load."""

    REFUSED = "refused"
    REWRITTEN = "rewritten"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class SectionDifference:
    """One difference: in which section, what, and why it matters.

    `subject` is a subsection, `FEATURES`, or the device itself. `risk` is what the rewriting costs
    the guest, NONE where nothing is rewritten; `what` the difference in words; `asks` the option
    that allows it, empty where none does.
    """

    device: str
    instance: int
    subject: str
    effect: Effect
    risk: Risk
    what: str
    asks: str = ""

    @property
    def why(self) -> str:
        """What it is, and what the user has to say first where it was refused."""
        asks = f"; not left out unless you name it ({self.asks})" if self.asks else ""
        return f"{self.what}{asks}"

    def __str__(self) -> str:
        what = "" if self.subject == self.device else f", {self.subject}"
        return f"section '{self.device}' instance {self.instance}{what}: {self.why}"


def brings_own_word(move: Move, vcpu: int) -> bool:
    """Whether a vCPU comes with the destination's own features word: it was ferried before."""
    words = move.source.words
    return vcpu < len(words) and words[vcpu] == move.destination.features


def paired_sections(
    source: Sequence[DeviceLayout], destination: Sequence[DeviceLayout]
) -> Iterator[tuple[DeviceLayout, DeviceLayout | None]]:
    """Each section of the guest with the destination's, None where it has none, in order.

    A record with fewer vCPUs than the guest has speaks for all of them; one that knows nothing
    but vCPUs says nothing of other sections.
    """
    known = {(one.name, one.instance): one for one in destination}
    vcpus_only = all(one.name == CPU for one in destination)
    for device in source:
        if vcpus_only and device.name != CPU:
            continue
        there = known.get((device.name, device.instance))
        if there is None and device.name in _PER_VCPU:
            there = known.get((device.name, 0))
        yield device, there


def is_of_a_device(section: DeviceLayout) -> bool:
    """Whether a section is of a device that the command line adds to the board.

    Its name begins with the device's place on a bus, such as `0000:00:01.0/virtio-net`, but for
    some; every PCI bus but the first is behind a bridge.
    """
    behind_a_bridge = section.name == "PCIBUS" and section.instance > 0
    return "/" in section.name or section.name in _WITHOUT_A_PLACE or behind_a_bridge


def compare_sections(move: Move, accepted: AcceptedRisk) -> tuple[SectionDifference, ...]:
    """Every difference that matters, in the order of the stream.

    Raises UnknownQemuVersion.
    """
    if not move.source.devices or not move.destination.devices:
        return ()
    return tuple(_Comparison(move, accepted).run())


class _Comparison:
    def __init__(self, move: Move, accepted: AcceptedRisk) -> None:
        self._move = move
        self._source, self._destination = move.source, move.destination
        self._accepted = accepted
        # of an unknown release, only what every release has had for long is taken for granted
        self._rules: QemuRules = qemu_rules(move.qemu or _OLDEST)

    def run(self) -> Iterator[SectionDifference]:
        for device, there in paired_sections(self._source.devices, self._destination.devices):
            if there is None:
                # one that the record was made without is said once, with the others
                if self._destination.whole or not is_of_a_device(device):
                    yield self._missing(device)
            elif device.name == CPU:
                yield from self._cpu(device, there)
            else:
                yield from self._device(device, there)

    def _missing(self, device: DeviceLayout) -> SectionDifference:
        return SectionDifference(
            device.name,
            device.instance,
            device.name,
            Effect.REFUSED,
            Risk.NONE,
            "the guest has this device, the destination has not; start the destination with "
            f"{_PROPERTIES.get(device.name, 'the same devices')}",
        )

    def _device(self, device: DeviceLayout, there: DeviceLayout) -> Iterator[SectionDifference]:
        def finding(effect: Effect, subject: str, why: str) -> SectionDifference:
            return SectionDifference(device.name, device.instance, subject, effect, Risk.NONE, why)

        if device.version > there.version:
            yield finding(
                Effect.REFUSED,
                device.name,
                f"it comes in version {device.version}, the destination reads {there.version} at "
                "most",
            )
        elif device.version < there.version:
            yield finding(
                Effect.UNCERTAIN,
                device.name,
                f"it comes in version {device.version}, the destination writes {there.version}; "
                "only its QEMU knows whether it still reads the older one",
            )
        else:
            yield from self._fields(device, there)
        own = {part.name for part in _everywhere(there.state)}
        for name in dict.fromkeys(part.name for part in _everywhere(device.state)):
            if name in own:
                continue
            known = knows_device_subsection(str(self._move.qemu), name) if self._move.qemu else None
            if known:
                continue
            if known is False:
                yield self._unknown_part(device, name)
            elif self._source.at_reset and self._destination.at_reset:
                yield finding(
                    Effect.REFUSED,
                    name,
                    "the destination, in the same state, does not write this subsection, so it "
                    "does not know it; only the CPU's own subsections can be left out",
                )
            else:
                yield finding(
                    Effect.UNCERTAIN,
                    name,
                    "the destination's record lacks this subsection; QEMU writes some only while "
                    "a device needs them, so it may know it all the same",
                )

    def _unknown_part(self, device: DeviceLayout, name: str) -> SectionDifference:
        """A subsection that the destination's QEMU was measured not to know."""
        key = device.name, device.instance, name
        content = self._source.parts.get(key)
        unknown = f"QEMU {self._move.qemu} does not know it"
        if content is not None and (self._source.at_reset or means_unused(name, content)):
            why = f"{unknown}; left out: the guest uses nothing of it, so nothing is lost"
            return self._finding(device, name, Effect.REWRITTEN, Risk.LOSSLESS, why)
        if content is None:
            why = f"{unknown}, and the stream does not describe where it ends"
            return self._finding(device, name, Effect.REFUSED, Risk.NONE, why)
        if accepts_subsection(self._accepted, name):
            why = f"{unknown}; left out: what it holds is lost"
            return self._finding(device, name, Effect.REWRITTEN, Risk.LOSSY, why)
        return SectionDifference(
            device.name,
            device.instance,
            name,
            Effect.REFUSED,
            Risk.LOSSY,
            f"{unknown}, and the guest uses it",
            f"--accept-risk {name}",
        )

    def _fields(self, device: DeviceLayout, there: DeviceLayout) -> Iterator[SectionDifference]:
        """QEMU reads fields by their place: one that was renamed is none, a gap may be fatal."""
        here, own = _lengths(device.state), _lengths(there.state)
        if not here or not own or sum(here.values()) == sum(own.values()):
            return
        apart = [name for name in (*here, *own) if (name in here) is not (name in own)]
        if not apart and not self._same_state:
            return  # as many elements as the guest made of them
        apart = apart or [name for name in here if here[name] != own[name]]
        names = ", ".join(dict.fromkeys(apart))
        yield self._finding(
            device,
            device.name,
            Effect.UNCERTAIN,
            Risk.NONE,
            f"its fields take {sum(here.values())} bytes, those of the destination "
            f"{sum(own.values())} ({names}) in the same version; only its QEMU knows whether it "
            "reads them",
        )

    @property
    def _same_state(self) -> bool:
        """Whether both ends have as many vCPUs and were recorded before they ran."""
        here, there = (
            sum(one.name == CPU for one in end.devices) for end in (self._source, self._destination)
        )
        return self._source.at_reset and self._destination.at_reset and here == there

    def _cpu(self, device: DeviceLayout, there: DeviceLayout) -> Iterator[SectionDifference]:
        yield from self._fields(device, there)
        contents = self._source.contents
        parts = contents[device.instance] if device.instance < len(contents) else {}
        own = {part.name for part in _parts(there.state)}
        for part in device.state.subsections:
            if not self._accepts(part, own):
                yield self._dropped(device, part.name, parts.get(part.name))
                continue
            for inner in _parts(part):
                if not self._accepts(inner, own):
                    yield self._finding(
                        device,
                        inner.name,
                        Effect.REFUSED,
                        Risk.NONE,
                        f"the destination does not know it, and it is a part of {part.name}",
                    )
        if any(field.name == FEATURES for field in there.state.fields):
            yield from self._features(device)

    def _accepts(self, part: StructLayout, own: set[str]) -> bool:
        if part.name in own:
            return True
        aborts = any(part.name == one.subsection for one in self._rules.aborts)
        return part.name in self._rules.subsections and not aborts

    def _dropped(self, device: DeviceLayout, name: str, content: bytes | None) -> SectionDifference:
        unknown = "the destination does not accept it"
        if self._source.at_reset:
            why = f"{unknown}; left out: the guest never ran, so nothing is lost"
            return self._finding(device, name, Effect.REWRITTEN, Risk.LOSSLESS, why)
        if content is not None and is_reset_content(name, content):
            why = f"{unknown}; left out: it is as after reset, so nothing is lost"
            return self._finding(device, name, Effect.REWRITTEN, Risk.LOSSLESS, why)
        holds = (
            "what it holds is not known" if content is None else f"it holds {content[:16].hex()}"
        )
        if accepts_subsection(self._accepted, name):
            what = f"{unknown}; left out: {holds}, which is lost"
            return self._finding(device, name, Effect.REWRITTEN, Risk.LOSSY, what)
        return SectionDifference(
            device.name,
            device.instance,
            name,
            Effect.REFUSED,
            Risk.LOSSY,
            f"{unknown} and {holds}",
            f"--accept-risk {name}",
        )

    def _features(self, device: DeviceLayout) -> Iterator[SectionDifference]:
        own = self._destination.features
        if own is None:
            why = (
                "this QEMU takes env.features from the stream, and its own is not known; make its "
                "fingerprint again"
            )
            yield self._finding(device, FEATURES, Effect.REFUSED, Risk.NONE, why)
        elif not (
            brings_own_word(self._move, device.instance)
            or any(field.name == FEATURES for field in device.state.fields)
        ):
            why = (
                "this QEMU takes env.features from the stream; the destination's value "
                f"{own:#x} is sent"
            )
            yield self._finding(device, FEATURES, Effect.REWRITTEN, Risk.LOSSLESS, why)

    def _finding(
        self, device: DeviceLayout, subject: str, effect: Effect, risk: Risk, why: str
    ) -> SectionDifference:
        return SectionDifference(device.name, device.instance, subject, effect, risk, why)


def _lengths(state: StructLayout) -> dict[str, int]:
    """Bytes of each field by name; without the registers, which are compared one by one.

    Subsections of structures are left out as well: they are compared by name.

    Empty for a cpu section of which nobody described the fields.
    """
    lengths: dict[str, int] = {}
    for field in state.fields:
        parts = 0 if field.struct is None else _parts_length(field.struct)
        lengths[field.name] = lengths.get(field.name, 0) + field.length - field.count * parts
    if state.name == CPU and lengths.keys().isdisjoint(_LIST):
        return {}
    return {name: length for name, length in lengths.items() if name not in _LIST}


def _parts_length(state: StructLayout) -> int:
    """Bytes of a structure's subsections, those of structures in it included."""
    inner = sum(
        field.count * _parts_length(field.struct)
        for field in state.fields
        if field.struct is not None
    )
    return inner + state.length - state.fields_length


def _everywhere(state: StructLayout) -> Iterator[StructLayout]:
    """Every subsection, those of structures among the fields too."""
    for field in state.fields:
        if field.struct is not None:
            yield from _everywhere(field.struct)
    for part in state.subsections:
        yield part
        yield from _everywhere(part)


def _parts(state: StructLayout) -> Iterator[StructLayout]:
    for part in state.subsections:
        yield part
        yield from _parts(part)
