"""The steps of a plan as a person runs them: with virsh, armferry, KubeVirt or Nova.

Text only: nothing is run here, and each command stands for what its tool's manual says of it.
"""

import enum
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from armferry.fleet.plan.document import RecordedWays, fleet_of, ways_of
from armferry.fleet.plan.model import PlanFleet, PlanGuest

__all__ = ["Tool", "plan_lines", "plan_table"]


class Tool(enum.StrEnum):
    """With what the steps are done."""

    VIRSH = "virsh"
    ARMFERRY = "armferry"
    KUBEVIRT = "kubevirt"
    NOVA = "nova"


def plan_lines(
    document: Mapping[str, Any], tool: Tool, fleet: PlanFleet | None = None
) -> Iterator[str]:
    """The whole plan: a heading for each wave, its numbered steps, what to check before one.

    `fleet` is the document's own, where it is at hand.
    """
    for title, steps in plan_table(document, tool, fleet):
        yield title
        yield from (f"  {step}" for step in steps)


def plan_table(
    document: Mapping[str, Any], tool: Tool = Tool.VIRSH, fleet: PlanFleet | None = None
) -> Iterator[tuple[str, list[str]]]:
    """The title of each wave, and its numbered steps. Raises PlanDocumentError."""
    fleet = fleet_of(document) if fleet is None else fleet
    diary = _Diary(fleet, RecordedWays(ways_of(document)), tool, document.get("goal") or {})
    number = 0
    for at, wave in enumerate(document["waves"], 1):
        upgrades, rows = list(wave["upgrades"]), list(wave["steps"])
        title = (
            f"Wave {at} of {len(document['waves'])}: "
            f"{_many(len(rows), 'guest leaves', 'guests leave')}, "
            f"{_many(len(upgrades), 'host is', 'hosts are')} upgraded"
        )
        steps = []
        asleep: list[tuple[str, str]] = []
        for words in rows:
            number += 1
            steps += [f"{number}. {one}" for one in diary.step(words, asleep)]
        for host in upgrades:
            number += 1
            steps.append(f"{number}. {diary.upgrade(host)}")
        steps += [f"then: {diary.start(name, host)}" for name, host in asleep]
        yield title, steps


def _many(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


class _Diary:
    def __init__(
        self, fleet: PlanFleet, ways: RecordedWays, tool: Tool, goal: Mapping[str, Any]
    ) -> None:
        self._fleet, self._ways, self._tool = fleet, ways, tool
        self._goal = " and ".join(f"{name} {value}" for name, value in goal.items() if value)
        self._build = {host.name: host.build for host in fleet.hosts}
        self._guests: dict[str, PlanGuest] = {guest.name: guest for guest in fleet.guests}
        self._birth = {guest.name: guest.birth for guest in fleet.guests}

    def step(self, words: list[str], asleep: list[tuple[str, str]]) -> list[str]:
        """A move or a restart."""
        word, name, source, destination = words
        if word == "move":
            return [self._move(name, source, destination)]
        if source == destination:
            asleep.append((name, source))
            return [self._stop(name, source)]
        self._reborn(name, destination)
        return [self._elsewhere(name, source, destination)]

    def _reborn(self, name: str, host: str) -> None:
        birth = self._fleet.class_of(self._build[host], self._guests[name].kind)
        self._birth[name] = birth or self._birth[name]

    def _move(self, name: str, source: str, destination: str) -> str:
        kind = self._guests[name].kind
        here, there = (
            self._fleet.class_of(self._build[host], kind) or "" for host in (source, destination)
        )
        way = self._ways(self._birth[name], here, there)
        guest, first, last = map(shlex.quote, (name, source, destination))
        notes = []
        if way.first:
            notes.append(f"only while {', '.join(sorted(way.first))}: armferry checks it")
        if way.visible:
            notes.append("the guest may notice")
        if way.entries:
            notes.append(f"needs policy entries: {'; '.join(sorted(way.entries))}")
        if way.armferry and self._tool is not Tool.ARMFERRY:
            notes.append("stock QEMU alone refuses it: through armferry (docs/libvirt.md)")
        text = {
            Tool.VIRSH: f"virsh -c qemu+ssh://{first}/system migrate --live --persistent "
            f"--undefinesource --verbose {guest} qemu+ssh://{last}/system",
            Tool.ARMFERRY: f"armferry migrate --source {first}:{guest} --destination "
            f"{last}:{guest} (the QMP address of {name} on each host)",
            Tool.KUBEVIRT: f"VirtualMachineInstanceMigration of {guest} with spec.vmiName: {guest} "
            f"and spec.addedNodeSelector: {{kubernetes.io/hostname: {last}}}",
            Tool.NOVA: f"openstack server migrate --live-migration --host {last} --wait {guest}",
        }[self._tool]
        return text + "".join(f"  # {note}" for note in notes)

    def _stop(self, name: str, host: str) -> str:
        guest, here = shlex.quote(name), shlex.quote(host)
        return {
            Tool.VIRSH: f"virsh -c qemu+ssh://{here}/system shutdown {guest}",
            Tool.ARMFERRY: f"virsh -c qemu+ssh://{here}/system shutdown {guest}",
            Tool.KUBEVIRT: f"virtctl stop {guest}",
            Tool.NOVA: f"openstack server stop {guest}",
        }[self._tool] + f"  # started again on {host} after its upgrade"

    def start(self, name: str, host: str) -> str:
        """A guest that was shut down for the upgrade of its host."""
        self._reborn(name, host)
        guest, here = shlex.quote(name), shlex.quote(host)
        return {
            Tool.VIRSH: f"virsh -c qemu+ssh://{here}/system start {guest}",
            Tool.ARMFERRY: f"virsh -c qemu+ssh://{here}/system start {guest}",
            Tool.KUBEVIRT: f"virtctl start {guest}",
            Tool.NOVA: f"openstack server start {guest}",
        }[self._tool]

    def _elsewhere(self, name: str, source: str, destination: str) -> str:
        guest, first, last = map(shlex.quote, (name, source, destination))
        offline = (
            f"virsh -c qemu+ssh://{first}/system shutdown {guest}; then virsh -c "
            f"qemu+ssh://{first}/system migrate --offline --persistent --undefinesource {guest} "
            f"qemu+ssh://{last}/system; then virsh -c qemu+ssh://{last}/system start {guest}"
        )
        return {
            Tool.VIRSH: offline,
            Tool.ARMFERRY: offline,
            Tool.KUBEVIRT: f"virtctl stop {guest}; set its nodeSelector to "
            f"{{kubernetes.io/hostname: {last}}}; virtctl start {guest}",
            Tool.NOVA: f"openstack server migrate --host {last} --wait {guest}; openstack server "
            f"migration confirm {guest}",
        }[self._tool]

    def upgrade(self, host: str) -> str:
        """A host is upgraded, and reports itself."""
        named = self._fleet.by_name[host]
        self._build[host] = named.target or named.build
        here = shlex.quote(host)
        first, last = {
            Tool.VIRSH: ("", ""),
            Tool.ARMFERRY: ("", ""),
            Tool.KUBEVIRT: (f"kubectl cordon {here}; ", f"; kubectl uncordon {here}"),
            Tool.NOVA: (
                f"openstack compute service set --disable {here} nova-compute; ",
                f"; openstack compute service set --enable {here} nova-compute",
            ),
        }[self._tool]
        why = f"  # as {named.evidence}" if named.evidence else ""
        return f"{first}upgrade {host} to {self._goal or named.target} and start it anew{last}{why}"
