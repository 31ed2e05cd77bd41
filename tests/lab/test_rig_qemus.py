"""The rig with real QEMUs: each starts, saves, loads its own stream and carries a guest on."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.hosts.qmp.process import MachineSpec, QemuProcess, QemuProcessError
from armferry.lab import qemu_install
from armferry.lab.cross import CrossBuildError
from armferry.lab.guest import GuestLog, build
from armferry.lab.qemu_install import InstalledQemu, QemuInstallError, install, installed
from armferry.lab.releases import RELEASES, release_named

Named = Callable[[str], InstalledQemu]

pytestmark = pytest.mark.qemu

MACHINES = [
    ("bullseye", "virt-5.2"),
    ("bookworm", "virt-7.2"),
    ("bookworm-backports", "virt-7.2"),
    ("trixie", "virt-10.0"),
    ("trixie-backports", "virt-11.1"),
]


def _log_at(path: Path, tick: int, limit: float = 30.0) -> GuestLog:
    """The guest's log once it has reached `tick`, or shows anything wrong, or time is up."""
    deadline = time.monotonic() + limit
    while True:
        log = GuestLog.read(path)
        if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
            return log
        time.sleep(0.02)


def test_every_release_has_a_machine_here() -> None:
    assert [suite for suite, _ in MACHINES] == [release.suite for release in RELEASES]


@pytest.mark.parametrize(("suite", "machine"), MACHINES)
def test_loads_its_own_stream(
    suite: str, machine: str, qemu_release: Named, tmp_path: Path
) -> None:
    qemu = qemu_release(suite)
    spec, stream = MachineSpec(machine=machine, cpu="max"), tmp_path / "stream"
    with QemuProcess(qemu, spec, paused=True) as source:
        assert source.status() == "prelaunch"
        source.save(stream)
        assert source.status() == "postmigrate"
        source.quit()
        pid = source.pid
    assert not Path(f"/proc/{pid}").exists()
    assert stream.read_bytes()[:4] == b"QEVM"
    with QemuProcess(qemu, spec, paused=True, incoming=True) as destination:
        result = destination.load(stream)
        assert result.loaded, result.stderr
        assert destination.status() == "prelaunch"


@pytest.mark.parametrize(("suite", "machine"), MACHINES)
def test_launcher_becomes_qemu(suite: str, machine: str, qemu_release: Named) -> None:
    qemu = qemu_release(suite)
    said = subprocess.run(
        [qemu.launcher, "--version"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert said.startswith(f"QEMU emulator version {qemu.version} (Debian {qemu.package})\n")
    said = subprocess.run(
        [qemu.image_tool, "--version"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert said.startswith(f"qemu-img version {qemu.version} (Debian {qemu.package})\n")
    with QemuProcess(qemu, MachineSpec(machine=machine), paused=True) as running:
        words = Path(f"/proc/{running.pid}/cmdline").read_text().split("\0")
        assert str(qemu.root / "usr/bin/qemu-system-aarch64") in words


@pytest.mark.parametrize(
    ("suite", "machine", "cpu", "smp"),
    [
        ("bullseye", "virt-5.2", "cortex-a57", 1),
        ("bookworm", "virt-7.2", "neoverse-n1", 2),
        ("bookworm-backports", "virt-7.2", "max", 1),
        ("trixie", "virt-5.2", "cortex-a57", 8),
        ("trixie-backports", "virt-10.1", "max", 2),
    ],
)
def test_guest_runs_on_after_save_and_load(
    suite: str,
    machine: str,
    cpu: str,
    smp: int,
    qemu_release: Named,
    guest_kernel: Path,
    tmp_path: Path,
) -> None:
    qemu, stream, serial = qemu_release(suite), tmp_path / "stream", tmp_path / "serial"
    spec = MachineSpec(machine=machine, cpu=cpu, smp=smp, kernel=guest_kernel)
    with QemuProcess(qemu, spec, serial=serial) as source:
        _log_at(serial, 3)
        source.save(stream)
    before = GuestLog.read(serial)
    assert before.cpus == smp
    assert before.faults() == ()
    with QemuProcess(qemu, spec, serial=serial, incoming=True) as destination:
        result = destination.load(stream)
        assert result.loaded, result.stderr
        assert destination.status() == "running"
        after = _log_at(serial, before.last + 4)
    assert after.faults() == ()
    assert after.last >= before.last + 4
    assert after.ticks[-1].rounds > before.ticks[-1].rounds


# TPIDR_EL1, x21 and the low half of v9 of CPU 1, as guest.s makes them.
PATTERNS = {
    "tpidr_el1": 0x2B6D80F51CA7E943 ^ 0x1010101010101010,
    "x21": 0x2121212121212121 ^ 0x1010101010101010,
    "v9.d0": (0xA5C3E10F00000000 + 9) ^ 0x1010101010101010,
}


@pytest.mark.parametrize("what", PATTERNS)
def test_guest_tells_what_was_lost(
    what: str, qemu_release: Named, guest_kernel: Path, tmp_path: Path
) -> None:
    """Falsifies one register of a saved guest; the guest must name exactly that one."""
    qemu, stream, serial = qemu_release("trixie"), tmp_path / "stream", tmp_path / "serial"
    spec = MachineSpec(machine="virt-7.2", smp=2, kernel=guest_kernel)
    with QemuProcess(qemu, spec, serial=serial) as source:
        last = _log_at(serial, 3).last
        source.save(stream)
    content = stream.read_bytes()
    pattern = PATTERNS[what].to_bytes(8, "big")
    assert pattern in content
    stream.write_bytes(content.replace(pattern, bytes(7) + b"\x05"))
    with QemuProcess(qemu, spec, serial=serial, incoming=True) as destination:
        assert destination.load(stream).loaded
        log = _log_at(serial, last + 50)
    assert {(loss.cpu, loss.what) for loss in log.losses} == {(1, what)}
    assert log.faults()[0] == (
        f"lost cpu 1 {what}: got 0x0000000000000005, want {PATTERNS[what]:#018x}"
    )


def test_guest_notices_lost_memory(qemu_release: Named, guest_kernel: Path, tmp_path: Path) -> None:
    """Zeroes one word of the memory in motion, in the page that the stream carries."""
    qemu, stream, serial = qemu_release("trixie"), tmp_path / "stream", tmp_path / "serial"
    spec = MachineSpec(machine="virt-7.2", kernel=guest_kernel)
    with QemuProcess(qemu, spec, serial=serial) as source:
        last = _log_at(serial, 3).last
        source.stop()
        source.save(stream)
    content = bytearray(stream.read_bytes())
    # Neighbouring words differ by ARENA_STEP: find two, deep inside the arena.
    middle = len(content) // 2 & ~1
    step = 0x9E3779B97F4A7C15
    for offset in range(middle, middle + 64 * 1024):
        one = int.from_bytes(content[offset : offset + 8], "little")
        two = int.from_bytes(content[offset + 8 : offset + 16], "little")
        if (two - one) % 2**64 == step:
            content[offset : offset + 8] = bytes(8)
            break
    else:
        pytest.fail("no page of the arena in the middle of the stream")
    stream.write_bytes(content)
    with QemuProcess(qemu, spec, serial=serial, incoming=True) as destination:
        assert destination.load(stream).loaded
        destination.cont()
        log = _log_at(serial, last + 50)
    assert {(loss.cpu, loss.what, loss.got) for loss in log.losses} == {(0, "ram", 0)}


def test_refused_stream_is_a_result_with_qemus_words(qemu_release: Named, tmp_path: Path) -> None:
    qemu, stream = qemu_release("trixie"), tmp_path / "stream"
    with QemuProcess(qemu, MachineSpec(machine="virt-7.2"), paused=True) as source:
        source.save(stream)
    with QemuProcess(
        qemu, MachineSpec(machine="virt-8.0"), paused=True, incoming=True
    ) as destination:
        result = destination.load(stream)
    assert not result.loaded
    assert result.exit_status == 1
    assert "Machine type received is 'virt-7.2' and local is 'virt-8.0'" in result.stderr


def test_machine_errors_quote_qemu(qemu_release: Named, tmp_path: Path) -> None:
    qemu = qemu_release("trixie")
    with pytest.raises(QemuProcessError) as caught:
        QemuProcess(qemu, MachineSpec(machine="virt-1.0"), paused=True)
    message = str(caught.value)
    assert message.startswith(
        "QEMU did not start (exit status 1); QEMU said:\n"
        '    qemu-system-aarch64: unsupported machine type: "virt-1.0"\n'
        "    Use -machine help to list supported machines\n"
        f"  It was: {qemu.launcher} "
    )
    with QemuProcess(qemu, paused=True) as machine:
        with pytest.raises(QemuProcessError) as caught:
            machine.execute("no-such-command")
        assert str(caught.value) == (
            "QMP command no-such-command was refused: The command no-such-command has not been "
            "found; QEMU wrote nothing to its standard error"
        )
        machine.quit()
        assert machine.exit_status == 0


def test_killed_qemu_is_noticed(qemu_release: Named) -> None:
    with QemuProcess(qemu_release("trixie"), paused=True) as machine:
        os.kill(machine.pid, 9)
        assert machine.wait() == -9
        with pytest.raises(QemuProcessError):
            machine.status()


def test_install_is_idempotent(qemu_release: Named) -> None:
    first = qemu_release("trixie")
    made = first.launcher.stat().st_mtime_ns
    assert install(first.release) == first == installed(first.release)
    assert first.launcher.stat().st_mtime_ns == made


def test_missing_mmdebstrap_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARMFERRY_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(QemuInstallError) as caught:
        install(release_named("trixie"))
    assert str(caught.value) == (
        "installing QEMU 10.0.13 (trixie): mmdebstrap is missing; apt-get install mmdebstrap"
    )
    assert caught.value.exit_code == 4


def test_failed_install_shows_the_log_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "mmdebstrap"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho E: no such suite >&2\nexit 25\n")
    fake.chmod(0o755)
    monkeypatch.setenv("ARMFERRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(fake.parent))
    monkeypatch.setattr(qemu_install, "debian_mirror", lambda: "http://mirror.example.org/debian")
    with pytest.raises(QemuInstallError) as caught:
        install(release_named("bookworm"))
    assert str(caught.value).startswith(
        "installing QEMU 7.2.22 (bookworm): mmdebstrap ended with status 25:\n"
        "    E: no such suite\n"
        "check that http://mirror.example.org/debian is reachable, carries bookworm, and that "
        f"{tmp_path}/cache/qemu has 500 MB free; then run: {fake} "
    )
    assert [path.name for path in (tmp_path / "cache/qemu").iterdir()] == [".bookworm.lock"]


def test_missing_binutils_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARMFERRY_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CrossBuildError) as caught:
        build()
    assert str(caught.value) == (
        "building the test guest: aarch64-linux-gnu-as is missing; "
        "apt-get install binutils-aarch64-linux-gnu"
    )
