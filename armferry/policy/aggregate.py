"""The policy of one move: every level, site rule and option that applies, united.

What this module knows: which parts of which documents apply to a machine type under an
accelerator, and what the options of the command line state. Order never matters and setting a
list twice is never an error; every entry keeps everyone who listed it. What it refuses to know:
files (`document.read_site`, `read_file`) and what the rules will mean for a register list
(`decide`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from armferry.policy.document import Document, parse_accepted
from armferry.policy.errors import DocumentError
from armferry.policy.levels import applies, builtin_levels, resolve
from armferry.policy.properties import parse_list, parse_psci_version
from armferry.policy.rules import EMPTY, Origin, OriginKind, Policy, TolerancePlaced
from armferry.policy.tolerance import parse_tolerance
from armferry.registers import Accelerator

__all__ = ["aggregate", "from_options", "present_as"]


_NO_MACHINE = (
    "neither end names a machine type, so the levels of no version of virt were applied; "
    "--machine virt-10.0 applies those of that version"
)


def aggregate(
    machine: str,
    accelerator: Accelerator | None,
    *,
    builtin: bool = True,
    site: Sequence[Document] = (),
    files: Sequence[Document] = (),
    command_line: Policy = EMPTY,
) -> Policy:
    """Unite everything that applies to `machine` ("virt-10.0") under `accelerator`.

    An empty `machine` is an unknown one: what applies to every machine type is united, and
    a note says so.
    None stands for an accelerator that no entry names: it gets the entries for any.
    `builtin=False` leaves out the levels that armferry ships. Raises MachineError for a machine
    type that is declared like one which nothing declares, and DocumentError for a document whose
    level cannot be placed.
    """
    given = (*site, *files)
    resolved = resolve(machine or "virt", given)
    policy = command_line
    if not machine:
        policy = policy.union(Policy(notes=frozenset((_NO_MACHINE,))))
    if resolved.note:
        policy = policy.union(Policy(notes=frozenset((resolved.note,))))
    for document in (*(builtin_levels() if builtin else ()), *given):
        if applies(document, resolved):
            policy = policy.union(document.general(accelerator))
        for name in resolved.names:
            policy = policy.union(document.single(name, accelerator))
    return policy


def present_as(machine: str, site: Sequence[Document]) -> Origin | None:
    """The host that guests of `machine` are born as, with who says so; None for this host.

    `reason` of the answer is the host, `where` the document. A section of the machine type comes
    before a document's top level. Raises MachineError, and DocumentError where two of the same
    rank disagree.
    """
    resolved = resolve(machine, site)
    ranks = [
        [
            (document.machines[name].present_as, f"{document.name}: machine {name}")
            for document in site
            if name in document.machines
        ]
        for name in resolved.names
    ]
    ranks.append([(one.everyone.present_as, one.where) for one in site if applies(one, resolved)])
    for rank in ranks:
        found = {text: where for text, where in reversed(rank) if text is not None}
        if len(found) > 1:
            listed = " and ".join(f"{text!r} ({where})" for text, where in sorted(found.items()))
            raise DocumentError(f"present-as: guests of {machine} cannot be born as {listed}")
        for text, where in found.items():
            return Origin(OriginKind.SITE, f"{where}: present-as", text)
    return None


def from_options(
    *,
    hidden: Iterable[str] = (),
    safe_missing: Iterable[str] = (),
    tolerate: Iterable[str] = (),
    psci_versions: Iterable[str] = (),
    accept_risk: Iterable[str] = (),
) -> Policy:
    """The policy that the options state, each given any number of times.

    Raises PropertyError or RuleError, the message beginning with the option.
    """

    def origin(option: str) -> tuple[Origin]:
        return (Origin(OriginKind.COMMAND_LINE, option),)

    def listed(texts: Iterable[str], option: str) -> dict[int, tuple[Origin, ...]]:
        return {index: origin(option) for text in texts for index in parse_list(text, option)}

    return Policy(
        hidden=listed(hidden, "--hidden-regs"),
        safe_missing=listed(safe_missing, "--safe-missing-regs"),
        tolerances=tuple(
            TolerancePlaced(parse_tolerance(text), origin("--tolerate")) for text in tolerate
        ),
        psci={parse_psci_version(text): origin("--kvm-psci-version") for text in psci_versions},
        accepted=parse_accepted(accept_risk),
    )
