"""This host's stored fingerprints brought up to date, and the hook's table with them.

Asked for are the kinds of guests that libvirt has here, those that were stored before, and those
that other hosts have and could send. Only what is missing or stale is probed; a fingerprint that
is stale and cannot be made again is removed, for nothing must be decided from it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from armferry.errors import ArmferryError
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.hosts.fingerprints.probe import vcpus_of
from armferry.hosts.libvirt.hook_table import write_table
from armferry.hosts.libvirt.state_folder import (
    GuestKind,
    Known,
    Stored,
    kinds_of_domains,
    kinds_of_hosts,
    other_hosts,
    remove_stored,
    store,
    stored,
)
from armferry.hosts.qmp.process import MachineSpec, QemuProcess, RefusedByQemu
from armferry.hosts.qmp.running import running_machine
from armferry.registers import Accelerator

__all__ = ["Refreshed", "refresh"]


@dataclass(frozen=True, slots=True)
class Refreshed:
    """All that is stored now, which of it is new, and what could not be done.

    `faults` says why a kind could not be probed, `unreadable` why a domain's XML or another host's
    fingerprint could not be read.
    """

    stored: tuple[Stored, ...]
    new: tuple[GuestKind, ...]
    faults: Mapping[GuestKind, str]
    unreadable: Mapping[Path, str]


def refresh(state: Path, extra: Sequence[GuestKind], default_qemu: Callable[[], str]) -> Refreshed:
    """Brings everything below `state` up to date.

    `extra` are kinds beside those that are known; `default_qemu` is asked for the QEMU that
    guests of other hosts would get here. Raises StateFault, FingerprintError or PolicyError.
    """
    have = stored(state)
    others = other_hosts(state)
    domains = kinds_of_domains()
    faults: dict[GuestKind, str] = {}
    new: list[GuestKind] = []
    for kind in _wanted(domains.kinds, have, others.guests, extra, default_qemu):
        old = next((one for one in have if one.kind == kind), None)
        if old is not None and old.fresh:
            continue
        try:
            kind, found = _probed(kind)
        except ArmferryError as fault:
            faults[kind] = str(fault).splitlines()[0]
            if old is not None:
                have = remove_stored(state, old, before=have)
            continue
        if old is not None and old.kind != kind:
            have = remove_stored(state, old, before=have)
        have = store(state, kind, found, before=have)
        new.append(kind)
    write_table(state)
    return Refreshed(have, tuple(new), faults, {**domains.unreadable, **others.unreadable})


def _probed(kind: GuestKind) -> tuple[GuestKind, Fingerprint]:
    """The fingerprint of `kind`, which then names its gic-version, as a domain's XML does.

    Raises ArmferryError.
    """
    spec = MachineSpec(machine=kind.machine, cpu=kind.cpu, accel=kind.accelerator)
    with QemuProcess(Path(kind.emulator), spec, paused=True) as process:
        properties = running_machine(process.execute, RefusedByQemu).machine_properties
        found = vcpus_of(process).fingerprint(kind.cpu, Accelerator(kind.accelerator))
    gic = properties.get("gic-version")
    if gic is not None and "gic-version=" not in kind.machine:
        kind = replace(kind, machine=f"{kind.machine},gic-version={gic}")
    return kind, found


def _wanted(
    domains: Sequence[GuestKind],
    have: Sequence[Stored],
    others: Mapping[str, Sequence[Known]],
    extra: Sequence[GuestKind],
    default_qemu: Callable[[], str],
) -> tuple[GuestKind, ...]:
    wanted = dict.fromkeys((*domains, *(one.kind for one in have), *extra))
    known = {kind.guest for kind in wanted}
    if others:
        wanted |= dict.fromkeys(
            kind for kind in kinds_of_hosts(others, default_qemu()) if kind.guest not in known
        )
    return tuple(wanted)
