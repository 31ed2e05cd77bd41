"""A verdict for the command line, made from two subjects and the options.

`verdict_text` shows it to a person.
"""

import argparse
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from armferry.cli.options import add_policy, policy_of, policy_warnings, policy_words
from armferry.cli.snapshot_option import add_snapshot, with_snapshot
from armferry.cli.trace import tracing
from armferry.decide import Answer, Verdict, judge, make_plan, verdict_document
from armferry.ends import End, Move, ResetKnowledge
from armferry.errors import ArmferryError
from armferry.hosts.fingerprints.open_subject import (
    OWN_KVM,
    OWN_NESTED_KVM,
    STANDARD_INPUT,
    open_subject,
)
from armferry.hosts.fingerprints.subject import Subject
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
        help="the destination: a fingerprint, a stream, an entry of the atlas "
        "(atlas:6.12/neoverse-n1), or "
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

    `notes` are those of the move: what is to be said of the records it was made from; `qemu` the
    version of the destination's QEMU, empty when it is not known. `plannable` says of a move that
    fails that a policy would let it work.
    """

    source: Subject
    destination: Subject
    policy: Policy
    verdict: Verdict
    notes: tuple[str, ...] = ()
    qemu: str = ""
    kernel: "Preflight | None" = None
    plannable: bool = False

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
        return Report(
            source,
            destination,
            policy,
            verdict,
            move.notes,
            str(move.qemu or ""),
            plannable=verdict.answer is Answer.FAILS and make_plan(move, policy).works,
        )
    from armferry.cli import preflight

    kernel = preflight.ask_kernel(move, verdict, policy, nested=destination.text == OWN_NESTED_KVM)
    refused = preflight.obstacles(kernel, policy)
    verdict = replace(verdict, obstacles=(*verdict.obstacles, *refused))
    return Report(source, destination, policy, verdict, move.notes, str(move.qemu or ""), kernel)


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
