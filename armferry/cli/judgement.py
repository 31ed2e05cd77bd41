"""A verdict for the command line: made from two subjects and the options, shown to a person."""

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from armferry.cli import render, words
from armferry.cli.options import add_policy, policy_of, policy_warnings, policy_words
from armferry.cli.render import Cell, Table
from armferry.cli.snapshot_option import add_snapshot, with_snapshot
from armferry.cli.trace import tracing
from armferry.decide import (
    Answer,
    Effect,
    RegisterClass,
    RegisterOutcome,
    Risk,
    Verdict,
    judge,
    verdict_document,
)
from armferry.decide.features import CommonCause, common_causes
from armferry.ends import End, Move, ResetKnowledge
from armferry.errors import ArmferryError
from armferry.hosts.fingerprints.subject import (
    OWN_KVM,
    OWN_NESTED_KVM,
    STANDARD_INPUT,
    Subject,
    open_subject,
)
from armferry.policy import Policy

if TYPE_CHECKING:
    # only a move to this host's own kernel loads it
    from armferry.hosts.fingerprints.kvm import Preflight

__all__ = [
    "EXIT_CODES",
    "Report",
    "add_judgement",
    "check_ends",
    "command",
    "document",
    "judge_move",
    "open_source",
    "show",
    "source_host",
]

EXIT_CODES = {Answer.WORKS: 0, Answer.WORKS_WITH_POLICY: 1, Answer.FAILS: 2}


def add_judgement(parser: argparse.ArgumentParser, *, destination_required: bool = True) -> None:
    """The options that a verdict takes."""
    add_snapshot(parser, "SOURCE")
    parser.add_argument(
        "--to",
        metavar="DEST",
        required=destination_required,
        help="the destination: a fingerprint, a stream, an entry of the atlas (atlas:6.12), or "
        "kvm: for this host's own kernel, which is then tried out",
    )
    parser.add_argument(
        "--source-fingerprint",
        metavar="FILE",
        help="a fingerprint of the source's host: its reset values tell what the guest changed",
    )
    parser.add_argument(
        "--destination-qemu",
        metavar="VERSION",
        default="",
        help="the version of the destination's QEMU, where DEST does not know it: 10.0.13",
    )
    add_policy(parser)


@dataclass(frozen=True, slots=True)
class Report:
    """A verdict and what it is about; `kernel` is what this host's own said, if it was asked.

    `notes` are those of the move: what is to be said of the records it was made from.
    """

    source: Subject
    destination: Subject
    policy: Policy
    verdict: Verdict
    notes: tuple[str, ...] = ()
    kernel: "Preflight | None" = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know beside the verdict."""
        found = policy_warnings(self.policy)
        if not self.destination.fingerprint.at_reset:
            found.append(
                f"{self.destination.text} was taken from a guest that had run: what is said of "
                "the destination's reset values may be off"
            )
        here, there = len(self.source.lists), len(self.destination.lists)
        # a kernel that was asked was asked for every vCPU
        if here != there and self.kernel is None:
            found.append(
                f"the guest has {here} vCPUs, {self.destination.text} was made with {there}: "
                f"vCPUs without a record are taken to be like its first; make it with --smp {here} "
                "to be sure"
            )
        return (*found, *self.notes, *self.verdict.notes)


def judge_move(arguments: argparse.Namespace, source: Subject) -> Report:
    """The verdict on moving `source` as the options say. Raises ArmferryError."""
    destination = open_subject(arguments.to)
    move = Move.between(
        source.end,
        destination.end,
        host=source_host(arguments),
        qemu=arguments.destination_qemu,
    )
    policy = policy_of(arguments, source.machine or destination.machine, destination.accelerator)
    with tracing(arguments) as trace:
        verdict = judge(move, policy, trace)
    if destination.text not in (OWN_KVM, OWN_NESTED_KVM):
        return Report(source, destination, policy, verdict, move.notes)
    from armferry.cli import preflight

    kernel = preflight.ask_kernel(move, verdict, policy, nested=destination.text == OWN_NESTED_KVM)
    refused = preflight.obstacles(kernel, policy)
    verdict = replace(verdict, obstacles=(*verdict.obstacles, *refused))
    return Report(source, destination, policy, verdict, move.notes, kernel)


def open_source(arguments: argparse.Namespace) -> Subject:
    """What SOURCE names. Raises ArmferryError."""
    check_ends(arguments)
    return open_subject(arguments.source)


def check_ends(arguments: argparse.Namespace) -> None:
    """Makes SOURCE and the name of its snapshot one word.

    Raises ArmferryError when both ends are standard input, before anything is read from it.
    """
    arguments.source = with_snapshot(arguments.source, arguments.snapshot)
    arguments.snapshot = None
    if arguments.source == arguments.to == STANDARD_INPUT:
        raise ArmferryError("standard input can be one end of the move only; name a file for --to")


def source_host(arguments: argparse.Namespace) -> End | None:
    """The host that `--source-fingerprint` names, if any. Raises ArmferryError."""
    if arguments.source_fingerprint is None:
        return None
    host = open_subject(arguments.source_fingerprint).end
    ResetKnowledge.require_reset(host)
    return host


def command(verb: str, arguments: argparse.Namespace, *, source: str = "", target: str = "") -> str:
    """What to type for another command on the same move, with the same policy.

    `source` stands for the guest where the options name something that holds none.
    """
    words = ["armferry", verb, source or arguments.source, target, "--to", arguments.to]
    if arguments.source_fingerprint is not None:
        words += ["--source-fingerprint", arguments.source_fingerprint]
    if arguments.destination_qemu:
        words += ["--destination-qemu", arguments.destination_qemu]
    words = [word for word in words if word] + policy_words(arguments)
    return shlex.join(words)


def document(judgement: Report) -> dict[str, Any]:
    """The JSON of `check` and `ferry`."""
    kernel = judgement.kernel
    asked = None
    if kernel is not None:
        from armferry.cli import preflight

        asked = preflight.document(kernel)
    return {
        **verdict_document(judgement.verdict),
        "source": judgement.source.text,
        "destination": judgement.destination.text,
        "machine": judgement.source.machine,
        "warnings": list(judgement.warnings),
        "preflight": asked,
    }


def show(judgement: Report, *, verbose: bool = False) -> None:
    """The verdict for a person, without the last line.

    Registers that one cause explains are one line, unless it is to be `verbose`.
    """
    verdict = judgement.verdict
    if verdict.broken:
        render.line(f"breaks a guest that uses {', '.join(verdict.broken)}", "bad")
    saved, there = judgement.source.saved, judgement.destination
    render.facts(
        [
            ("guest", f"{judgement.source.text}: {words.end(judgement.source.fingerprint)}"),
            ("", words.guest(saved) if saved else ""),
            ("to", f"{there.text.removesuffix(':')}: {words.end(there.fingerprint)}"),
        ]
    )
    if verdict.events:
        render.heading("Registers that are not simply matched")
        render.table(
            Table(
                ("register", "index", "vCPU", "class", "source", "destination", "why"),
                [*_causes(verdict, verbose), *_singles(verdict, verbose)],
            )
        )
    rewritten = [one for one in verdict.findings if one.effect is Effect.REWRITTEN]
    if rewritten:
        render.heading("Other changes to the device state")
        for finding in rewritten:
            render.line(f"  {finding}", words.risk_role(finding.risk))
    _show_origins(verdict)
    for obstacle in verdict.obstacles:
        render.line(f"obstacle: {obstacle}", "bad")
    for warning in judgement.warnings:
        render.line(f"note: {warning}", "warn")
    if verdict.stock is not None:
        render.heading("The destination's QEMU alone")
        render.line(f"{verdict.stock.message_class} (rules: {verdict.stock.rules})")
        for line in verdict.stock.message.splitlines():
            render.line(f"  {line}", "faint")
    if judgement.kernel is not None:
        from armferry.cli import preflight

        preflight.show(judgement.kernel)
    render.heading("Verdict")
    render.line(_summary(verdict), _role(verdict))


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
            Cell(f"{names}, ...", "faint"),
            Cell(words.vcpus(vcpus)),
            Cell(cause.register_class.value, role),
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
        Cell(f"{outcome.index:#018x}", "faint"),
        Cell(words.vcpus(vcpus)),
        Cell(outcome.register_class.value, role),
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
            render.line(f"  {origin}")


def _summary(verdict: Verdict) -> str:
    refused = sum(len(decision.refused) for decision in verdict.decisions)
    match verdict.answer:
        case Answer.WORKS:
            return "works as it is, risk none"
        case Answer.WORKS_WITH_POLICY:
            return f"works with armferry, risk {verdict.risk}"
        case Answer.FAILS:
            parts = []
            if refused:
                parts.append(f"{refused} register{'s' if refused > 1 else ''} refused")
            parts += ["see the obstacle above"] * bool(verdict.obstacles)
            return f"fails: {', '.join(parts)}"


def _role(verdict: Verdict) -> str:
    if verdict.answer is Answer.FAILS:
        return "bad"
    return words.risk_role(verdict.risk) if verdict.risk > Risk.NONE else "good"
