"""Debian's libvirt with its QEMU, installed side by side below the cache, one root for a suite.

The roots are whole, configured ones (mmdebstrap's `minbase`), because libvirtd wants the system
it was built for; nothing in them is ever written to again: a running host keeps what it changes
in a folder of its own (`armferry.lab.libvirt_host`). Making one takes a minute or two and needs
to be root.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from armferry.cache import cache_folder
from armferry.hosts.files.atomic import write_whole
from armferry.lab.qemu_install import QemuInstallError, make_root
from armferry.lab.releases import Release

__all__ = ["InstalledLibvirt", "install", "installed"]

_PACKAGES = (
    "libvirt-daemon,libvirt-daemon-driver-qemu,libvirt-clients,qemu-system-arm,"
    "qemu-system-common,qemu-system-data,python3,bzip2,lzop,xz-utils,zstd"
)
_QEMU = "usr/bin/qemu-system-aarch64"


@dataclass(frozen=True, slots=True)
class InstalledLibvirt:
    """A libvirt that is there. `version` is libvirt's, `qemu` its QEMU's: `11.3.0`, `10.0.13`."""

    release: Release
    version: str
    qemu: str
    root: Path


def installed(release: Release) -> InstalledLibvirt | None:
    """The libvirt of `release` when it is in the cache, else None; quick, starts nothing."""
    try:
        record = json.loads(_record(release).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    root = _folder() / release.suite
    if not (root / _QEMU).exists():
        return None
    return InstalledLibvirt(release, record["libvirt"], record["qemu"], root)


def install(release: Release) -> InstalledLibvirt:
    """The libvirt of `release`, installed first when it is not there.

    Safe against a second installer and against being killed. Raises QemuInstallError.
    """
    there = installed(release)
    if there is not None:
        return there
    with open(_folder() / f".{release.suite}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        there = installed(release)
        if there is None:
            there = _make(release)
    return there


def _make(release: Release) -> InstalledLibvirt:
    what = f"libvirt of {release.suite}"
    if os.geteuid() != 0:
        raise QemuInstallError(f"installing {what}: needs root; run it as root or with sudo")
    final = _folder() / release.suite
    with tempfile.TemporaryDirectory(prefix=f".{release.suite}-", dir=_folder()) as temporary:
        root = Path(temporary) / "root"
        make_root(release, root, what=what, variant="minbase", packages=_PACKAGES)
        record = {
            "suite": release.suite,
            "libvirt": _version(root, what, "libvirtd"),
            "qemu": _version(root, what, "qemu-system-aarch64"),
        }
        shutil.rmtree(final, ignore_errors=True)
        root.chmod(0o755)
        root.rename(final)
    text = json.dumps(record, indent=2) + "\n"
    write_whole(_record(release), text)
    return InstalledLibvirt(release, record["libvirt"], record["qemu"], final)


def _version(root: Path, what: str, program: str) -> str:
    done = subprocess.run(
        ["chroot", root, program, "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"\d+\.\d+\.\d+", done.stdout)
    if done.returncode != 0 or found is None:
        said = (done.stdout + done.stderr).strip()
        raise QemuInstallError(f"installing {what}: {program} --version printed {said!r}")
    return found[0]


def _record(release: Release) -> Path:
    return _folder() / f"{release.suite}.json"


def _folder() -> Path:
    return cache_folder("libvirt")
