"""The smallest policy that makes a guest load on a destination, each entry with its reason.

Knows which rule allows what was refused: one entry for each refused register or subsection and
none besides, so leaving out any of them refuses the load again. Naming a register in a policy
accepts its risk, so each reason says what that risk is. What no policy can mend stays an obstacle.
How a plan is written is for `plan_text`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from armferry.decide.circumstance import Weight
from armferry.decide.features import CommonCause, common_causes
from armferry.decide.layout import Effect
from armferry.decide.model import RegisterClass, RegisterOutcome
from armferry.decide.reset import read_only
from armferry.decide.risk_level import Risk
from armferry.decide.values import fields_fit
from armferry.decide.verdict import Answer, Verdict, judge
from armferry.decide.words import reason
from armferry.ends import Move
from armferry.policy import (
    AcceptedRisk,
    CapAtDestination,
    FieldsAtMostDestination,
    OnlySourceIf,
    OnlySourceIfReset,
    Origin,
    OriginKind,
    Policy,
    TakeDestination,
    Tolerance,
    TolerancePlaced,
    format_rule,
)
from armferry.registers import Kind, describe, name

__all__ = ["Plan", "PlanEntry", "make_plan"]

_WHERE = "armferry plan"
_WHOLE = (1 << 64) - 1
_ACCEPT = "accept-risk"


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """One thing to allow: what, by which rule, at what risk, and why.

    `index` is None for a subsection of cpu, which `name` names. `action` is the rule as a policy
    file writes it, or `safe-missing`, or `accept-risk`.
    """

    index: int | None
    name: str
    action: str
    risk: Risk
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What must be allowed, and what then happens.

    `policy` holds the entries alone, without what already applied; `verdict` is the verdict on
    the move under both. `obstacles` are in words; a plan with any of them does not help. `causes`
    has for each register that was refused with others what explains all of them.
    """

    entries: tuple[PlanEntry, ...]
    policy: Policy
    verdict: Verdict
    causes: Mapping[int, CommonCause] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        """Whether the move works under the plan."""
        return self.verdict.answer is not Answer.FAILS

    @property
    def obstacles(self) -> tuple[str, ...]:
        """What no policy allows: obstacles, and registers that are still refused."""
        refused: list[str] = []
        for event in self.verdict.events:
            if event.outcome.refused:
                cause = self.causes.get(event.outcome.index)
                what = f"{event.outcome.name} of vCPU {event.vcpu}: {event.outcome.why}"
                refused.append(what if cause is None else f"{cause.counted}: {cause.why}")
        return (*self.verdict.obstacles, *dict.fromkeys(refused))


def make_plan(move: Move, policy: Policy) -> Plan:
    """The least that must be added to `policy` for `move` to work."""
    before = judge(move, policy)
    chosen: dict[int, tuple[PlanEntry, Policy]] = {}
    for index, outcomes in _refused(before).items():
        risk = max(outcome.risk for outcome in outcomes)
        because = _reason(outcomes, risk)
        action, rule = _lifting(index, outcomes, policy, because)
        chosen[index] = PlanEntry(index, outcomes[0].name, action, risk, because), rule
    parts = {
        one.subject: PlanEntry(
            None,
            one.subject,
            _ACCEPT,
            one.risk,
            f"{one.what} (risk {one.risk})",
        )
        for one in before.findings
        if one.effect is Effect.REFUSED and one.risk is Risk.LOSSY
    }
    around = {
        one.accepted_by: PlanEntry(
            one.accepted_by,
            name(one.accepted_by),
            _ACCEPT,
            one.risk,
            f"{one.why} (risk {one.risk})",
        )
        for one in before.circumstances
        if one.weight is Weight.REFUSED and one.accepted_by is not None
    }
    subsections = Policy(accepted=AcceptedRisk(frozenset(around), subsections=frozenset(parts)))
    verdict = judge(move, _united(policy, subsections, chosen))
    for index in _refused(verdict).keys() & chosen.keys():
        del chosen[index]  # nothing lifts it: what was tried is no help
    return Plan(
        (*(entry for entry, _ in chosen.values()), *parts.values(), *around.values()),
        _united(Policy(), subsections, chosen),
        verdict,
        {
            outcome.index: cause
            for decision in before.decisions
            for cause in common_causes(decision.anomalies)
            for outcome in cause.outcomes
            if outcome.refused
        },
    )


def _united(
    first: Policy, second: Policy, chosen: Mapping[int, tuple[PlanEntry, Policy]]
) -> Policy:
    united = first.union(second)
    for _, rule in chosen.values():
        united = united.union(rule)
    return united


def _refused(verdict: Verdict) -> dict[int, list[RegisterOutcome]]:
    """Index -> what was refused of it, one for each vCPU that it concerns."""
    refused: dict[int, list[RegisterOutcome]] = {}
    for event in verdict.events:
        if event.outcome.refused:
            refused.setdefault(event.outcome.index, []).append(event.outcome)
    return dict(sorted(refused.items()))


def _lifting(
    index: int, outcomes: Sequence[RegisterOutcome], policy: Policy, because: str
) -> tuple[str, Policy]:
    """The narrowest entry that lifts a refusal: its action, and the policy that says it."""
    if index in policy.hidden or all(outcome.source is None for outcome in outcomes):
        # no rule is looked at where a register is hidden or nobody sends it: its risk is accepted
        return _ACCEPT, Policy(accepted=AcceptedRisk(frozenset({index})))
    # named in a file, as it will be once the plan is written: that is what accepts the risk
    origins = (Origin(OriginKind.FILE, _WHERE, because),)
    tolerance = _tolerance(index, outcomes)
    if tolerance is None:
        return "safe-missing", Policy(safe_missing={index: origins})
    return format_rule(tolerance), Policy(tolerances=(TolerancePlaced(tolerance, origins),))


def _tolerance(index: int, outcomes: Sequence[RegisterOutcome]) -> Tolerance | None:
    """The narrowest rule that allows all of them; None for safe-missing, which looks at nothing."""
    if any(outcome.register_class is RegisterClass.ONLY_INCOMING for outcome in outcomes):
        values = {outcome.source for outcome in outcomes if outcome.source is not None}
        if all(outcome.risk <= Risk.LOSSLESS for outcome in outcomes):
            return OnlySourceIfReset(index, tuple(values))
        # what is read-only to the guest does not change on the way: only this value is let go
        return (
            OnlySourceIf(index, _WHOLE, *values) if read_only(index) and len(values) == 1 else None
        )
    if describe(index).kind.is_firmware:
        return CapAtDestination(index)
    fit = all(
        outcome.source is not None
        and outcome.destination is not None
        and describe(index).kind is Kind.IDENTIFICATION
        and fields_fit(index, outcome.source, outcome.destination)
        for outcome in outcomes
    )
    return FieldsAtMostDestination(index) if fit else TakeDestination(index)


def _reason(outcomes: Sequence[RegisterOutcome], risk: Risk) -> str:
    words = list(dict.fromkeys(reason(one.index, one.cause) for one in outcomes))
    return f"{'; '.join(words)} (risk {risk})"
