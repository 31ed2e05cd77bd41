"""A fleet of four real kernels upgraded by its plan, step by step; no guest is lost.

Each host is a kernel under emulation with Debian's QEMU on it. A guest that moves is saved where it
is, rewritten where the plan says that stock QEMU alone does not do it, loaded on the other host and
runs there: it is bare-metal and notices what a move loses.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from armferry.cli.main import main
from armferry.fleet.plan.checker import check_plan
from armferry.fleet.plan.document import fleet_of, ways_of
from armferry.hosts.report import dump_report
from armferry.lab.guest import GuestLog
from armferry.lab.host import HostSpec, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.releases import release_named
from armferry.lab.stays import Stay, Stayed, stay

from ..fleet.hosts_of_atlas import guest, report

pytestmark = [pytest.mark.qemu, pytest.mark.kernel, pytest.mark.full]

MACHINE = "virt-10.0"
OLD, NEW = "6.12", "6.17"
GUESTS = {"web": "a1", "mail": "a1", "dns": "a2"}


@dataclass
class Rig:
    """What really runs where: the kernel of each host, the last stay of each guest."""

    code: bytes
    folder: Path
    kernels: dict[str, str]
    stays: dict[str, Stayed]

    def hold(self, name: str, host: str, came: bytes, log: bytes) -> None:
        """A guest starts or goes on on a host, runs, and is saved."""
        spec = HostSpec(KernelStore().get(self.kernels[host]), release_named("trixie"))
        with LabHost(spec) as booted:
            (found,) = stay(booted, self.code, [Stay(MACHINE, came=came, log=log)])
        assert found.outcome.completed, (name, host, found.outcome)
        assert GuestLog.parse(found.log).faults() == ()
        before = len(GuestLog.parse(log).ticks) if log else 0
        assert len(GuestLog.parse(found.log).ticks) > before
        self.stays[name] = found

    def move(self, name: str, destination: str, *, alone: bool) -> None:
        """A guest's state is taken to another host as it is, or rewritten for it."""
        stream = self.stays[name].stream
        if not alone:
            state, out = self.folder / "state", self.folder / "out"
            state.write_bytes(stream)
            out.unlink(missing_ok=True)
            entry = f"atlas:{self.kernels[destination]}/neoverse-n1/qemu-10.0.13"
            assert main(["ferry", str(state), str(out), "--to", entry]) == 0
            stream = out.read_bytes()
        self.hold(name, destination, stream, self.stays[name].log)


def plan_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The plan for four hosts, of which one is empty and one was upgraded before."""
    monkeypatch.setenv("ARMFERRY_FLEET", str(folder / "fleet.sqlite"))
    reports = folder / "reports"
    reports.mkdir()
    for host in ("a1", "a2", "a3", "b1"):
        on = tuple(guest(name) for name, at in GUESTS.items() if at == host)
        kernel = NEW if host == "b1" else OLD
        text = dump_report(report(host, kernel, guests=on))
        (reports / f"{host}.json").write_text(text, encoding="utf-8")
    assert main(["fleet", "import", str(reports)]) == 0
    plan = folder / "plan.json"
    assert main(["fleet", "plan", "--to", f"kernel={NEW}", "--wave", "1", "-o", str(plan)]) == 0
    document: dict[str, Any] = json.loads(plan.read_text(encoding="utf-8"))
    assert document["optimal"]
    assert check_plan(document).holds
    return document


def test_four_hosts_are_upgraded_by_their_plan(
    guest_kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = plan_of(tmp_path, monkeypatch)
    fleet, ways = fleet_of(document), ways_of(document)
    kernels = {host.name: NEW if host.target is None else OLD for host in fleet.hosts}
    rig = Rig(guest_kernel.read_bytes(), tmp_path, kernels, {})
    at = {one.name: one.host for one in fleet.guests}
    build = {host.name: host.build for host in fleet.hosts}
    for name, host in at.items():
        rig.hold(name, host, b"", b"")
    for wave in document["waves"]:
        for word, name, source, destination in wave["steps"]:
            assert (word, at[name]) == ("move", source)
            (one,) = (one for one in fleet.guests if one.name == name)
            here, there = (
                fleet.class_of(build[host], one.kind) or "" for host in (source, destination)
            )
            rig.move(name, destination, alone=not ways(one.birth, here, there).armferry)
            at[name] = destination
        for host in wave["upgrades"]:
            assert host not in at.values()
            rig.kernels[host] = NEW
            target = fleet.by_name[host].target
            assert target is not None
            build[host] = target
    assert set(rig.kernels.values()) == {NEW}
    assert rig.stays.keys() == at.keys()
