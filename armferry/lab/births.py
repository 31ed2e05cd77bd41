"""Every newer kernel presenting every older one: born there, moved, resumed, and brought back.

For each ordered pair of kernels, with the same QEMU on both hosts:

    born   on the newer kernel, the boundary presents the older one; the guest runs and is saved
    taken  by stock QEMU on the older kernel, nothing preloaded; it runs and is saved
    back   on the newer kernel, presenting the older one again; it runs and is saved

The boundary's rules come from the two kernels' atlas entries. What came of a stay is kept in the
cache under a hash of all that decided it, so that an interrupted run goes on where it was; each
host is booted once for all its stays of one step. Results are data (`Row`), from which the table in
docs is written.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from armferry.boundary import Action, Birth, Table, birth
from armferry.boundary.build import FLAGS, SOURCE
from armferry.cache import cache_folder
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.lab.guest import GuestLog
from armferry.lab.host import HostSpec
from armferry.lab.nested import NestedQemu, Outcome
from armferry.lab.pool import Hosts, two_at_once
from armferry.lab.recording import host_key
from armferry.lab.stays import Stay, Stayed, stay

__all__ = ["Row", "run_births"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

_STEPS = ("born", "taken", "back")


@dataclass(frozen=True, slots=True)
class Row:
    """One pair: what was done at the boundary, and what came of each step.

    A step is empty when all was well, else what prevented it; a later step is then not taken.
    """

    newer: str
    older: str
    qemu: str
    machine: str
    hidden: tuple[str, ...]
    pinned: tuple[str, ...]
    carried: tuple[str, ...]
    born: str
    taken: str
    back: str

    @property
    def works(self) -> bool:
        """Whether the guest went all the way."""
        return not (self.born or self.taken or self.back)


def _born_as(newer: HostSpec, older: HostSpec) -> Birth:
    """How the kernel of `newer` presents that of `older`. Raises UnknownEntry."""
    entries = [read_atlas().find(f"{_release(spec)}/{spec.cpu}") for spec in (newer, older)]
    own, other = (entry.fingerprint.cpus[0] for entry in entries)
    return birth(own, other, entries[1].release)


@dataclass(frozen=True, slots=True)
class _Step:
    """One stay to come: on which host it is, and where its result is kept."""

    spec: HostSpec
    stay: Stay
    kept: Path


def run_births(
    pairs: Sequence[tuple[HostSpec, HostSpec]], machine: str, guest: Path, progress: Progress
) -> list[Row]:
    """Every pair (newer, older) of hosts with the same QEMU. Raises LabHostFault, UnknownEntry."""
    code = guest.read_bytes()
    births = [_born_as(newer, older) for newer, older in pairs]
    tables = [Table(one.rules).packed() for one in births]
    came = [(b"", b"")] * len(pairs)
    said: list[dict[str, str]] = [{} for _ in pairs]
    for step in _STEPS:
        wanted: dict[int, _Step] = {}
        for number, (newer, older) in enumerate(pairs):
            if any(said[number].values()):
                said[number][step] = "not tried"
                continue
            spec = older if step == "taken" else newer
            table = b"" if step == "taken" else tables[number]
            one = Stay(machine, table, *came[number])
            kept = _kept(step, newer, older, machine, tables[number], code)
            wanted[number] = _Step(spec, one, kept)
        _hold(list(wanted.values()), code, step, progress)
        for number, one_step in wanted.items():
            found = _read(one_step.kept)
            said[number][step] = _fault(found)
            came[number] = (found.stream, found.log)
    return [
        _row(newer, older, machine, one, words)
        for (newer, older), one, words in zip(pairs, births, said, strict=True)
    ]


def _row(newer: HostSpec, older: HostSpec, machine: str, one: Birth, said: dict[str, str]) -> Row:
    def names(action: Action) -> tuple[str, ...]:
        return tuple(rule.name for rule in one.rules if rule.action is action)

    return Row(
        newer=_release(newer),
        older=_release(older),
        qemu=newer.qemu_version,
        machine=machine,
        hidden=names(Action.HIDE),
        pinned=names(Action.SET),
        carried=names(Action.CARRY),
        born=said["born"],
        taken=said["taken"],
        back=said["back"],
    )


def _release(spec: HostSpec) -> str:
    """The kernel's release as the atlas has it."""
    return spec.kernel.release.removesuffix("-cloud-arm64")


def _hold(steps: Sequence[_Step], guest: bytes, what: str, progress: Progress) -> None:
    """Holds the stays that are not kept yet, each host booted once."""
    missing = [one for one in steps if not one.kept.exists()]
    hosts: dict[str, list[_Step]] = {}
    for one in missing:
        hosts.setdefault(one.spec.kernel.release, []).append(one)
    done = len(steps) - len(missing)

    def visit(booted: Hosts, wanted: list[_Step]) -> None:
        nonlocal done
        with booted.boot(wanted[0].spec) as host:
            results = stay(host, guest, [one.stay for one in wanted])
        for one, result in zip(wanted, results, strict=True):
            _store(one.kept, result)
        done += len(wanted)
        progress(f"{what} on {wanted[0].spec.kernel.release}", done, len(steps))

    two_at_once(visit, hosts.values())


def _fault(found: Stayed) -> str:
    """What kept a stay from going well; empty when nothing did."""
    if not found.outcome.completed:
        refused = [line for line in found.trace if "refused" in line or "cannot be" in line]
        words = found.outcome.stderr.strip() or found.outcome.reason or found.outcome.status
        return "; ".join(refused) or words.splitlines()[-1]
    log = GuestLog.parse(found.log)
    return "; ".join(map(str, log.faults())) or ("" if log.ticks else "the guest did not run")


def _kept(
    step: str, newer: HostSpec, older: HostSpec, machine: str, table: bytes, guest: bytes
) -> Path:
    qemu = NestedQemu(machine)
    parts = (step, host_key(newer, qemu), host_key(older, qemu), repr(FLAGS))
    key = hashlib.sha256("\n".join(parts).encode())
    for content in (table, guest, SOURCE.read_bytes()):
        key.update(hashlib.sha256(content).digest())
    return cache_folder("births") / key.hexdigest()[:32]


def _store(folder: Path, result: Stayed) -> None:
    partial = folder.with_name(f".{folder.name}")
    partial.mkdir(exist_ok=True)
    (partial / "stream").write_bytes(result.stream)
    (partial / "log").write_bytes(result.log)
    said = {"outcome": asdict(result.outcome), "trace": result.trace}
    (partial / "said.json").write_text(json.dumps(said))
    if not folder.exists():
        partial.rename(folder)


def _read(folder: Path) -> Stayed:
    said = json.loads((folder / "said.json").read_text())
    return Stayed(
        Outcome(**said["outcome"]),
        (folder / "stream").read_bytes(),
        (folder / "log").read_bytes(),
        tuple(said["trace"]),
    )
