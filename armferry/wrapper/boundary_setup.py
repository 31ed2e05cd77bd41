"""The KVM boundary of a guest that is about to start: its table, and whether QEMU can have it.

Where the library cannot be put into this QEMU, hidden registers and the PSCI version are done as
without it (a relay, a second start); what only the boundary can do is refused by name.
"""

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from armferry.boundary import Action, Preload, Rule, Table, library, why_not
from armferry.hosts.fingerprints.open_subject import STANDARD_INPUT, open_subject
from armferry.policy import SITE_FOLDER, Policy, present_as, read_site
from armferry.registers import Accelerator
from armferry.wrapper.beside.boundary_rules import (
    birth_rules,
    carried_rules,
    field_rules,
    hidden_rules,
    psci_rules,
    united,
)
from armferry.wrapper.beside.property_support import binary_identity, cached, remember
from armferry.wrapper.commandline.command_line import CommandLine
from armferry.wrapper.commandline.host_properties import AS, Carry, HostProperties
from armferry.wrapper.errors import ArgumentFault

__all__ = ["Boundary", "boundary_of"]


@dataclass(frozen=True, slots=True)
class Boundary:
    """What QEMU runs under: `preload` is None where the library is not used. Unless `carry` is OFF
    safe-missing registers are kept at the boundary, so that nothing stands before QEMU."""

    table: Table
    preload: Preload | None
    carry: Carry

    @property
    def taken_out(self) -> dict[int, int]:
        """The carried registers that are not to leave this host as they are after reset."""
        if self.carry is not Carry.HERE:
            return {}
        return {rule.index: rule.value for rule in self.table.of(Action.CARRY)}

    @property
    def packed(self) -> bytes:
        """The table for a QEMU that is asked something; empty where the library is not used."""
        return b"" if self.preload is None else self.table.packed()

    @property
    def environment(self) -> dict[str, str]:
        """The environment that QEMU is started in."""
        base = dict(os.environ)
        return base if self.preload is None else self.preload.environment(base)


def boundary_of(
    program: Path,
    command: CommandLine,
    accelerator: Accelerator,
    policy: Policy,
    stated: Policy,
    properties: HostProperties,
    known: frozenset[str],
) -> Boundary:
    """The boundary of the guest that `command` starts.

    `stated` is what the command line says of the policy, `known` the properties that QEMU knows by
    itself. Raises ArgumentFault, SetUpFault, KvmFault, BoundaryFault, and what opening the host
    that the guest is born as raises.
    """
    none = Boundary(Table(()), None, Carry.OFF)
    if accelerator is not Accelerator.KVM:
        if properties:
            raise ArgumentFault(
                f"{program.name}: {properties.first} is KVM's, and this guest runs under "
                f"{accelerator.value}"
            )
        return none
    born = _born_as(properties, command)
    version = stated.psci_version if "kvm-psci-version" not in known else None
    hidden = hidden_rules(policy)
    if not (hidden or born or version or properties):
        return none
    why = _why_not(program)
    if why:
        if born or properties:
            what = born[1] if born else properties.first
            raise ArgumentFault(
                f"{program.name}: {what} needs the KVM boundary, which this QEMU cannot have: {why}"
            )
        if hidden:
            print(
                f"armferry: without the KVM boundary ({why}), hidden registers are taken out of "
                "what QEMU sends",
                file=sys.stderr,
            )
        return none
    name = program.name
    table = Table(
        united(
            [] if born is None else _presented(born, policy, name),
            hidden,
            carried_rules(policy) if properties.carry else [],
            [] if version is None else psci_rules(version, name),
            field_rules(properties.fields, name) if properties.fields else [],
        )
    )
    path = library()
    assert path is not None  # or there would have been a reason
    return Boundary(table, Preload.of(table.packed(), path), properties.carry)


def _born_as(properties: HostProperties, command: CommandLine) -> tuple[str, str] | None:
    """The host that the guest is born as, and who says so."""
    if properties.born_as is not None:
        return (properties.born_as, AS) if properties.born_as else None
    said = present_as(command.machine, read_site(SITE_FOLDER))
    return None if said is None else (said.reason, said.where)


def _presented(born: tuple[str, str], policy: Policy, name: str) -> list[Rule]:
    text, where = born
    if text == STANDARD_INPUT:
        raise ArgumentFault(f"{name}: {where}={text}: standard input is the guest's; give a file")
    return birth_rules(text, open_subject(text).end, policy, name, where)


def _why_not(program: Path) -> str:
    """`why_not`, asked once for each binary, library and confinement."""
    path = library()
    label = ""
    with contextlib.suppress(OSError):
        label = Path("/proc/self/attr/current").read_text(encoding="utf-8")
    key = f"{binary_identity(program)} {path and binary_identity(path)} {label}"
    kept = cached("preload", key)
    if kept is None:
        kept = why_not(program)
        remember("preload", key, kept)
    return kept
