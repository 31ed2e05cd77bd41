"""The decision for a stream in flight: every vCPU's list against the destination.

Knows how sections, the fingerprint and the policy meet; refuses to know where any of them came
from and what is done with the verdict (`session`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from armferry.decide import Answer, Verdict, Weight, compare_circumstances, judge
from armferry.ends import UNKNOWN, End, HostFacts, Move, ResetKnowledge
from armferry.ends.guest import guest_end
from armferry.gateway.errors import Refused
from armferry.hosts.qmp.around import Around
from armferry.policy import NO_RISK, Policy
from armferry.registers import Accelerator
from armferry.rewriting.edits import edit_of
from armferry.stream import CpuState
from armferry.stream.events import DeviceSection, RamBlock
from armferry.stream.rewrite import new_payloads, rewrite_description, rewrite_sections
from armferry.stream.saved_state import cpus_of, never_ran

__all__ = ["Judge", "Judgement", "PolicyFor"]

PolicyFor = Callable[[str, Accelerator], Policy]
"""The policy for a machine type ("virt-10.0") under the destination's accelerator."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a guest, and the sections it was made for; `cpus` in its order.

    `notes` are those of the move: what is to be said of the records it was made from.
    """

    sections: tuple[DeviceSection, ...]
    cpus: tuple[CpuState, ...]
    verdict: Verdict
    notes: tuple[str, ...] = ()

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
        payloads = new_payloads(self.sections, self.cpus, edit_of(self.verdict))
        return rewrite_sections(self.sections, payloads)

    def description(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """`document` as it describes `state`."""
        return rewrite_description(document, self.cpus, edit_of(self.verdict))


class Judge:
    """Decides on the device state of one guest for one destination.

    `source` is the source's host at reset where a fingerprint of it is at hand: what its registers
    held after reset is then known and need not be assumed. Raises GuestHadRun for another.
    """

    def __init__(self, destination: End, policy_for: PolicyFor, source: End | None = None) -> None:
        if source is not None:
            ResetKnowledge.require_reset(source)
        self._destination = destination
        self._policy_for = policy_for
        self._source = source

    def begin(self, machine: str, blocks: tuple[RamBlock, ...]) -> None:
        """Compares what a stream begins with, and what is known of the source beside it.

        Raises Refused; nothing has been passed on then.
        """
        refused = self._refused(machine, blocks, self._destination)
        if not refused and self._source is not None and self._source.machine == machine:
            foreseen = self.foresee(self._source)
            if not foreseen.accepted:
                refused = [f"{foreseen.reason}; decided on the source's fingerprint"]
        if refused:
            raise Refused(
                f"the move is refused: {'; '.join(refused)}; nothing was sent to the destination"
            )

    def apart(self, here: Around, there: Around) -> list[str]:
        """Why a load could not even begin, of two QEMUs that run; empty where it could."""
        known = replace(
            self._destination,
            machine=there.machine,
            memory=there.memory,
            accelerator=there.accelerator,
            whole=True,
        )
        if here.accelerator is not there.accelerator:
            guest = replace(known, text="the guest", accelerator=here.accelerator)
            return _words(guest, known)
        return self._refused(here.machine, here.memory, known)

    def _refused(self, machine: str, blocks: tuple[RamBlock, ...], there: End) -> list[str]:
        pages = UNKNOWN if self._source is None else self._source.host.page_bytes
        guest = replace(
            there,
            text="the guest",
            machine=machine or UNKNOWN,
            memory=blocks,
            devices=(),
            whole=True,
            host=HostFacts(page_bytes=pages),
        )
        return _words(guest, there)

    def prepare(self, machine: str) -> None:
        """Decides once on the destination's own list, so that the guest need not wait for it.

        The first decision reads the catalogue, the policy's documents and the stock rules, which
        takes some 50 ms; it is done while guest memory still travels.
        """
        self._verdict(replace(self._destination, machine=machine or UNKNOWN))

    def foresee(self, source: End) -> Judgement:
        """The decision on the registers of `source`, a host, before anything has come."""
        verdict, notes = self._verdict(replace(source, devices=()))
        return Judgement((), (), verdict, notes)

    def __call__(self, machine: str, sections: Sequence[DeviceSection]) -> Judgement:
        """The decision on these sections. Raises StreamError, PolicyError."""
        cpus = cpus_of(sections, sections[0].offset if sections else 0)
        source = guest_end(
            "the guest",
            machine,
            cpus,
            tuple(one.layout for one in sections if one.layout is not None),
            fresh=never_ran(sections, cpus),
            sections=sections,
        )
        verdict, notes = self._verdict(source, self._source)
        return Judgement(tuple(sections), cpus, verdict, notes)

    def _verdict(self, source: End, host: End | None = None) -> tuple[Verdict, tuple[str, ...]]:
        """The verdict, and the notes of the move."""
        destination = self._destination
        move = Move.between(source, destination, host=host)
        policy = self._policy_for(
            str(source.machine or destination.machine or ""), destination.accelerator
        )
        return judge(move, policy), move.notes


def _words(guest: End, there: End) -> list[str]:
    """What refuses a load before any register of `guest` is looked at."""
    found = compare_circumstances(Move.between(guest, there), NO_RISK)
    return [str(one) for one in found if one.weight is Weight.REFUSED]
