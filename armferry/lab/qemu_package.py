"""A QEMU of a lab host that comes from a package file instead of a release of the rig.

The host boots with the userland of a release, and the package's QEMU lies in it over the
release's own: so a package can be tried before any archive carries it. What it needs of libraries
beyond the release's, QEMU says when it does not start.
"""

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from armferry.cache import cache_folder
from armferry.errors import ArmferryError
from armferry.facts.release import release_key
from armferry.lab import cpio
from armferry.lab.deb import package_file, unpack
from armferry.lab.releases import RELEASES, Release

__all__ = ["QEMU_PACKAGE", "QemuPackage", "WrongQemuPackage", "qemu_package"]

QEMU_PACKAGE = "qemu-system-arm"
_BINARY = "usr/bin/qemu-system-aarch64"
_UPSTREAM = re.compile(r"(?:\d+:)?(\d+(?:\.\d+)*)")
_SUITES = {"11": "bullseye", "12": "bookworm", "13": "trixie"}
_BUILT_FOR = re.compile(r"(?:deb|bpo)(\d+)")


class WrongQemuPackage(ArmferryError):
    """A package that has no QEMU for a lab host."""


@dataclass(frozen=True, slots=True)
class QemuPackage:
    """An unpacked QEMU: `version` is upstream's, `release` lends its userland.

    `archive` is an initramfs archive with the program alone.
    """

    version: str
    package: str
    release: Release
    archive: Path


def qemu_package(deb: Path) -> QemuPackage:
    """The QEMU in a package file. Raises `WrongQemuPackage`, `BadPackage`, `DpkgMissing`."""
    about = package_file(deb)
    if about.name != QEMU_PACKAGE or about.architecture != "arm64":
        raise WrongQemuPackage(
            f"{deb}: {about.name} for {about.architecture} has no QEMU for a lab host: give"
            f" {QEMU_PACKAGE} for arm64"
        )
    version = _UPSTREAM.match(about.version)
    if version is None:
        raise WrongQemuPackage(f"{deb}: {about.version!r} is no version of QEMU")
    release = _release(version[1], about.version)
    with deb.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    archive = cache_folder("initramfs") / f"qemu-{sha256[:24]}.cpio"
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=archive.parent) as temporary:
            unpack(deb, Path(temporary))
            program = Path(temporary, _BINARY)
            if not program.is_file():
                raise WrongQemuPackage(f"{deb}: there is no {_BINARY} in it")
            cpio.store(archive, [cpio.file(_BINARY, program.read_bytes(), 0o755)])
    return QemuPackage(version[1], about.version, release, archive)


def _release(version: str, package: str) -> Release:
    """The release whose libraries are nearest to those that the package was built with.

    Of the suite that the package's version names, else the newest: its newest that is not newer.
    """
    built_for = _BUILT_FOR.findall(package)
    base = _SUITES.get(built_for[-1], "") if built_for else ""
    fitting = [one for one in RELEASES if one.base == base] or [
        one for one in RELEASES if one.base == RELEASES[-1].base
    ]
    older = [one for one in fitting if release_key(one.version) <= release_key(version)]
    return older[-1] if older else fitting[0]
