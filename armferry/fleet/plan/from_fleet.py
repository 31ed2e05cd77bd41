"""A fleet of the store as one to plan for: its hosts' builds, their targets, the ways between them.

The class that a host has after its upgrade is that of a host of the store that was upgraded before
(a canary), else what the atlas recorded of that kernel and QEMU on the same CPU; which of the two,
each host of the plan says. Where there is neither, no class is guessed: the host is left as it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from armferry.decide import Risk, make_plan
from armferry.ends import End, Move
from armferry.errors import ArmferryError
from armferry.facts import newest_match, release_key, series_of
from armferry.fleet.model import Answer, Cell, Fleet, Host
from armferry.fleet.plan.model import NO_WAY, PlanFleet, PlanGuest, PlanHost, Way
from armferry.fleet.relation import ClassRelation
from armferry.fleet.standing import Standing
from armferry.fleet.states import state_end
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import Entry, UnknownEntry, read_atlas
from armferry.policy import Policy

__all__ = ["BadGoal", "FleetWays", "Goal", "plan_fleet_of"]

_ATLAS = "atlas:"
_MIDR = 0x6030_0000_0013_C000
_MIDR_MODEL = 0xFF0F_FFF0  # without variant and revision


class BadGoal(ArmferryError):
    """What the fleet is to be upgraded to cannot be read, or nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The kernel and the QEMU to come to: releases or series, empty for as it is."""

    kernel: str = ""
    qemu: str = ""

    @classmethod
    def read(cls, text: str) -> "Goal":
        """`kernel=6.17,qemu=11.1`. Raises BadGoal."""
        parts = dict(part.partition("=")[::2] for part in text.split(","))
        if not parts.keys() <= {"kernel", "qemu"} or not all(parts.values()):
            raise BadGoal(f"--to {text}: write kernel=6.17, qemu=11.1, or both with a comma")
        return cls(parts.get("kernel", ""), parts.get("qemu", ""))

    def met_by(self, host: Host) -> bool:
        """Whether a host has what is to be come to."""
        kernel = not self.kernel or newest_match(self.kernel, [host.kernel]) is not None
        return kernel and (not self.qemu or newest_match(self.qemu, host.qemus) is not None)

    def passed_by(self, host: Host) -> bool:
        """Whether a host has something newer, to which it is not brought back."""
        newest = max(map(release_key, host.qemus), default=(0,))
        return (bool(self.kernel) and release_key(host.kernel) > release_key(self.kernel)) or (
            bool(self.qemu) and newest > release_key(self.qemu)
        )


def plan_fleet_of(standing: Standing, fleet: Fleet, goal: Goal) -> tuple[PlanFleet, list[str]]:
    """The fleet with its targets, and notes on hosts that have none. Raises BadGoal."""
    targets = _Targets(standing, fleet, goal)
    builds = _Builds()
    hosts, unknown = [], []
    for host in fleet.hosts:
        build = builds.name(host.kernel, host.qemus, host.cpu, host.classes)
        target, evidence = None, ""
        if not goal.met_by(host) and not goal.passed_by(host):
            classes, evidence = targets.of(host)
            if classes is None:
                unknown.append(f"{host.name}: {evidence}")
            else:
                kernel = goal.kernel or host.kernel
                qemus = (goal.qemu,) if goal.qemu else host.qemus
                target = builds.name(kernel, qemus, host.cpu, classes)
        hosts.append(
            PlanHost(
                host.name,
                build,
                target,
                host.memory,
                host.failure_domain,
                evidence if target is not None else "",
            )
        )
    if unknown and all(host.target is None for host in hosts):
        raise BadGoal(
            f"nothing is known of what these hosts are to become: {unknown[0]}; upgrade one of "
            "them and import its report, or record the pair with armferry lab gate"
        )
    names = {guest.name for guest in fleet.guests if guest.name}
    called = len(names) == len(fleet.guests)
    guests = tuple(
        PlanGuest(
            guest.name if called else guest.id,
            guest.host,
            guest.birth,
            guest.memory,
            guest.kind,
            guest.pins,
        )
        for guest in fleet.guests
    )
    return PlanFleet(tuple(hosts), guests, builds.classes), unknown


class _Builds:
    """Names for builds, readable and each for one set of classes."""

    def __init__(self) -> None:
        self.classes: dict[str, Mapping[str, str]] = {}
        self._names: dict[frozenset[tuple[str, str]], str] = {}

    def name(
        self, kernel: str, qemus: tuple[str, ...], cpu: str, classes: Mapping[str, str]
    ) -> str:
        key = frozenset(classes.items())
        known = self._names.get(key)
        if known is None:
            parts = [kernel, *(f"qemu-{qemu}" for qemu in qemus), cpu]
            plain = known = " ".join(part for part in parts if part)
            number = 2
            while known in self.classes:
                known, number = f"{plain} ({number})", number + 1
            self._names[key] = known
            self.classes[known] = dict(classes)
        return known


class _Targets:
    def __init__(self, standing: Standing, fleet: Fleet, goal: Goal) -> None:
        self._standing, self._goal = standing, goal
        self._found: dict[object, tuple[Mapping[str, str] | None, str]] = {}
        self._canaries: dict[str, list[Host]] = {}
        for host in fleet.hosts:
            if goal.met_by(host):
                self._canaries.setdefault(host.cpu, []).append(host)

    def of(self, host: Host) -> tuple[Mapping[str, str] | None, str]:
        """The classes of a host after its upgrade, and where they are from; or None, and why."""
        key = host.cpu, host.kernel, host.qemus, frozenset(host.classes.items())
        if key not in self._found:
            self._found[key] = self._find(host)
        return self._found[key]

    def _find(self, host: Host) -> tuple[Mapping[str, str] | None, str]:
        for canary in self._canaries.get(host.cpu, ()):
            same_kernel = self._goal.kernel or series_of(canary.kernel) == series_of(host.kernel)
            same_qemu = self._goal.qemu or canary.qemus == host.qemus
            if same_kernel and same_qemu and host.classes.keys() <= canary.classes.keys():
                return (
                    {kind: canary.classes[kind] for kind in host.classes},
                    f"host {canary.name}, which runs {canary.kernel} already",
                )
        classes, names = {}, []
        for kind, one in host.classes.items():
            prints = self._standing.store.fingerprints(one)
            midr = prints[0].cpus[0].get(_MIDR) if prints else None
            qemu = self._goal.qemu or next(iter(host.qemus), "")
            try:
                entry = _recorded(self._goal.kernel or series_of(host.kernel), midr, qemu)
            except UnknownEntry as error:
                return None, str(error)
            classes[kind] = f"{_ATLAS}{entry.name} {kind}"
            names.append(f"{_ATLAS}{entry.name}")
        if not classes:
            return None, "it was never fingerprinted for a kind of guest"
        return classes, ", ".join(dict.fromkeys(names))


def _recorded(kernel: str, midr: int | None, qemu: str) -> Entry:
    """The atlas's entry of a kernel on a CPU, with a QEMU where it has it. Raises UnknownEntry."""
    atlas = read_atlas()
    cpus = [
        entry.cpu
        for entry in atlas.kernels
        if midr is not None and not (entry.fingerprint.cpus[0].get(_MIDR, 0) ^ midr) & _MIDR_MODEL
    ]
    if not cpus:
        raise UnknownEntry(f"the atlas has no CPU like MIDR_EL1 {midr or 0:#x}")
    try:
        return atlas.find(f"{kernel}/{cpus[0]}/qemu-{qemu}" if qemu else f"{kernel}/{cpus[0]}")
    except UnknownEntry:
        return atlas.find(f"{kernel}/{cpus[0]}")


@dataclass
class FleetWays:
    """The cells of a fleet as ways, those of the atlas's classes too.

    `sure`: a way that depends on what a guest holds is none. `entries`: a way that needs entries
    which the policy does not have is one, and names them; working those out is slow.
    """

    standing: Standing
    sure: bool = False
    entries: bool = True
    _relations: dict[frozenset[str], ClassRelation] = field(default_factory=dict)

    def __call__(self, birth: str, present: str, destination: str) -> Way:
        """The way between classes. Raises ArmferryError for a policy that cannot be used."""
        key = birth, present, destination
        if not any(map(self.ends, key)):
            return NO_WAY
        known = all(not one.startswith(_ATLAS) for one in key)
        relation = self.standing.relation if known else self._relation
        return self._way(relation.cell(*key), key)

    def ends(self, one: str) -> tuple[End, ...]:
        """The ends of a class of the store, or of an entry of the atlas for a kind of guest."""
        if not one.startswith(_ATLAS):
            return self.standing.ends(one)
        return _atlas_ends(one)

    @property
    def _relation(self) -> ClassRelation:
        return self._relations.setdefault(
            frozenset(), ClassRelation(self.ends, self.standing.policy)
        )

    def _way(self, cell: Cell, key: tuple[str, str, str]) -> Way:
        if cell.answer is Answer.NEVER:
            return self._with_entries(key, cell.why) if self.entries else Way(False, why=cell.why)
        return self._open(cell, frozenset())

    def _open(self, cell: Cell, entries: frozenset[str]) -> Way:
        if cell.risk > Risk.GUEST_VISIBLE:
            return Way(False, why=f"risk {cell.risk}")
        first = frozenset(map(str, (*cell.conditions, *cell.lossless_if)))
        return Way(
            True,
            visible=cell.risk is Risk.GUEST_VISIBLE,
            entries=entries,
            conditions=first if self.sure else frozenset(),
            armferry=cell.stock != "works",
            first=first,
        )

    def _with_entries(self, key: tuple[str, str, str], why: str) -> Way:
        """A way under a policy with what `armferry plan` would add to it."""
        birth, present, destination = map(self.ends, key)
        if not (birth and present and destination):
            return Way(False, why=why)
        policy = self.standing.policy
        state = state_end(birth[0], present[0], policy(present[0]))
        plan = make_plan(Move.between(state, destination[0]), policy(destination[0]))
        if not plan.works or plan.verdict.risk > Risk.GUEST_VISIBLE:
            return Way(False, why=why)
        names = frozenset(f"{one.name}: {one.action}" for one in plan.entries)
        if names not in self._relations:
            self._relations[names] = ClassRelation(self.ends, _joined(policy, plan.policy))
        cell = self._relations[names].cell(*key)
        if cell.answer is Answer.NEVER:
            return Way(False, why=why)
        return replace(self._open(cell, names), armferry=True)


def _joined(policy: Callable[[End], Policy], more: Policy) -> Callable[[End], Policy]:
    return lambda end: policy(end).union(more)


@cache
def _atlas_ends(text: str) -> tuple[End, ...]:
    name, _, kind = text.partition(" ")
    found = read_atlas().find(name).fingerprint
    machine = kind.partition(" ")[0]
    about = replace(found.provenance, machine=machine)
    return (end_of(replace(found, provenance=about), text),)
