"""A plan as text: a policy file, QEMU's properties, a compat entry, words for a ticket.

The policy file says all of a plan. QEMU's properties know lists of registers only, so rules that
look at a value are named beside them as what they cannot say.
"""

from collections.abc import Iterator, Mapping

from armferry.decide.features import CommonCause
from armferry.decide.plan import Plan, PlanEntry
from armferry.decide.verdict import Answer
from armferry.policy import Properties, PsciVersion, format_global, format_list, to_toml
from armferry.policy.properties import PSCI_VERSIONS

__all__ = ["plan_compat", "plan_globals", "plan_prose", "plan_starts", "plan_toml"]

_PSCI = 0x6030_0000_0014_0000
_VALUES = ("take destination's", "field <= destination", "cap at destination")


def plan_toml(plan: Plan) -> str:
    """The policy document; `--policy` with it gives the plan's verdict."""
    return to_toml(plan.policy)


def plan_globals(plan: Plan) -> tuple[str, ...]:
    """Lines for QEMU's command line, with a comment for each entry that no property can say."""
    properties = Properties(safe_missing=_dropped(plan), psci=_psci(plan))
    lines = [f"-global {text}" for text in format_global(properties)]
    return (*lines, *(f"# no property can say: {_entry(entry)}" for entry in _unsaid(plan)))


def plan_starts(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """The same lines, under where they belong: which QEMU is to be started with them."""
    pinned: list[str] = []
    elsewhere: list[str] = []
    for text in plan_globals(plan):
        (pinned if "kvm-psci-version" in text else elsewhere).append(text)
    places = {"the destination": elsewhere, "the source, from the guest's start": pinned}
    return {place: tuple(texts) for place, texts in places.items() if texts}


def plan_compat(plan: Plan) -> str:
    """The entry of a machine type's compat properties, empty when no property helps."""
    entries = [("kvm-psci-version", str(version)) for version in _psci(plan)]
    if dropped := _dropped(plan):
        entries.append(("x-mig-safe-missing-regs", format_list(dropped)))
    return "\n".join(f'{{ "arm-cpu", "{name}",\n  "{value}" }},' for name, value in entries)


def plan_prose(plan: Plan, source: str, destination: str, *, verbose: bool = False) -> str:
    """A paragraph for a ticket: what stands in the way and what allowing it costs.

    Permissions that one cause asks for are one line, unless it is to be `verbose`.
    """
    if plan.obstacles:
        stand = "\n".join(f"- {obstacle}" for obstacle in plan.obstacles)
        return f"{source} cannot be moved to {destination} by any policy:\n{stand}"
    if plan.verdict.answer is Answer.WORKS:
        return f"{source} moves to {destination} as it is."
    if not plan.entries:
        return (
            f"{source} moves to {destination} with armferry, and nothing more need be allowed, "
            f"risk {plan.verdict.risk}{_broken(plan)}."
        )
    count = len(plan.entries)
    what = "one permission" if count == 1 else f"{count} permissions"
    listed = "\n".join(f"  {title}\n    {reason}" for title, reason in _lines(plan, verbose))
    return (
        f"{source} needs {what} to move to {destination}, risk {plan.verdict.risk}{_broken(plan)}:"
        f"\n{listed}"
    )


def _broken(plan: Plan) -> str:
    lost = plan.verdict.broken
    return f" (a guest that uses {', '.join(lost)} breaks)" if lost else ""


def _lines(plan: Plan, verbose: bool) -> Iterator[tuple[str, str]]:
    """Each permission and its reason; those of one cause at the place of the first of them."""
    together: dict[CommonCause, list[PlanEntry]] = {}
    for entry in plan.entries:
        cause = None if entry.index is None or verbose else plan.causes.get(entry.index)
        if cause is None:
            yield _entry(entry), entry.reason
            continue
        if cause not in together:
            same = [one for one in plan.entries if plan.causes.get(one.index or 0) == cause]
            together[cause] = same
            risk = max(one.risk for one in same)
            rules = f"{len(same)} rules; --verbose and the policy file list them"
            yield cause.counted, f"{cause.why} (risk {risk}; {rules})"


def _entry(entry: PlanEntry) -> str:
    index = "" if entry.index is None else f" ({entry.index:#018x})"
    return f"{entry.name}{index}: {entry.action}"


def _unsaid(plan: Plan) -> tuple[PlanEntry, ...]:
    said = {*_dropped(plan), *([_PSCI] if _psci(plan) else [])}
    return tuple(entry for entry in plan.entries if entry.index not in said)


def _psci(plan: Plan) -> tuple[PsciVersion, ...]:
    """The version that the plan lowers the guest's to, if it does: a property can pin it."""
    if not any(entry.index == _PSCI for entry in plan.entries):
        return ()
    value = min((sent[_PSCI] for sent in plan.verdict.lists if _PSCI in sent), default=0)
    version = PsciVersion(value >> 16, value & 0xFFFF)
    return (version,) if version in PSCI_VERSIONS else ()


def _dropped(plan: Plan) -> tuple[int, ...]:
    return tuple(
        entry.index
        for entry in plan.entries
        if entry.index is not None and entry.action != "accept-risk" and entry.action not in _VALUES
    )
