"""A QEMU started like one that runs, whatever that one was started with."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from armferry.hosts.fingerprints.probe import ProbeError, fingerprint_of_qemu
from armferry.hosts.fingerprints.probe_like import fingerprint_like
from armferry.hosts.qmp.process import MachineSpec, QemuProcess, RefusedByQemu
from armferry.hosts.qmp.running import RunningMachine, running_machine
from armferry.lab.qemu_install import InstalledQemu

pytestmark = pytest.mark.qemu

Named = Callable[[str], InstalledQemu]
KINDS = (
    ("virt", "cortex-a57"),
    ("virt,gic-version=3,its=off", "cortex-a57"),
    ("virt,virtualization=on", "max"),
    ("virt,secure=on", "cortex-a57"),
    ("virt,mte=on", "max,pmu=off"),
    ("virt", "max,sve=off"),
    ("virt", "max,sve-max-vq=4"),
    ("virt", "max,sve128=on,sve256=on,sve384=off,sve512=off"),
    ("virt,highmem=off,acpi=off", "cortex-a72,pmu=off,reset-hivecs=on"),
    ("virt,secure=on,virtualization=on,gic-version=3", "max,pmu=off,sve-max-vq=2"),
)
SINCE_6 = (("virt", "max,pauth=off,sve=off"), ("virt", "max,pauth-impdef=on"))


def _running(qemu: InstalledQemu, spec: MachineSpec) -> RunningMachine:
    with QemuProcess(qemu, spec, paused=True) as process:
        return running_machine(process.execute, RefusedByQemu)


@pytest.mark.parametrize("kind", [*KINDS, *SINCE_6], ids=" ".join)
@pytest.mark.parametrize(
    "release",
    [
        pytest.param("bullseye", marks=pytest.mark.full),
        pytest.param("bookworm", marks=pytest.mark.full),
        "trixie",
        pytest.param("trixie-backports", marks=pytest.mark.full),
    ],
)
def test_it_has_the_registers_and_sections_of_the_running_one(
    release: str, kind: tuple[str, str], qemu_release: Named
) -> None:
    if release == "bullseye" and kind in SINCE_6:
        kind = ("virt", "max")  # QEMU 5.2 has no such properties
    qemu = qemu_release(release)
    spec = MachineSpec(machine=kind[0], cpu=kind[1], smp=2)
    found = fingerprint_like(qemu.launcher, _running(qemu, spec))
    real = fingerprint_of_qemu(qemu.launcher, spec)
    assert (found.cpus, found.devices, found.features) == (real.cpus, real.devices, real.features)
    assert found.provenance.qemu == real.provenance.qemu == qemu.version


def test_what_cannot_be_made_equal_is_named(qemu_release: Named) -> None:
    qemu = qemu_release("trixie")
    wanted = _running(qemu, MachineSpec())
    wanted = replace(wanted, cpu_properties={**wanted.cpu_properties, "pmu": "perhaps"})
    with pytest.raises(ProbeError) as fault:
        fingerprint_like(qemu.launcher, wanted)
    assert str(fault.value).startswith(
        f"{qemu.launcher} cannot be started like the running QEMU: CPU property pmu is perhaps "
        "there and on here"
    )
    assert str(fault.value).endswith(
        "; make a fingerprint of that host with armferry fingerprint qemu and its own -machine and "
        "-cpu"
    )


def test_a_property_that_the_program_does_not_have_is_named(qemu_release: Named) -> None:
    qemu = qemu_release("trixie")
    wanted = _running(qemu, MachineSpec())
    wanted = replace(wanted, machine_properties={**wanted.machine_properties, "new-one": "on"})
    with pytest.raises(ProbeError) as fault:
        fingerprint_like(qemu.launcher, wanted)
    assert "machine property new-one is on there and unknown here (qemu" in str(fault.value)
    assert "Property 'virt-10.0-machine.new-one' not found)" in str(fault.value)
