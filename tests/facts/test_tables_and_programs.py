"""The tables of facts against the QEMUs of the rig: machine types, subsections, registers."""

import re
import subprocess
from pathlib import Path

import pytest

from armferry.facts import (
    is_reset_content,
    knows_device_subsection,
    means_unused,
    qemu_rules,
    unversioned_machines,
)
from armferry.facts.machines import newest_virt, oldest_virt
from armferry.facts.release import release_key
from armferry.facts.tables import table
from armferry.hosts.fingerprints.saved_subject import read_state
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
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


@pytest.mark.qemu
@pytest.mark.parametrize("version", VERSIONS)
def test_device_subsections_are_those_of_the_programs(version: str) -> None:
    (program,) = install(resolve(version)).root.rglob("qemu-system-aarch64")
    content = program.read_bytes()
    for name in table("device_subsections")["subsections"]["known"]:
        there = f"\0{name}\0".encode() in content
        assert knows_device_subsection(version, name) is there, name
    assert knows_device_subsection(version, "nobody/knows") is None


def test_what_a_subsection_of_a_device_holds_when_it_is_unused() -> None:
    assert means_unused("arm_gicv3/gicd_nmi", bytes(128))
    assert not means_unused("arm_gicv3/gicd_nmi", bytes(127) + b"\1")
    assert not means_unused("smmuv3/gbpa", bytes(4))  # not zero after reset
    assert not means_unused("nobody/knows", bytes(4))


@pytest.mark.qemu
@pytest.mark.parametrize("version", VERSIONS)
def test_a_guest_that_never_ran_sends_reset_content(version: str, tmp_path: Path) -> None:
    sent = set()
    for cpu in ("cortex-a15", "cortex-a57", "max"):
        spec = MachineSpec(machine=newest_virt()[version], cpu=cpu)
        with QemuProcess(install(resolve(version)).launcher, spec, paused=True) as machine:
            machine.save(tmp_path / cpu)
            machine.quit()
        for part in read_state(tmp_path / cpu).cpus[0].subsections:
            sent.add(part.name)
            assert is_reset_content(part.name, part.payload) is (part.name != "cpu/vfp")
    assert sent >= {"cpu/vfp", "cpu/irq-line-state", "cpu/sve", "cpu/thumb2ee"}


@pytest.mark.parametrize(
    ("name", "content", "reset"),
    [
        ("cpu/wfxt-timer", b"\xff" * 8, True),
        ("cpu/wfxt-timer", bytes(8), False),  # an armed timer
        ("cpu/fpmr", bytes(8), True),
        ("cpu/fpmr", b"\xff" * 8, False),
        ("cpu/fpmr", b"\0\0\0\0\xff\xff\xff\xff", False),
        ("cpu/serror", bytes(16), False),  # sent only while an error is pending
        ("cpu/nonsense", bytes(8), False),
    ],
)
def test_content_after_reset_is_known_subsection_by_subsection(
    name: str, content: bytes, reset: bool
) -> None:
    assert is_reset_content(name, content) is reset


def test_registers_of_tcg_have_their_names() -> None:
    tcg = table("qemu")["tcg"]
    for name in tcg["fixed"] + tcg["free"]:
        assert parse_register(name)
