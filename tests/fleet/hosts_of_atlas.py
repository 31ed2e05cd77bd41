"""Hosts for tests of the fleet: what the atlas recorded of real kernels and QEMUs, as reports."""

from dataclasses import replace
from functools import cache

from armferry.ends import End
from armferry.fleet.relation import ClassRelation
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.hosts.report import HostReport, ReportedGuest, ReportedKind, ReportHead
from armferry.policy import Policy, aggregate

MACHINE = "virt-10.0"
KIND = f"{MACHINE} host kvm"
QEMU = "/usr/bin/qemu-system-aarch64"


@cache
def recorded(name: str, machine: str = "") -> Fingerprint:
    """`6.12/neoverse-n1/qemu-10.0.13`, as if a host had been asked about `machine`."""
    found = read_atlas().find(name).fingerprint
    return replace(found, provenance=replace(found.provenance, machine=machine))


@cache
def policy_of(end: End) -> Policy:
    return aggregate(str(end.machine or "virt"), end.accelerator)


def report(
    host: str,
    kernel: str,
    *,
    cpu: str = "neoverse-n1",
    qemu: str = "10.0.13",
    time: float = 1_790_000_000,
    guests: tuple[ReportedGuest, ...] = (),
    site: str = "",
) -> HostReport:
    """A host with that kernel, CPU and QEMU, which has one kind of guest."""
    found = recorded(f"{kernel}/{cpu}/qemu-{qemu}", MACHINE)
    return HostReport(
        ReportHead(host, time, f"boot of {host}"),
        found.provenance.kernel,
        "0.1.0",
        (qemu,),
        found.provenance.hardware,
        64 << 30,
        site,
        f"rack {host[-1]}",
        (ReportedKind(MACHINE, "host", "kvm", QEMU, found),),
        guests,
    )


def guest(name: str, birth: str = "here", memory: int = 4 << 30, **more: object) -> ReportedGuest:
    return ReportedGuest(name, f"{name} by name", KIND, memory, birth, **more)  # type: ignore[arg-type]


def atlas_relation(machine: str = "") -> ClassRelation:
    """Entries of the atlas as classes, by their names."""

    @cache
    def ends(name: str) -> tuple[End, ...]:
        return (end_of(recorded(name, machine), name),)

    policies = {
        one: aggregate(machine or "virt", one)
        for one in {end_of(recorded("6.12/neoverse-n1")).accelerator}
    }
    return ClassRelation(ends, lambda end: policies[end.accelerator])
