"""On which values of a guest a move hangs: "works if TCR2_EL1 holds 0".

A host at reset is judged once as it is, and once more as a guest that wrote every register of which
something does not travel. What the second is refused for are the conditions of the first.
"""

from collections.abc import Mapping
from dataclasses import replace

from armferry.decide import Answer as VerdictAnswer
from armferry.decide import RegisterOutcome, Risk, Verdict, judge
from armferry.decide.causes import Condition as MaskedValue
from armferry.decide.causes import CounterJumps, Dropped
from armferry.decide.physical_counter import PHYSICAL_COUNTER, UNUSED_WHILE
from armferry.decide.reset import read_only
from armferry.ends import End, Move
from armferry.fleet.model import Answer, Cell, Condition
from armferry.policy import Policy
from armferry.registers import describe, name

__all__ = ["cell_of"]

_WHOLE = (1 << 64) - 1
_NAMES = 4


def cell_of(source: End, destination: End, policy: Policy) -> Cell:
    """The cell of a move; `source` is a host at reset, or the state of a guest."""
    verdict = judge(Move.between(source, destination), policy)
    stock = verdict.stock
    alone = "unknown" if stock is None else ("works" if stock.loads else "fails")
    if verdict.answer is VerdictAnswer.FAILS:
        return Cell(Answer.NEVER, verdict.risk, verdict="fails", stock=alone, why=_why(verdict))
    needed, losing = _conditions(source, destination, policy, verdict)
    own = Answer.STOCK if alone == "works" else Answer.ARMFERRY
    answer = Answer.GUEST if needed else own
    return Cell(answer, verdict.risk, needed, verdict.answer.value, alone, lossless_if=losing)


def _conditions(
    source: End, destination: End, policy: Policy, verdict: Verdict
) -> tuple[tuple[Condition, ...], tuple[Condition, ...]]:
    """What must hold for the move to work, and what for nothing to be lost by it."""
    written = {
        outcome.index
        for decision in verdict.decisions
        for outcome in decision.anomalies
        if outcome.source is not None and not read_only(outcome.index)
    }
    own = source.cpus[0]
    if PHYSICAL_COUNTER in own or PHYSICAL_COUNTER in destination.cpus[0]:
        written.update(own.keys() & UNUSED_WHILE.keys())
    if not written:
        return (), ()
    guest = replace(
        source,
        guest=True,
        at_reset=False,
        cpus=tuple(_written(registers, written) for registers in source.cpus),
    )
    after = judge(Move.between(guest, destination, host=source), policy)
    before = {one.outcome.index: one.outcome for one in verdict.events}
    needed: dict[Condition, None] = {}
    losing: dict[Condition, None] = {}
    for event in after.events:
        outcome = event.outcome
        was = before.get(outcome.index)
        if outcome.refused and not (was is not None and was.refused):
            needed |= dict.fromkeys(_required(outcome, was, source))
        elif outcome.risk >= Risk.LOSSY and (was is None or was.risk < Risk.LOSSY):
            losing |= dict.fromkeys(_required(outcome, was, source))
    return tuple(needed), tuple(losing)


def _written(registers: Mapping[int, int], written: set[int]) -> dict[int, int]:
    """The list once a guest wrote something else into each of `written`."""
    return {
        index: value ^ ((1 << 8 * min(describe(index).size, 8)) - 1) if index in written else value
        for index, value in registers.items()
    }


def _required(
    outcome: RegisterOutcome, was: RegisterOutcome | None, source: End
) -> list[Condition]:
    """What the guest must hold for an outcome to be what it is at reset."""
    index, own = outcome.index, source.cpus[0]
    if index == PHYSICAL_COUNTER or isinstance(outcome.cause, CounterJumps):
        return [
            Condition(one, name(one, source.accelerator), mask, 0)
            for one, mask in UNUSED_WHILE.items()
            if one in own
        ]
    cause = None if was is None else was.cause
    if isinstance(cause, Dropped) and isinstance(cause.permission, MaskedValue):
        rule = cause.permission
        return [Condition(index, outcome.name, rule.mask, rule.expected)]
    return [Condition(index, outcome.name, _WHOLE, own.get(index, 0))]


def _why(verdict: Verdict) -> str:
    refused = (one.name for decision in verdict.decisions for one in decision.refused)
    names = list(dict.fromkeys(refused))
    if not names:
        return verdict.obstacles[0]
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f"no rule of the policy allows {', '.join(names[:_NAMES])}{more}"
