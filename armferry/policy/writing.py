"""A policy as a TOML document that `document.parse_document` reads back as the same rules.

Unless told otherwise every rule becomes an entry for every machine type and accelerator, since a
policy is already the answer for one of each. What was known of its origins becomes its reason and
a comment: read back, an entry comes from the file. What this module refuses to know: how documents
are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from armferry.policy.document import HIDDEN, SAFE_MISSING
from armferry.policy.rules import Origin, Policy, Selector
from armferry.policy.tolerance import format_rule
from armferry.registers import Accelerator, Kind, name

__all__ = ["to_toml"]


def to_toml(policy: Policy, level: str = "", accelerator: Accelerator | None = None) -> str:
    """The document, newline at its end; of several pinned PSCI versions the effective one only.

    With a `level` it is for that machine type and older ones, with an `accelerator` its entries
    are for that one alone.
    """
    parts = [f"level = {_quoted(level)}\n"] if level else []
    if policy.psci_version is not None:
        sources = "; ".join(_clean(origin.where) for origin in policy.psci_origins)
        parts.append(f"# from {sources}\nkvm-psci-version = {_quoted(str(policy.psci_version))}\n")
    accepted = [f"{index:#018x}" for index in sorted(policy.accepted.registers)]
    accepted += sorted(policy.accepted.subsections)
    accepted += ["guest-visible"] * policy.accepted.guest_visible
    accepted += ["lossy"] * policy.accepted.lossy
    accepted += ["breaks"] * policy.accepted.breaks
    if accepted:
        parts.append(f"accept-risk = [{', '.join(_quoted(text) for text in accepted)}]\n")
    resets = dict(policy.resets)

    def entry(select: Selector, action: str, origins: Iterable[Origin]) -> None:
        reset = frozenset() if isinstance(select, Kind) else resets.pop(select, frozenset())
        parts.append(_entry(select, action, reset, origins, accelerator))

    for index, origins in policy.hidden.items():
        entry(index, HIDDEN, origins)
    for index, origins in policy.safe_missing.items():
        entry(index, SAFE_MISSING, origins)
    for placed in policy.tolerances:
        entry(placed.tolerance.select, format_rule(placed.tolerance), placed.origins)
    for index in list(resets):
        entry(index, "", ())
    return "\n".join(parts)


def _entry(
    select: Selector,
    action: str,
    reset: frozenset[int],
    origins: Iterable[Origin],
    accelerator: Accelerator | None,
) -> str:
    lines = [f"# from {_clean(origin.where)}" for origin in origins]
    lines.append("[[entry]]")
    if isinstance(select, Kind):
        lines.append(f"kind = {_quoted(select.value)}")
    else:
        lines.append(f"register = {_quoted(f'{select:#018x}')}  # {_clean(name(select))}")
    if action:
        lines.append(f"action = {_quoted(action)}")
    if accelerator is not None:
        lines.append(f"accelerator = {_quoted(accelerator.value)}")
    if reset:
        lines.append(f"reset = [{', '.join(_quoted(f'{value:#x}') for value in sorted(reset))}]")
    reasons = list(dict.fromkeys(origin.reason for origin in origins if origin.reason))
    if reasons:
        lines.append(f"reason = {_quoted(' '.join(reasons))}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's, with DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _clean(text: str) -> str:
    """Text that may stand in a comment: no control characters."""
    return "".join(character if character.isprintable() else " " for character in text)
