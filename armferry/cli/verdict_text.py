"""A verdict as a person reads it: what it is first, then why, register by register.

Knows how outcomes that are the same on several vCPUs, or that one cause explains, become one line;
refuses to know how the verdict was made (`judgement`).
"""

from collections.abc import Iterator

from armferry.cli import render, words
from armferry.cli.judgement import Report
from armferry.cli.render import Cell, Table
from armferry.decide import (
    Answer,
    Effect,
    RegisterClass,
    RegisterOutcome,
    Risk,
    StockVerdict,
    Verdict,
)
from armferry.decide.features import CommonCause, common_causes

__all__ = ["show", "show_answer"]


def show(judgement: Report, *, verbose: bool = False) -> None:
    """The verdict for a person, what it is before why.

    Registers that one cause explains are one line, unless it is to be `verbose`.
    """
    verdict = judgement.verdict
    show_answer(verdict)
    here, there = judgement.source, judgement.destination
    saved = f", {words.guest(here.saved)}" if here.saved else ""
    render.facts(
        [
            ("guest", f"{here.text}: {words.end(here.fingerprint)}{saved}"),
            ("to", f"{there.text.removesuffix(':')}: {words.end(there.fingerprint)}"),
        ]
    )
    for obstacle in verdict.obstacles:
        render.prose(f"obstacle: {obstacle}", "bad", indent=0, hang=2)
    if verdict.events:
        render.heading("Registers that differ")
        render.table(
            Table(
                ("register", "what happens", "vCPU", "index", "source", "destination", "why"),
                [*_causes(verdict, verbose), *_singles(verdict, verbose)],
                unnamed=("what happens", "index"),
            )
        )
    rewritten = [one for one in verdict.findings if one.effect is Effect.REWRITTEN]
    if rewritten:
        render.heading("Other changes to the device state")
        for finding in rewritten:
            render.prose(str(finding), words.risk_role(finding.risk), hang=2)
    _show_origins(verdict)
    if judgement.warnings:
        render.line()
    for warning in judgement.warnings:
        render.prose(f"note: {warning}", "warn", indent=0, hang=2)
    if verdict.stock is not None:
        _show_stock(verdict.stock, judgement.qemu)
    if judgement.kernel is not None:
        from armferry.cli import preflight

        preflight.show(judgement.kernel)


def show_answer(verdict: Verdict) -> None:
    """The verdict in one line, and in another what a running guest loses."""
    render.line(_answer(verdict), _role(verdict))
    if verdict.broken:
        lost = f"breaks a guest that uses {', '.join(verdict.broken)}"
        render.prose(lost, "bad", indent=0, hang=2)


def _answer(verdict: Verdict) -> str:
    match verdict.answer:
        case Answer.WORKS:
            return f"works as it is, risk {_risk(verdict)}"
        case Answer.WORKS_WITH_POLICY:
            return f"{verdict.answer.words}, risk {_risk(verdict)}"
        case Answer.FAILS:
            refused = {one.index for decision in verdict.decisions for one in decision.refused}
            vcpus = sum(not decision.accepted for decision in verdict.decisions)
            registers = _counted(len(refused), "register") + " refused"
            several = f" ({vcpus} vCPUs)" if vcpus > 1 else ""
            parts = [registers + several] if refused else []
            if verdict.obstacles:
                parts.append(_counted(len(verdict.obstacles), "obstacle"))
            return f"{verdict.answer.words}: {', '.join(parts)}"


def _risk(verdict: Verdict) -> str:
    compared = "" if verdict.all_compared else " in what was compared"
    return f"{verdict.risk}{compared}"


def _role(verdict: Verdict) -> str:
    if verdict.answer is Answer.FAILS:
        return "bad"
    return words.risk_role(verdict.risk) if verdict.risk > Risk.NONE else "good"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _show_stock(stock: StockVerdict, version: str) -> None:
    measured = f"as measured with QEMU {stock.rules}"
    render.heading(f"Stock QEMU {version} would {'load it' if stock.loads else 'say'}")
    for line in stock.message.splitlines():
        render.prose(line, "faint", hang=2)
    if stock.loads:
        render.prose(f"({measured})", "faint")
    else:
        render.prose(f"and refuse the guest: {stock.message_class} ({measured})", hang=2)


def _grouped(verdict: Verdict) -> list[tuple[RegisterOutcome, list[int]]]:
    """Outcomes that are the same on several vCPUs once, with their vCPUs.

    What refuses the load comes first, what a rule decided next, what merely stays last.
    """
    groups: dict[RegisterOutcome, list[int]] = {}
    for event in verdict.events:
        groups.setdefault(event.outcome, []).append(event.vcpu)

    def order(group: tuple[RegisterOutcome, list[int]]) -> tuple[bool, bool, int, list[int]]:
        outcome, vcpus = group
        stays = outcome.register_class is RegisterClass.ONLY_DESTINATION
        return not outcome.refused, stays, outcome.index, vcpus

    return sorted(groups.items(), key=order)


def _common(verdict: Verdict) -> list[tuple[CommonCause, list[int]]]:
    """Each cause of several registers, with the vCPUs that it is one for."""
    groups: dict[CommonCause, list[int]] = {}
    for vcpu, decision in enumerate(verdict.decisions):
        for cause in common_causes(decision.anomalies):
            groups.setdefault(cause, []).append(vcpu)
    return list(groups.items())


def _causes(verdict: Verdict, verbose: bool) -> Iterator[tuple[Cell, ...]]:
    for cause, vcpus in () if verbose else _common(verdict):
        first = cause.outcomes[0]
        role = "bad" if first.refused else words.risk_role(max(o.risk for o in cause.outcomes))
        names = ", ".join(one.name for one in cause.outcomes[:3])
        yield (
            Cell(f"{len(cause.outcomes)} of {cause.subject}", role),
            Cell(first.fate, role),
            Cell(words.vcpus(vcpus)),
            Cell(f"{names}, ...", "faint"),
            Cell("-"),
            Cell("-"),
            Cell(f"{cause.why}; --verbose lists them"),
        )


def _singles(verdict: Verdict, verbose: bool) -> Iterator[tuple[Cell, ...]]:
    explained = {
        (outcome, vcpu)
        for cause, vcpus in ([] if verbose else _common(verdict))
        for outcome in cause.outcomes
        for vcpu in vcpus
    }
    for outcome, vcpus in _grouped(verdict):
        left = [vcpu for vcpu in vcpus if (outcome, vcpu) not in explained]
        if left:
            yield _row(outcome, left)


def _row(outcome: RegisterOutcome, vcpus: list[int]) -> tuple[Cell, ...]:
    role = "bad" if outcome.refused else words.risk_role(outcome.risk)
    return (
        Cell(outcome.name, role),
        Cell(outcome.fate, role),
        Cell(words.vcpus(vcpus)),
        Cell(f"{outcome.index:#018x}", "faint"),
        Cell(words.value(outcome.source)),
        Cell(words.value(outcome.destination)),
        Cell(outcome.why),
    )


def _show_origins(verdict: Verdict) -> None:
    outcomes = [event.outcome for event in verdict.events if not event.outcome.refused]
    origins = sorted({str(origin) for outcome in outcomes for origin in outcome.origins})
    if origins:
        render.heading("Allowed by")
        for origin in origins:
            render.prose(origin, hang=2)
