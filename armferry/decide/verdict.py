"""The verdict on a whole VM: every vCPU's decision, and what else stands in the way.

Knows how decisions add up; refuses to know where the lists come from and how a verdict is shown.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass

from armferry.decide.causes import Dropped, ValueChanged, ValueRefused
from armferry.decide.circumstance import Circumstance, CircumstanceKind, Weight
from armferry.decide.circumstances import compare_circumstances
from armferry.decide.harms import LosesFeatures
from armferry.decide.layout import CPU, FEATURES, Effect, SectionDifference, compare_sections
from armferry.decide.model import Decision, RegisterOutcome
from armferry.decide.risk_level import Risk
from armferry.decide.shared import decide_all
from armferry.decide.stock import stock_verdict
from armferry.decide.stock_lines import StockVerdict
from armferry.ends import Move
from armferry.facts import FactSubject, Unmeasured, unmeasured
from armferry.policy import Policy
from armferry.registers import Accelerator

__all__ = ["Answer", "TraceEvent", "Verdict", "judge"]


class Answer(enum.StrEnum):
    """Whether the move works, and whether it needs a policy."""

    WORKS = "works"
    WORKS_WITH_POLICY = "works-with-policy"
    FAILS = "fails"

    @property
    def words(self) -> str:
        """The same as a person reads it."""
        return "works with armferry" if self is Answer.WORKS_WITH_POLICY else self.value


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One register of one vCPU that is not simply matched."""

    vcpu: int
    outcome: RegisterOutcome

    def __str__(self) -> str:
        outcome = self.outcome
        return (
            f"vcpu {self.vcpu} {outcome.name} {outcome.index:#018x} "
            f"{outcome.fate}: source {_hex(outcome.source)} "
            f"destination {_hex(outcome.destination)} sent {_hex(outcome.outgoing)}"
            f" risk {outcome.risk}: {outcome.why}"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the load does.

    `obstacles` are reasons beyond the register lists, in words; `findings` every difference of the
    sections, `circumstances` what stands around the lists. `features` is the env.features word to
    send, None to leave what comes. `stock` is what the destination's QEMU would do by itself, None
    when its version is not known. `unmeasured` are releases that no fact was measured with,
    `policy_notes` what is to be said of how the policy was chosen.
    """

    decisions: tuple[Decision, ...]
    changed: bool
    obstacles: tuple[str, ...] = ()
    findings: tuple[SectionDifference, ...] = ()
    circumstances: tuple[Circumstance, ...] = ()
    features: int | None = None
    stock: StockVerdict | None = None
    unmeasured: tuple[Unmeasured, ...] = ()
    policy_notes: tuple[str, ...] = ()

    @property
    def answer(self) -> Answer:
        """Works as it is, works with the stated policy, or fails."""
        if self.obstacles or not all(decision.accepted for decision in self.decisions):
            return Answer.FAILS
        allowed = any(one.weight is Weight.ACCEPTED for one in self.circumstances)
        return Answer.WORKS_WITH_POLICY if self.changed or allowed else Answer.WORKS

    @property
    def risk(self) -> Risk:
        """The highest risk of any vCPU and any section."""
        risks = [decision.risk for decision in self.decisions]
        risks += [finding.risk for finding in self.findings]
        return max([*risks, *(one.risk for one in self.circumstances)], default=Risk.NONE)

    @property
    def all_compared(self) -> bool:
        """Whether everything that is compared was known of both ends: the risk is of that alone."""
        return not any(one.weight is Weight.UNKNOWN for one in self.circumstances)

    @property
    def broken(self) -> tuple[str, ...]:
        """What a running guest loses and may be using, such as `ID_AA64ISAR1_EL1.APA`."""
        return tuple(
            dict.fromkeys(
                f"{outcome.name}.{lost.field.name}"
                for decision in self.decisions
                for outcome in decision.anomalies
                if isinstance(outcome.cause, ValueRefused | ValueChanged | Dropped)
                and isinstance(outcome.cause.harm, LosesFeatures)
                for lost in outcome.cause.harm.fields
            )
        )

    @property
    def lists(self) -> tuple[dict[int, int], ...]:
        """The lists to send, one for each vCPU."""
        return tuple(decision.outgoing for decision in self.decisions)

    def dropped_subsections(self, vcpu: int) -> frozenset[str]:
        """The subsections that the vCPU's section is sent without."""
        return frozenset(
            finding.subject
            for finding in self.findings
            if finding.effect is Effect.REWRITTEN
            and (finding.device, finding.instance) == (CPU, vcpu)
            and finding.subject != FEATURES
        )

    @property
    def dropped_elsewhere(self) -> dict[tuple[str, int], frozenset[str]]:
        """The subsections that any other section is sent without, by its name and instance."""
        dropped: dict[tuple[str, int], frozenset[str]] = {}
        for finding in self.findings:
            if finding.effect is Effect.REWRITTEN and finding.device != CPU:
                key = finding.device, finding.instance
                dropped[key] = dropped.get(key, frozenset()) | {finding.subject}
        return dropped

    @property
    def notes(self) -> tuple[str, ...]:
        """What cannot be said beforehand, and what is noted beside it, in words."""
        return (
            *self.policy_notes,
            *(f"{one}: what is known of {one.limit} is taken for it" for one in self.unmeasured),
            *(str(one) for one in self.circumstances if one.weight is not Weight.REFUSED),
            *(str(one) for one in self.findings if one.effect is Effect.UNCERTAIN),
        )

    @property
    def events(self) -> tuple[TraceEvent, ...]:
        """Every register of every vCPU that is not simply matched."""
        return tuple(
            TraceEvent(vcpu, outcome)
            for vcpu, decision in enumerate(self.decisions)
            for outcome in decision.anomalies
        )


def judge(move: Move, policy: Policy, trace: Callable[[TraceEvent], None] | None = None) -> Verdict:
    """The verdict on `move` under `policy`; `trace` is called for each of its events."""
    circumstances = compare_circumstances(move, policy.accepted)
    # under another accelerator nothing below can be compared
    apart = any(one.kind is CircumstanceKind.ACCELERATOR for one in circumstances)
    # of an accelerator whose guests QEMU lets nobody move there is nothing to load
    movable = not any(one.subject == Accelerator.WHPX.value for one in circumstances)
    stock = stock_verdict(move) if move.qemu and movable else None
    loads = stock is not None and stock.loads
    decisions = (
        (Decision(()),) * len(move.lists) if apart else decide_all(move, policy, stock_loads=loads)
    )
    changed = any(decision.altered for decision in decisions)
    findings = () if apart else compare_sections(move, policy.accepted)
    rewritten = [finding for finding in findings if finding.effect is Effect.REWRITTEN]
    verdict = Verdict(
        decisions,
        changed or bool(rewritten),
        (
            *(str(one) for one in circumstances if one.weight is Weight.REFUSED),
            *(str(one) for one in findings if one.effect is Effect.REFUSED),
        ),
        findings,
        circumstances,
        move.destination.features if any(one.subject == FEATURES for one in rewritten) else None,
        stock,
        _unmeasured(move),
        tuple(sorted(policy.notes)),
    )
    if trace is not None:
        for event in verdict.events:
            trace(event)
    return verdict


def _unmeasured(move: Move) -> tuple[Unmeasured, ...]:
    """The releases of this move beyond those that facts were measured with."""
    said = (
        (FactSubject.MACHINE, move.source.machine),
        (FactSubject.MACHINE, move.destination.machine),
        (FactSubject.QEMU, move.source.qemu),
        (FactSubject.QEMU, move.qemu),
        (FactSubject.KERNEL, move.source.kernel),
        (FactSubject.KERNEL, move.destination.kernel),
    )
    found = (unmeasured(subject, str(release)) for subject, release in said if release)
    return tuple(dict.fromkeys(one for one in found if one is not None))


def _hex(value: int | None) -> str:
    return "-" if value is None else f"{value:#x}"
