"""The decision for a stream in flight: every vCPU's list against the destination.

Knows how sections, the fingerprint and the policy meet; refuses to know where any of them came
from and what is done with the verdict (`session`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from armferry.decide import Answer, Layouts, Move, SourceFacts, Verdict, judge
from armferry.ferry.edits import edits_of
from armferry.gateway.errors import Refused
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.policy import Policy
from armferry.registers import Accelerator
from armferry.stream import CpuState, rewrite_cpu
from armferry.stream.description import DeviceLayout, StructLayout
from armferry.stream.events import DeviceSection
from armferry.stream.rewrite import rewrite_description, rewrite_sections
from armferry.stream.saved_state import cpus_of, never_ran

__all__ = ["Judge", "Judgement", "PolicyFor"]

PolicyFor = Callable[[str, Accelerator], Policy]
"""The policy for a machine type ("virt-10.0") under the destination's accelerator."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a guest, and the sections it was made for; `cpus` in its order."""

    sections: tuple[DeviceSection, ...]
    cpus: tuple[CpuState, ...]
    verdict: Verdict

    @property
    def accepted(self) -> bool:
        """Whether the move may go on."""
        return self.verdict.answer is not Answer.FAILS

    @property
    def reason(self) -> str:
        """Why it may not: every obstacle, every register by name with its vCPUs; else empty."""
        causes: dict[str, list[str]] = {}
        for number, decision in enumerate(self.verdict.decisions):
            for outcome in decision.refused:
                causes.setdefault(f"{outcome.name}: {outcome.why}", []).append(str(number))
        registers = (f"{cause} (vCPU {', '.join(who)})" for cause, who in causes.items())
        return "; ".join((*self.verdict.obstacles, *registers))

    def state(self) -> bytes:
        """The sections on the wire as they were decided on."""
        payloads = {
            cpu.instance: rewrite_cpu(cpu, edit)
            for cpu, edit in zip(self.cpus, edits_of(self.verdict), strict=True)
        }
        return rewrite_sections(self.sections, payloads)

    def description(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """`document` as it describes `state`."""
        instances = (cpu.instance for cpu in self.cpus)
        return rewrite_description(
            document, dict(zip(instances, edits_of(self.verdict), strict=True))
        )


def _layout_of(cpu: CpuState) -> DeviceLayout:
    """What the bytes of a vCPU's section tell of its layout: the subsections."""
    section = cpu.section
    parts = tuple(StructLayout(one.name, one.version, (), ()) for one in cpu.subsections)
    state = StructLayout(section.name, section.version, (), parts)
    return DeviceLayout(section.name, section.instance, section.version, state)


class Judge:
    """Decides on the device state of one guest for one destination.

    `source` is a fingerprint of the source at reset where one is at hand: what its registers
    held after reset is then known and need not be assumed.
    """

    def __init__(
        self, destination: Fingerprint, policy_for: PolicyFor, source: Fingerprint | None = None
    ) -> None:
        self._destination = destination
        self._policy_for = policy_for
        self._source = source

    def prepare(self, machine: str) -> None:
        """Decides once on the destination's own list, so that the guest need not wait for it.

        The first decision reads the catalogue, the policy's documents and the stock rules, which
        takes some 50 ms; it is done while guest memory still travels. Raises Refused when the
        source is known, has this machine type, and what it lists will be refused: after the
        switch to postcopy it would be too late, for then the source cannot go on by itself.
        """
        destination = self._destination
        lists = destination.cpus
        layouts = self._layouts(destination.devices, (), (), fresh=False)
        self._verdict(machine, lists, layouts, self._facts(len(lists), fresh=False))
        source = self._source
        if source is not None and source.provenance.machine == machine:
            judgement = self.foresee(source)
            if not judgement.accepted:
                raise Refused(
                    f"the move is refused: {judgement.reason}; decided on the source's "
                    "fingerprint, before the guest was paused"
                )

    def foresee(self, source: Fingerprint) -> Judgement:
        """The decision on what is known of the source before anything has come."""
        count = len(source.cpus)
        facts = tuple(SourceFacts(one.registers) for one in source.destinations(count))
        verdict = self._verdict(source.provenance.machine, source.cpus, Layouts(), facts)
        return Judgement((), (), verdict)

    def __call__(self, machine: str, sections: Sequence[DeviceSection]) -> Judgement:
        """The decision on these sections. Raises StreamError, PolicyError."""
        cpus = cpus_of(sections, sections[0].offset if sections else 0)
        fresh = never_ran(sections, cpus)
        lists = [cpu.registers for cpu in cpus]
        layouts = self._layouts(
            tuple(one.layout for one in sections if one.layout is not None)
            # postcopy sends no description; of the vCPUs' sections the bytes tell what matters
            or tuple(_layout_of(cpu) for cpu in cpus),
            tuple({one.name: one.payload for one in cpu.subsections} for cpu in cpus),
            tuple(cpu.features for cpu in cpus),
            fresh=fresh,
        )
        verdict = self._verdict(machine, lists, layouts, self._facts(len(lists), fresh=fresh))
        return Judgement(tuple(sections), cpus, verdict)

    def _layouts(
        self,
        source: Sequence[DeviceLayout],
        contents: Sequence[Mapping[str, bytes]],
        words: Sequence[int],
        *,
        fresh: bool,
    ) -> Layouts:
        destination = self._destination
        return Layouts(
            source=source,
            destination=destination.devices,
            contents=contents,
            words=words,
            fresh=fresh,
            at_reset=destination.at_reset,
            features=destination.features,
            qemu=destination.provenance.qemu,
        )

    def _verdict(
        self,
        machine: str,
        lists: Sequence[Mapping[int, int]],
        layouts: Layouts,
        facts: Sequence[SourceFacts],
    ) -> Verdict:
        destination = self._destination
        own = destination.provenance.machine
        move = Move(
            lists=lists,
            destinations=destination.destinations(len(lists)),
            facts=facts,
            machine=machine,
            destination_machine=own,
            layouts=layouts,
        )
        return judge(move, self._policy_for(machine or own, destination.accelerator))

    def _facts(self, count: int, *, fresh: bool) -> tuple[SourceFacts, ...]:
        if self._source is None:
            return (SourceFacts(fresh=fresh),) * count
        return tuple(SourceFacts(one.registers, fresh) for one in self._source.destinations(count))
