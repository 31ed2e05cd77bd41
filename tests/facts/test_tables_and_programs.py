"""The tables of facts against the QEMUs of the rig: machine types, subsections, registers."""

import re
import subprocess

import pytest

from armferry.facts import qemu_rules, unversioned_machines
from armferry.facts.machines import newest_virt, oldest_virt
from armferry.facts.release import release_key
from armferry.facts.tables import table
from armferry.lab.qemu_install import install, resolve
from armferry.lab.releases import RELEASES
from armferry.registers import parse_register

VERSIONS = [release.version for release in RELEASES]
_NAMED = re.compile(rb"\0(cpu/[a-z0-9_/-]+)(?=\0)")


def machine_types(version: str) -> set[str]:
    launcher = install(resolve(version)).launcher
    said = subprocess.run(
        [launcher, "-machine", "help"], capture_output=True, text=True, check=True
    )
    return {line.split()[0] for line in said.stdout.splitlines()[1:] if line.strip()}


@pytest.mark.qemu
def test_machine_types_are_those_of_the_programs() -> None:
    unversioned: set[str] = set()
    versions: dict[str, list[str]] = {}
    for version in VERSIONS:
        there = machine_types(version)
        virt = {one for one in there if one == "virt" or one.startswith("virt-")}
        versions[version] = sorted(virt - {"virt"}, key=release_key)
        unversioned |= there - virt
    assert unversioned_machines() == unversioned
    assert newest_virt() == {version: known[-1] for version, known in versions.items()}
    assert oldest_virt() == min((known[0] for known in versions.values()), key=release_key)


@pytest.mark.qemu
@pytest.mark.parametrize("version", VERSIONS)
def test_subsections_are_those_of_the_programs(version: str) -> None:
    (program,) = install(resolve(version)).root.rglob("qemu-system-aarch64")
    found = {name.decode() for name in _NAMED.findall(program.read_bytes())}
    structs = set(table("subsections")["subsections"]["structs"])
    assert structs < found
    assert qemu_rules(version).subsections == found - structs


def test_registers_of_tcg_have_their_names() -> None:
    tcg = table("qemu")["tcg"]
    for name in tcg["fixed"] + tcg["free"]:
        assert parse_register(name)
