"""The rig of libvirts: what it says when it cannot be installed, and that it leaves nothing."""

import os
from pathlib import Path

import pytest

from armferry.lab.libvirt_host import Domain, LibvirtHost, VirshError
from armferry.lab.libvirt_install import InstalledLibvirt, install, installed
from armferry.lab.qemu_install import QemuInstallError
from armferry.lab.releases import release_named


def test_installing_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARMFERRY_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert installed(release_named("trixie")) is None
    with pytest.raises(QemuInstallError) as fault:
        install(release_named("trixie"))
    assert str(fault.value) == (
        "installing libvirt of trixie: needs root; run it as root or with sudo"
    )
    assert fault.value.exit_code == 4


@pytest.mark.qemu
def test_a_host_ends_with_everything_it_started(guest_kernel: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "guest.elf").write_bytes(guest_kernel.read_bytes())
    domain = Domain(name="alone")
    with LibvirtHost(
        install(release_named("trixie")), "alone", folder=tmp_path / "host", shared=shared
    ) as host:
        host.define(domain)
        host.virsh("start", "alone")
        assert host.virsh("domstate", "alone") == "running"
        assert _processes("guest=alone")
        with pytest.raises(VirshError) as fault:
            host.virsh("start", "alone")
        assert str(fault.value) == "virsh start alone on alone: error: Domain is already active"
    assert not _processes("guest=alone")
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def _processes(words: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words in line:
            found.append(line)
    return found


def test_libvirtd_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    nothing = InstalledLibvirt(release_named("trixie"), "11.3.0", "10.0.13", tmp_path / "root")
    with pytest.raises(VirshError) as fault:
        LibvirtHost(nothing, "broken", folder=tmp_path / "host", shared=tmp_path / "shared")
    assert str(fault.value).startswith("libvirtd on broken did not start: mount: ")
