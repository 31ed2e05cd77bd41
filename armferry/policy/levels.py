"""Compat levels: which documents apply to a machine type.

What this module knows: a level named `virt-X.Y` is for that version of QEMU's Arm `virt` machine
and every older one, so an old machine inherits every newer level, as QEMU's own machine options
chain does. A document without a level is a *defaults* level and is for everyone. `virt` alone is
the newest version there is and takes the defaults only; so do machine types without a version.

Shipped levels are `levels/*.toml` beside this module (any number of files, several may be of one
level); names of unversioned machine types are facts (`armferry.facts`). A machine type that is
neither, a distribution's own, takes the defaults, with a note, until a document declares it:
`[machine."NAME"]`, with `like` for its levels.

What it refuses to know: what entries say (`document`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from armferry.facts import like_of_distribution, unversioned_machines
from armferry.policy.document import Document, parse_document
from armferry.policy.errors import DocumentError, MachineError
from armferry.policy.rules import OriginKind

__all__ = ["DEFAULTS", "MachineType", "applies", "builtin_levels", "resolve"]

DEFAULTS = "defaults"

_VIRT = re.compile(r"virt-(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")
_NUMBERED = re.compile(r"virt-[0-9]+\.[0-9]+")
_LONGEST = 100
"""Letters of a machine type; QEMU's longest names have some 30."""


@dataclass(frozen=True, slots=True)
class MachineType:
    """A machine type, resolved: the names it goes by and the version that decides its levels.

    `names` begins with its own and goes on along the documents' `like`. `version` is (major,
    minor) of the `virt` version at the end of that chain, or None: defaults only. `note` says
    in words that neither QEMU nor a document declares it, as with a distribution's own; else it is
    empty.
    """

    names: tuple[str, ...]
    version: tuple[int, int] | None
    note: str = ""


@functools.cache
def builtin_levels() -> tuple[Document, ...]:
    """The levels that armferry ships, by file name."""
    files = sorted(Path(__file__).with_name("levels").glob("*.toml"))
    return tuple(
        parse_document(file.read_text(encoding="utf-8"), file.name, OriginKind.BUILTIN)
        for file in files
    )


def resolve(machine: str, documents: Sequence[Document] = ()) -> MachineType:
    """Follow a machine type to its version; raises MachineError for a circle, and where a
    document says that one is like a machine type which nothing declares.

    Several documents may declare one machine type, but not like two different ones. One whose name
    is too long, or of a version that QEMU cannot have, is an error too.
    """
    names: list[str] = []
    current = machine
    while True:
        if len(current) > _LONGEST or (
            _NUMBERED.fullmatch(current) and not _VIRT.fullmatch(current)
        ):
            raise MachineError(_unknown(current))
        if current in names:
            chain = " like ".join([*names, current])
            raise MachineError(f"machine type {machine!r} is declared in a circle: {chain}")
        names.append(current)
        sections = [(d, d.machines[current]) for d in documents if current in d.machines]
        likes = sorted({section.like for _, section in sections if section.like is not None})
        if len(likes) > 1:
            raise MachineError(
                f"machine type {current!r} is declared like {' and like '.join(likes)}; "
                f"keep one of them: {', '.join(d.name for d, s in sections if s.like)}"
            )
        if not likes and not sections and (like := like_of_distribution(current)):
            likes = [like]  # of a distribution that is known
        if not likes:
            break
        current = likes[0]
    if found := _VIRT.fullmatch(current):
        return MachineType(tuple(names), (int(found[1]), int(found[2])))
    if current == "virt" or current in unversioned_machines() or sections:
        return MachineType(tuple(names), None)
    if machine and len(names) == 1:
        return MachineType(tuple(names), None, _undeclared(machine))
    raise MachineError(_unknown(current))


def applies(document: Document, machine: MachineType) -> bool:
    """True when the document's part for everyone is for this machine type.

    Raises DocumentError when its level is neither `defaults` nor a version of virt.
    """
    if document.level in (None, DEFAULTS):
        return True
    level = _VIRT.fullmatch(document.level or "")
    if not level:
        raise DocumentError(
            f"{document.name}: level: {document.level!r} is no compat level; accepted: defaults, "
            'or a version of virt such as virt-10.1. For one machine type write [machine."NAME"]'
        )
    return machine.version is not None and machine.version <= (int(level[1]), int(level[2]))


def _undeclared(machine: str) -> str:
    return (
        f"machine type {machine} is none of QEMU's own, so it is decided with the defaults alone; "
        "if it is a distribution's, say in a policy file which version it is like: "
        f'[machine."{machine}"] like = "virt-8.2"'
    )


def _unknown(machine: str) -> str:
    import difflib  # only a failing command pays for it

    if len(machine) > _LONGEST:
        machine = f"{machine[:_LONGEST]}..."
    near = difflib.get_close_matches(machine, sorted(unversioned_machines()), 1, 0.8)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return (
        f"unknown machine type {machine!r}{hint} Accepted: virt, virt-X.Y such as virt-10.0, and "
        "QEMU's unversioned Arm machine types such as sbsa-ref"
    )
