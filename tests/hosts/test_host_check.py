"""What `armferry host` says of a host, and keeps; with real QEMUs where it probes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.cli.main import main
from armferry.hosts.libvirt import host_check
from armferry.hosts.libvirt.hook_install import install
from armferry.hosts.libvirt.host_check import Grade, HostFinding, check_host
from armferry.lab.qemu_install import InstalledQemu


def _found(findings: tuple[HostFinding, ...], what: str) -> list[tuple[Grade, str]]:
    return [(one.grade, one.found) for one in findings if one.what == what]


def test_bare_host(tmp_path: Path) -> None:
    findings = check_host(tmp_path / "state", tmp_path)
    assert _found(findings, "hook") == [(Grade.WARNING, "not installed")]
    assert _found(findings, "fingerprints") == [(Grade.WARNING, f"no {tmp_path}/state")]
    assert _found(findings, "confinement") == [(Grade.GOOD, "neither AppArmor nor SELinux is on")]


def test_furnished_host(tmp_path: Path) -> None:
    hooks = tmp_path / "etc/libvirt/hooks"
    install("ferried", hooks)
    (hooks / "qemu").write_text("#!/bin/sh\n")
    enabled = tmp_path / "sys/module/apparmor/parameters/enabled"
    enabled.parent.mkdir(parents=True)
    enabled.write_text("Y\n")
    profile = tmp_path / "etc/apparmor.d/usr.sbin.virtqemud"
    profile.parent.mkdir(parents=True)
    profile.write_text("")
    enforcing = tmp_path / "sys/fs/selinux/enforce"
    enforcing.parent.mkdir(parents=True)
    enforcing.write_text("1")
    (tmp_path / "state").mkdir()
    findings = check_host(tmp_path / "state", tmp_path)
    assert _found(findings, "hook") == [
        (Grade.GOOD, "installed for ferried moves"),
        (Grade.GOOD, f"{hooks}/qemu is there too, runs first, is left alone"),
    ]
    assert _found(findings, "AppArmor") == [(Grade.WARNING, "confines virtqemud, and so the hooks")]
    assert _found(findings, "SELinux") == [(Grade.WARNING, "enforcing")]
    assert _found(findings, "fingerprints")[1] == (Grade.WARNING, "of no other host")


def _cores(root: Path, midrs: list[int]) -> None:
    for number, midr in enumerate(midrs):
        folder = root / f"sys/devices/system/cpu/cpu{number}/regs/identification"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "midr_el1").write_text(f"{midr:#018x}\n")


def test_kinds_of_cores(tmp_path: Path) -> None:
    _cores(tmp_path, [0x413FD0C1] * 4)
    assert _found(check_host(tmp_path / "state", tmp_path), "cores") == [
        (Grade.GOOD, "all alike: Arm Neoverse N1 r3p1 (0-3)")
    ]
    _cores(tmp_path, [0x412FD050] * 4 + [0x414FD0B0] * 4)
    (found,) = [one for one in check_host(tmp_path / "state", tmp_path) if one.what == "cores"]
    assert (found.grade, found.found) == (
        Grade.WARNING,
        "2 kinds: Arm Cortex-A55 r2p0 (0-3), Arm Cortex-A76 r4p0 (4-7)",
    )
    assert found.hint.endswith("taskset --cpu-list 0-3 or taskset --cpu-list 4-7")


def test_a_helper_that_hangs_hides_no_other_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its child keeps its output open, and so would keep a reader waiting."""
    daemon = tmp_path / "virtqemud"
    daemon.write_text("#!/bin/sh\nsleep 1000 &\nwait\n")
    daemon.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(host_check, "_PROGRAM_LIMIT", 0.2)
    findings = check_host(tmp_path / "state", tmp_path)
    assert _found(findings, "libvirt") == [
        (Grade.WARNING, f"{daemon} --version did not end in 0.2 s")
    ]
    assert _found(findings, "hook") == [(Grade.WARNING, "not installed")]
    daemon.write_bytes(b"\x7fELF")
    findings = check_host(tmp_path / "state", tmp_path)
    assert _found(findings, "libvirt") == [
        (Grade.WARNING, f"{daemon}: cannot be run: Exec format error")
    ]


def test_one_check_that_fails_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise IndexError("no such thing")

    monkeypatch.setattr(host_check, "_libvirt", fail)
    findings = check_host(tmp_path / "state", tmp_path)
    assert _found(findings, "libvirt") == [(Grade.WARNING, "unforeseen: IndexError: no such thing")]
    assert _found(findings, "hook") == [(Grade.WARNING, "not installed")]


def test_compressions_that_need_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _found(check_host(tmp_path, tmp_path), "save images") == [(Grade.WARNING, "no lzop")]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert _found(check_host(tmp_path, tmp_path), "save images") == [
        (Grade.WARNING, "no lzop"),
        (Grade.WARNING, "no zstd"),
    ]
    for name in ("lzop", "zstd"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert _found(check_host(tmp_path, tmp_path), "save images") == [
        (Grade.GOOD, "every compression of libvirt")
    ]


@pytest.mark.qemu
def test_fingerprints_are_made_kept_and_made_anew(
    qemu_release: Callable[[str], InstalledQemu],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = tmp_path / "qemu-system-aarch64"
    program.write_bytes(qemu_release("trixie").launcher.read_bytes())
    program.chmod(0o755)
    words = ["host", "fingerprint", "--state", str(tmp_path / "state"), "--json"]
    kind = ["--machine", "virt-10.0", "--cpu", "cortex-a57", "--accel", "tcg"]

    def refresh(*more: str) -> list[bool]:
        assert main([*words, *more]) == 0
        return [one["new"] for one in json.loads(capsys.readouterr().out)["stored"]]

    assert refresh(*kind, "--qemu", str(program)) == [True]
    assert refresh() == [False]
    program.write_bytes(qemu_release("bookworm-backports").launcher.read_bytes())
    assert refresh() == [True]
    table = json.loads((tmp_path / "state/hook.json").read_text())
    (here,) = table["guests"]["virt-10.0,gic-version=2 cortex-a57 tcg"].values()
    assert len(here["indexes"]) == 274 * 16

    program.unlink()
    assert main(words) == 4
    said = json.loads(capsys.readouterr().out)
    assert said["stored"] == []
    assert said["failed"][0]["why"] == f"{program}: cannot be run: No such file or directory"
