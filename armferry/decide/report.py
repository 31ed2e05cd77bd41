"""A verdict as a document: the stable JSON of `check`, `plan` and `ferry`, and trace lines.

The schema is versioned and described in docs/json.md; a program may rely on what it names.
"""

import json
from typing import Any

from armferry.decide.features import common_causes
from armferry.decide.model import RegisterOutcome
from armferry.decide.verdict import Answer, TraceEvent, Verdict

__all__ = ["SCHEMA_VERSION", "trace_line", "verdict_document"]

SCHEMA_VERSION = 1


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """The JSON object of a verdict. Registers that are simply matched are counted, not listed."""
    return {
        "schema": SCHEMA_VERSION,
        "verdict": verdict.answer.value,
        "risk": str(verdict.risk),
        "stock": _stock(verdict),
        "obstacles": list(verdict.obstacles),
        "breaks": list(verdict.broken),
        "unmeasured": [str(one) for one in verdict.unmeasured],
        "circumstances": [
            {
                "kind": one.kind.value,
                "subject": one.subject,
                "effect": one.weight.value,
                "risk": str(one.risk),
                "of_record": one.of_record,
                "why": str(one),
            }
            for one in verdict.circumstances
        ],
        "sections": [
            {
                "section": finding.device,
                "instance": finding.instance,
                "subject": finding.subject,
                "effect": finding.effect.value,
                "risk": str(finding.risk),
                "why": finding.why,
            }
            for finding in verdict.findings
        ],
        "causes": [
            {
                "vcpu": vcpu,
                "subject": cause.subject,
                "class": cause.register_class.value,
                "registers": [f"{one.index:#018x}" for one in cause.outcomes],
                "why": cause.why,
            }
            for vcpu, decision in enumerate(verdict.decisions)
            for cause in common_causes(decision.anomalies)
        ],
        "vcpus": len(verdict.decisions),
        "matched": sum(
            len(decision.outcomes) - len(decision.anomalies) for decision in verdict.decisions
        ),
        "registers": [_register(event) for event in verdict.events],
    }


def _stock(verdict: Verdict) -> dict[str, Any]:
    """What QEMU alone does; its verdict is "unknown" when nobody said which QEMU it is."""
    stock = verdict.stock
    if stock is None:
        return {"verdict": "unknown", "message": "", "class": "", "registers": [], "rules": ""}
    return {
        "verdict": (Answer.WORKS if stock.loads else Answer.FAILS).value,
        "message": stock.message,
        "class": stock.message_class.value,
        "registers": [f"{index:#018x}" for index in stock.culprits],
        "rules": stock.rules,
    }


def trace_line(event: TraceEvent) -> str:
    """One event as a line of JSON, without the line's end."""
    return json.dumps({"event": "register", **_register(event)})


def _register(event: TraceEvent) -> dict[str, Any]:
    outcome: RegisterOutcome = event.outcome
    return {
        "vcpu": event.vcpu,
        "index": f"{outcome.index:#018x}",
        "name": outcome.name,
        "class": outcome.register_class.value,
        "source_value": _hex(outcome.source),
        "destination_value": _hex(outcome.destination),
        "sent_value": _hex(outcome.outgoing),
        "risk": str(outcome.risk),
        "origin": [
            {"source": origin.kind.value, "where": origin.where, "reason": origin.reason}
            for origin in outcome.origins
        ],
        "why": outcome.why,
    }


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"
