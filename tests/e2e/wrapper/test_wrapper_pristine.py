"""A guest that starts from nothing but its vCPUs' state: the rest is put in place by a reset."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.hosts.fingerprints.probe import probe_vcpus
from armferry.hosts.qmp.client import Monitor
from armferry.hosts.qmp.process import BARE
from armferry.lab.guest import GuestLog
from armferry.lab.qemu_install import InstalledQemu
from armferry.policy import PsciVersion
from armferry.wrapper.beside.pristine import Pristine, pristine_lists, pristine_stream
from armferry.wrapper.errors import ArgumentFault, SetUpFault

pytestmark = pytest.mark.qemu

Named = Callable[[str], InstalledQemu]
MACHINE = [*BARE, "-M", "virt-7.2", "-accel", "tcg", "-cpu", "cortex-a57", "-smp", "2", "-m", "64"]


@pytest.mark.parametrize("ends_on_reboot", [False, True])
@pytest.mark.parametrize("suite", ["bookworm", "trixie", "trixie-backports"])
def test_guest_starts_and_runs(
    suite: str, ends_on_reboot: bool, qemu_release: Named, guest_kernel: Path, tmp_path: Path
) -> None:
    program = qemu_release(suite).launcher
    serial = tmp_path / "serial"
    vcpus = probe_vcpus(program, MACHINE)
    assert len(vcpus.saved.cpus) == 2
    assert vcpus.about.version == qemu_release(suite).version
    stream = pristine_stream(vcpus, [dict(cpu.registers) for cpu in vcpus.saved.cpus])
    pristine = Pristine(stream, tmp_path, paused=False, shuts_down_on_reboot=ends_on_reboot)
    words = ["-serial", f"file:{serial}"]
    words += ["-kernel", str(guest_kernel), *(["-no-reboot"] if ends_on_reboot else [])]
    words += ["-qmp", f"unix:{tmp_path}/monitor,server=on,wait=off"]
    process = subprocess.Popen([program, *MACHINE, *words, *pristine.arguments])
    try:
        pristine.load(lambda: process.poll() is None)
        deadline = time.monotonic() + 30
        while (log := GuestLog.read(serial)).last < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        if ends_on_reboot:  # a reset that the user wants still ends it
            with Monitor(f"unix:{tmp_path}/monitor") as monitor:
                monitor.execute("system_reset")
                assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert log.last >= 3
    assert log.faults() == ()


def test_a_qemu_that_ends_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetUpFault) as caught:
        Pristine(b"", tmp_path, paused=True, shuts_down_on_reboot=False).load(lambda: False)
    assert str(caught.value) == "QEMU ended before it began; its own messages tell why"


def test_without_kvm_there_is_no_version_to_set(qemu_release: Named) -> None:
    vcpus = probe_vcpus(qemu_release("trixie").launcher, MACHINE)
    with pytest.raises(ArgumentFault) as caught:
        pristine_lists(vcpus, PsciVersion(1, 1), "qemu")
    assert str(caught.value) == (
        "qemu: kvm-psci-version=1.1: this host's kernel does not let the PSCI version be set"
    )
