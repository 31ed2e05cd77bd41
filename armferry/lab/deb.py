"""Package files of Debian, as dpkg-deb(1) takes them apart: a name, a version, what is inside."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from armferry.errors import ArmferryError, EnvironmentFault

__all__ = ["BadPackage", "DpkgMissing", "PackageFile", "package_file", "unpack"]


class DpkgMissing(EnvironmentFault):
    """This machine cannot take packages apart."""


class BadPackage(ArmferryError):
    """A file that is no package, or one that cannot be read."""


@dataclass(frozen=True, slots=True)
class PackageFile:
    """What a package says of itself."""

    name: str
    version: str
    architecture: str


def package_file(deb: Path) -> PackageFile:
    """The package in the file `deb`. Raises `BadPackage`, `DpkgMissing`."""
    wanted = "--showformat=${Package} ${Version} ${Architecture}"
    return PackageFile(*_dpkg_deb(deb, "-W", wanted, str(deb)).split(" "))


def unpack(deb: Path, folder: Path) -> None:
    """Every file of the package, below `folder`. Raises `BadPackage`, `DpkgMissing`."""
    _dpkg_deb(deb, "-x", str(deb), str(folder))


def _dpkg_deb(deb: Path, *arguments: str) -> str:
    command = ["dpkg-deb", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise DpkgMissing("dpkg-deb is not installed: install the package dpkg") from missing
    if done.returncode != 0:
        words = done.stderr.strip().removeprefix("dpkg-deb: error: ")
        raise BadPackage(f"{deb}: not a package that can be read: {words}")
    return done.stdout
