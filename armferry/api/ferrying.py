"""A saved state rewritten so that the destination accepts it."""

import os
from dataclasses import dataclass
from pathlib import Path

from armferry.api.decisions import Report, judged
from armferry.api.ends import EndLike
from armferry.api.rules import Rules
from armferry.decide import Answer
from armferry.errors import ArmferryError
from armferry.hosts.files.saved_file import Saved
from armferry.hosts.fingerprints.saved_subject import stream_subject
from armferry.rewriting.edits import edit_of
from armferry.rewriting.saved import ferry_file
from armferry.stream import StateEdit

__all__ = ["Ferried", "ferry"]

_DEFAULT = Rules()


@dataclass(frozen=True, slots=True)
class Ferried:
    """What became of a state: `written` is the file that holds it, None when it was refused.

    `report` is the verdict that decided it.
    """

    report: Report
    written: Path | None

    @property
    def changed(self) -> bool:
        """Whether what was written is another state than the one that was read."""
        return self.written is not None and self.report.verdict.changed


def ferry(
    state: str | os.PathLike[str],
    output: str | os.PathLike[str] | None,
    destination: EndLike,
    *,
    rules: Rules = _DEFAULT,
    source_fingerprint: EndLike | None = None,
    destination_qemu: str = "",
) -> Ferried:
    """Rewrites `state`, a file or `IMAGE#SNAPSHOT`, into `output` as `destination` accepts it.

    `output` appears when it is whole; None changes `state` where it lies, under a journal. A move
    that fails writes nothing and is no error: look at `written`. The other arguments are those of
    `check`. Raises ArmferryError for what cannot be read or written.

    >>> done = ferry("guest.state", "guest.new", "atlas:6.17/neoverse-n1")
    >>> str(done.written), done.changed, done.report.risk
    ('guest.new', True, 'lossless')
    """
    name = os.fspath(state)
    target = None if output is None else Path(output)
    if target is not None and os.path.realpath(name) == os.path.realpath(target):
        raise ArmferryError(f"{target}: the state itself; give None to change it where it lies")
    reports: list[Report] = []

    def decide(saved: Saved) -> StateEdit | None:
        subject = stream_subject(name, saved)
        reports.append(judged(subject, destination, rules, source_fingerprint, destination_qemu))
        verdict = reports[0].verdict
        return None if verdict.answer is Answer.FAILS else edit_of(verdict)

    ferry_file(name, target, decide)
    written = (Path(name) if target is None else target) if reports[0].works else None
    return Ferried(reports[0], written)
