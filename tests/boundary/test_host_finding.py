"""What `armferry host check` says of the boundary."""

from pathlib import Path

import pytest

from armferry.boundary.host_finding import boundary_findings
from armferry.hosts.libvirt.host_check import Grade


def test_nothing_without_kvm(tmp_path: Path) -> None:
    assert list(boundary_findings(tmp_path / "kvm")) == []


def test_nothing_without_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kvm").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(boundary_findings(tmp_path / "kvm")) == []


def test_reason_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kvm").touch()
    program = tmp_path / "qemu-system-aarch64"
    program.write_text("#!/bin/sh\necho QEMU emulator version 10.0.13\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (finding,) = boundary_findings(tmp_path / "kvm")
    # a wheel for any machine has no library
    assert finding.grade is Grade.WARNING
    assert finding.found == (
        "this armferry came without its library; the package for aarch64 has it"
    )
