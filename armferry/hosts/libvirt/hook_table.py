"""What libvirt's hook looks up, worked out beforehand from the stored fingerprints.

For each kind of guest this host was fingerprinted for: the register list with the values that no
move may change, and for every other known host whether its guests can come, by QEMU alone and by
armferry under the builtin levels and the site's policy. Also the whole decision on one save
image, for the case that its lists are not this host's. The table's reader is `hook`.
"""

import shlex
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from armferry.decide import Answer, Verdict, judge
from armferry.decide.content import content_of
from armferry.ends import End, Move
from armferry.facts import tcg_ignores_writes
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.libvirt.domain import DomainFacts
from armferry.hosts.libvirt.state_folder import (
    Known,
    Stored,
    other_hosts,
    stored,
    write_json,
)
from armferry.policy import SITE_FOLDER, aggregate, read_site
from armferry.registers import Accelerator, Kind, describe

__all__ = ["answers", "judge_image", "make_table", "write_table"]

_NAMES = 4
_FIXED_KINDS = (Kind.IDENTIFICATION, Kind.FIRMWARE_VERSION, Kind.FIRMWARE_BITMAP)


def write_table(state: Path) -> dict[str, Any]:
    """Works the table out again and stores it. Raises StateFault, FingerprintError, PolicyError."""
    others = other_hosts(state)
    unread = {path.parent.name for path in others.unreadable}
    table = make_table(state, stored(state), others.guests, unread)
    write_json(state / "hook.json", table)
    return table


def make_table(
    state: Path,
    own: Iterable[Stored],
    others: Mapping[str, Iterable[Known]],
    unread: Collection[str] = (),
) -> dict[str, Any]:
    """The table, as `hook` reads it, of what is stored in `state`.

    Hosts of which something is `unread` stop nothing.
    """
    guests: dict[str, dict[str, Any]] = {}
    signatures = _Signatures()
    for one in own:
        kind = one.kind
        answered, hosts = _hosts(state, one, others, signatures)
        if unread:
            hosts |= dict.fromkeys(unread, len(answered))
            answered.append({"stock": None, "ferried": None})
        guests.setdefault(kind.guest, {})[kind.emulator] = {
            "kernel": one.kernel,
            "emulator": list(one.emulator_identity),
            **_list_of(one.fingerprint),
            "answers": answered,
            "hosts": hosts,
        }
    return {"format": "armferry-hook", "version": 2, "guests": guests}


class _Signatures:
    """What no decision can tell apart has one signature; each fingerprint is looked at once."""

    def __init__(self) -> None:
        self._found: dict[Path, str] = {}

    def of(self, known: Known) -> str:
        found = self._found.get(known.path)
        if found is None:
            found = self._found[known.path] = content_of(end_of(known.fingerprint)).signature
        return found


def _hosts(
    state: Path, one: Stored, others: Mapping[str, Iterable[Known]], signatures: _Signatures
) -> tuple[list[dict[str, str | None]], dict[str, int]]:
    """The answers, and for each host with such a guest which of them is its.

    Hosts that no decision can tell apart share an answer; of a host one QEMU that can is enough.
    """
    answered: list[dict[str, str | None]] = []
    numbers: dict[frozenset[str], int] = {}
    hosts: dict[str, int] = {}
    for name, known in others.items():
        same = [theirs for theirs in known if theirs.kind.guest == one.kind.guest]
        if not same:
            continue
        key = frozenset(map(signatures.of, same))
        if key not in numbers:
            numbers[key] = len(answered)
            answered.append(_answered(state, one, name, same))
        hosts[name] = numbers[key]
    return answered, hosts


def _answered(state: Path, one: Stored, name: str, same: Iterable[Known]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for theirs in same:
        again = _check(theirs.path, state, one)
        new = answers(end_of(theirs.fingerprint, name), one.fingerprint, again)
        before = found or new
        found = {way: None if before[way] is None else reason for way, reason in new.items()}
    return found


def _check(source: Path, state: Path, one: Stored) -> str:
    """The command that shows the whole decision."""
    return shlex.join(["armferry", "check", str(source), "--to", str(state / "host" / one.file)])


def judge_image(path: str, domain: DomainFacts, moves: str, state: str) -> str | None:
    """Why a save image cannot be restored here, None when it can."""
    for one in stored(Path(state)):
        if (one.kind.guest, one.kind.emulator) == (domain.kind, domain.emulator):
            again = _check(Path(path).resolve(), Path(state), one)
            reason = answers(open_subject(path).end, one.fingerprint, again)[moves]
            return None if reason is None else f"{domain.name} cannot be restored here: {reason}"
    return None


def _list_of(fingerprint: Fingerprint) -> dict[str, Any]:
    """The indexes in the order of a stream, and the values that must not differ, by position."""
    registers = sorted(fingerprint.cpus[0].items())
    return {
        "indexes": b"".join(index.to_bytes(8, "big") for index, _ in registers).hex(),
        "fixed": [
            [position, value.to_bytes(8, "big").hex()]
            for position, (index, value) in enumerate(registers)
            if _fixed(index, fingerprint.accelerator)
        ],
    }


def _fixed(index: int, accelerator: Accelerator) -> bool:
    if accelerator is Accelerator.TCG:
        return tcg_ignores_writes(index)
    register = describe(index, accelerator)
    return register.constant or register.kind in _FIXED_KINDS


def answers(source: End, here: Fingerprint, again: str = "armferry check") -> dict[str, str | None]:
    """For each way of moving a reason against it, in one line; None where nothing is known of one.

    `stock` is what QEMU would do by itself, `ferried` what armferry can do. `again` is the command
    that shows the whole decision.
    """
    move = Move.between(source, end_of(here, "here"))
    policy = aggregate(str(source.machine or ""), here.accelerator, site=read_site(SITE_FOLDER))
    verdict = judge(move, policy)
    stock = verdict.stock
    return {
        "stock": None
        if stock is None or stock.loads
        else _stock_reason(stock.culprits, verdict, here, again),
        "ferried": None if verdict.answer is not Answer.FAILS else _reason(verdict, again),
    }


def _stock_reason(culprits: Iterable[int], verdict: Verdict, here: Fingerprint, again: str) -> str:
    names = [describe(index, here.accelerator).name for index in culprits]
    what = f"registers {_some(names)}" if names else "its device state"
    text = f"QEMU {here.provenance.qemu} would refuse {what}"
    if verdict.answer is Answer.FAILS:
        return f"{text}, and armferry too: {_reason(verdict, again)}"
    return f"{text}; armferry can carry it: armferry ferry for an image, armferry gateway live"


def _reason(verdict: Verdict, again: str) -> str:
    refused = (outcome.name for decision in verdict.decisions for outcome in decision.refused)
    names = list(dict.fromkeys(refused))
    if names:
        return f"no rule of the policy allows {_some(names)}; see: {again}"
    return verdict.obstacles[0]


def _some(names: list[str]) -> str:
    if len(names) <= _NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMES])} and {len(names) - _NAMES} more"
