"""The lab's Linux guest: what it says of itself, and that it notices what it is there to notice."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.cli.main import main
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab import cpio
from armferry.lab.cross import CrossBuildError
from armferry.lab.guest import GuestLog
from armferry.lab.kernels import KernelStore
from armferry.lab.linux import LinuxLog, LinuxMachine, LinuxSpec, initial_ramdisk
from armferry.lab.qemu_install import InstalledQemu

Named = Callable[[str], InstalledQemu]

SAID = b"""\
note pmu counts and samples
armferry linux 6.12.1-cloud-arm64 cpus 2 workers clock memory pac\r
kernel 4 something at boot
tick 00000001 clock 12 memory 3 pac 2\r
tick 00000002 clock 10 memory 0 pac 2
did offline 1: ok
"""


def test_what_the_guest_prints_is_read() -> None:
    log = LinuxLog.parse(SAID + b"tick 000")
    assert (log.kernels, log.cpus) == (("6.12.1-cloud-arm64",), 2)
    assert log.workers == ("clock", "memory", "pac")
    assert log.last == 2
    assert log.ticks[0].rounds == {"clock": 12, "memory": 3, "pac": 2}
    assert log.answers == (("offline 1", "ok"),)
    assert log.notes == ("pmu counts and samples",)
    assert log.faults() == ("kernel: something at boot",)
    assert log.faults(log) == ()
    assert LinuxLog.parse(SAID * 2 + SAID[: SAID.index(b"tick")]).last == 0


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("fault clock CLOCK_MONOTONIC went back", "fault clock CLOCK_MONOTONIC went back"),
        ("stalled pmu", "stalled pmu"),
        ("ended pac signal 4", "ended pac signal 4"),
        ("kernel 4 CPU features: SANITY CHECK", "kernel: CPU features: SANITY CHECK"),
        ("[  1.0] Internal error: Oops", "unexpected line: [  1.0] Internal error: Oops"),
        ("tick 00000004 clock 1", "tick 2 is followed by tick 4"),
        ("armferry linux 6.12.1 cpus 2 workers clock", "the guest started again"),
    ],
)
def test_anything_new_is_a_fault(line: str, found: str) -> None:
    before = LinuxLog.parse(SAID)
    assert LinuxLog.parse(SAID + f"{line}\n".encode()).faults(before) == (found,)


@pytest.mark.parametrize(
    "line",
    [
        "tick 00000003 clock 1 memory 1 pac 1",
        "kernel 4 hrtimer: interrupt took 44222336 ns",
        "[   38.039071] reboot: Restarting system",
        "did cache 1: L1 Data 64K",
        "",
    ],
)
def test_what_is_no_fault(line: str) -> None:
    before = LinuxLog.parse(SAID)
    assert LinuxLog.parse(SAID + f"{line}\n".encode()).faults(before) == ()


def test_the_ramdisk_has_the_workload_alone() -> None:
    entries = list(cpio.read(initial_ramdisk().read_bytes()))
    assert [entry.name for entry in entries] == ["dev", "proc", "sys", "dev/console", "init"]
    assert entries[-1].content.startswith(b"\x7fELF")


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARMFERRY_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CrossBuildError) as caught:
        initial_ramdisk()
    assert str(caught.value) == (
        "building the Linux guest: aarch64-linux-gnu-gcc is missing; "
        "apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
    )


@pytest.mark.qemu
def test_a_bare_guest_is_saved_and_goes_on(
    qemu_release: Named, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "guest.state"
    assert main(["lab", "guest", "--qemu", "10.0.13", "-o", str(state)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        f"{state}: the bare-metal guest, virt-10.0, cortex-a57, 2 vCPUs, 64 MiB, QEMU 10.0.13; "
    )
    assert printed.endswith(f"\nnext: armferry inspect {state}\n")
    guest = open_subject(str(state))
    assert (guest.machine, len(guest.lists)) == ("virt-10.0", 2)
    serial = tmp_path / "serial"
    spec = MachineSpec(machine="virt-10.0", smp=2)
    with QemuProcess(qemu_release("10.0.13"), spec, serial=serial, incoming=True) as machine:
        assert machine.load(state).loaded
        log = GuestLog.read(serial)
        while not log.ticks and not log.odd and not log.losses:
            log = GuestLog.read(serial)
    assert log.first > 5
    assert not log.faults()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "/nowhere/at/all/state"], "/nowhere/at/all is no folder"),
        (["-o", "/"], "/ is no file"),
        (["--qemu", "9.9", "-o", "x"], "no QEMU release '9.9' in the rig"),
    ],
)
def test_what_lab_guest_refuses(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "guest", *words]) == 3
    assert capsys.readouterr().err.startswith(f"armferry: {said}")


@pytest.mark.qemu
@pytest.mark.kernel
def test_linux_works_turns_cpus_off_and_on_and_starts_again(
    qemu_release: Named, tmp_path: Path
) -> None:
    spec = LinuxSpec(KernelStore().get("6.12"))
    with LinuxMachine(qemu_release("10.0.13"), spec, tmp_path / "log") as guest:
        log = guest.settled()
        assert log.kernels[0].startswith("6.12.")
        assert set(log.workers) >= {"clock", "neon", "sve", "pac", "pmu", "breakpoint", "ptrace"}
        assert "pmu counts and samples" in log.notes
        assert log.wrong == log.odd == ()
        before = guest.ticks(4)
        assert all(any(tick.rounds[name] for tick in before.ticks) for name in log.workers)
        assert guest.ask("offline 1") == "ok"
        assert guest.ask("online 1") == "ok"
        assert re.match(r"L1 Data", guest.ask("cache 1"))
        assert guest.ask("offline 7") == "No such file or directory"
        for how in ("warm", "cold"):
            assert guest.ticks(2).faults(before) == ()
            assert guest.ask(f"reboot {how}") == "ok"
            before = guest.started_again(before)
