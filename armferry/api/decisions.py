"""The verdict before a move, and the smallest policy that makes it work."""

from dataclasses import dataclass
from typing import Any

from armferry.api.ends import EndLike, opened
from armferry.api.rules import Rules
from armferry.decide import Answer, RegisterOutcome, Verdict, judge, make_plan, verdict_document
from armferry.decide import Plan as DecidedPlan
from armferry.ends import Move
from armferry.hosts.fingerprints.subject import Subject
from armferry.policy import Policy, problems, to_toml

__all__ = ["Plan", "Report", "check", "judged", "plan"]

_DEFAULT = Rules()


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on one move.

    `verdict` has all of it, register by register; `warnings` is what a person should know beside.
    """

    source: str
    destination: str
    machine: str
    verdict: Verdict
    warnings: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether the move works, by itself or with armferry."""
        return self.verdict.answer is not Answer.FAILS

    @property
    def stock_works(self) -> bool | None:
        """Whether the destination's QEMU alone loads it; None when its version is unknown."""
        stock = self.verdict.stock
        return None if stock is None else stock.loads

    @property
    def answer(self) -> str:
        """`works`, `works-with-policy` or `fails`."""
        return self.verdict.answer.value

    @property
    def risk(self) -> str:
        """`none`, `lossless`, `guest-visible`, `lossy` or `breaks`."""
        return str(self.verdict.risk)

    @property
    def refused(self) -> tuple[RegisterOutcome, ...]:
        """The registers that stand in the way, of every vCPU."""
        return tuple(one for decision in self.verdict.decisions for one in decision.refused)

    def document(self) -> dict[str, Any]:
        """What `armferry check --json` prints, as docs/json.md describes it."""
        return {
            **verdict_document(self.verdict),
            "source": self.source,
            "destination": self.destination,
            "machine": self.machine,
            "warnings": list(self.warnings),
            "preflight": None,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The smallest policy that makes a move work.

    `toml` is a policy file that says it; `decided` has every entry with its reason.
    """

    decided: DecidedPlan

    @property
    def works(self) -> bool:
        """Whether the move works under the plan."""
        return self.decided.works

    @property
    def policy(self) -> Policy:
        """The entries alone."""
        return self.decided.policy

    @property
    def toml(self) -> str:
        """The policy as a file, for `--policy` or `Rules(files=...)`."""
        return to_toml(self.decided.policy)

    @property
    def risk(self) -> str:
        """The risk of the move under the plan."""
        return str(self.decided.verdict.risk)


def check(
    source: EndLike,
    destination: EndLike,
    *,
    rules: Rules = _DEFAULT,
    source_fingerprint: EndLike | None = None,
    destination_qemu: str = "",
) -> Report:
    """Whether `source` moves to `destination`, and what stands in the way. Changes nothing.

    `source` is a guest or a host it could run on, `source_fingerprint` the guest's host after
    reset, `destination_qemu` the version of the destination's QEMU where `destination` does not
    know it. Raises ArmferryError for what cannot be read and for rules that cannot be meant.

    >>> report = check("atlas:6.12/neoverse-n1", "atlas:6.17/neoverse-n1",
    ...                rules=Rules(machine="virt-10.0"), destination_qemu="10.0.13")
    >>> report.answer, report.risk, report.stock_works
    ('works-with-policy', 'lossless', False)
    """
    return judged(opened(source), destination, rules, source_fingerprint, destination_qemu)


def judged(
    source: Subject,
    destination: EndLike,
    rules: Rules,
    source_fingerprint: EndLike | None,
    destination_qemu: str,
) -> Report:
    """The verdict on moving what was opened before."""
    move, policy, here, there = _move(
        source, destination, rules, source_fingerprint, destination_qemu
    )
    verdict = judge(move, policy)
    warnings = [str(problem) for problem in problems(policy)]
    return Report(
        here.text,
        there.text,
        here.machine,
        verdict,
        (*warnings, *move.notes, *verdict.notes),
    )


def plan(
    source: EndLike,
    destination: EndLike,
    *,
    rules: Rules = _DEFAULT,
    source_fingerprint: EndLike | None = None,
    destination_qemu: str = "",
) -> Plan:
    """What must be allowed, beyond `rules`, for `source` to move to `destination`.

    Arguments and errors are those of `check`.

    >>> found = plan("atlas:6.17/neoverse-n1", "atlas:6.12/neoverse-n1",
    ...              rules=Rules(machine="virt-10.0"))
    >>> [(entry.name, entry.action) for entry in found.decided.entries]
    [('PSCI_VERSION', 'cap at destination')]
    """
    move, policy, _, _ = _move(
        opened(source), destination, rules, source_fingerprint, destination_qemu
    )
    return Plan(make_plan(move, policy))


def _move(
    here: Subject,
    destination: EndLike,
    rules: Rules,
    host: EndLike | None,
    qemu: str,
) -> tuple[Move, Policy, Subject, Subject]:
    there = opened(destination)
    move = Move.between(
        here.end, there.end, host=None if host is None else opened(host).end, qemu=qemu
    )
    policy = rules.policy(here.machine or there.machine, there.accelerator)
    return move, policy, here, there
