"""What a person calls the parts of a lab host: its kernel and its QEMU, each a word.

A kernel is a package file (linux-image-*-cloud-arm64), a series (6.12) or a release; a QEMU is a
package file (qemu-system-arm for arm64) or `qemu-` and a release. 7.2 is both a kernel and a QEMU:
hence the prefix, which is the atlas's as well.
"""

from collections.abc import Sequence
from pathlib import Path

from armferry.errors import ArmferryError
from armferry.lab.deb import package_file
from armferry.lab.host import HostSpec
from armferry.lab.kernels import Kernel, KernelStore
from armferry.lab.qemu_install import resolve
from armferry.lab.qemu_package import QEMU_PACKAGE, QemuPackage, qemu_package
from armferry.lab.releases import Release

__all__ = ["KERNEL", "QEMU", "host_named", "qemu_inside"]

KERNEL, QEMU = "6.12", "10.0"
"""What is meant where a word is missing."""


# Its python3 is 3.9, which cannot run armferry.
_TOO_OLD = "bullseye"


def qemu_inside(name: str) -> Release:
    """The release `name`, to be a lab host's userland. Raises ArmferryError for one that cannot."""
    release = resolve(name)
    if release.base == _TOO_OLD:
        raise ArmferryError(
            f"QEMU {release.version} cannot be inside a lab host: the python3 of {release.suite}"
            " is too old for armferry; name a later release"
        )
    return release


def host_named(words: Sequence[str], cpu: str) -> HostSpec:
    """The host that has the kernel, the QEMU or both that `words` name.

    Raises ArmferryError for a word that names neither, and for two that name the same part.
    """
    parts: dict[str, Kernel | QemuPackage | Release] = {}
    for word in words:
        part, found = _part(word)
        if part in parts:
            raise ArmferryError(f"{' '.join(words)}: names a {part} twice")
        parts[part] = found
    kernel = parts.get("kernel") or KernelStore().get(KERNEL)
    qemu = parts.get("QEMU") or qemu_inside(QEMU)
    assert isinstance(kernel, Kernel)
    if isinstance(qemu, QemuPackage):
        return HostSpec(kernel, qemu.release, cpu=cpu, package=qemu)
    assert isinstance(qemu, Release)
    return HostSpec(kernel, qemu, cpu=cpu)


def _part(word: str) -> tuple[str, Kernel | QemuPackage | Release]:
    """What a word names, and which part of a host that is."""
    path = Path(word)
    if path.suffix == ".deb":
        if package_file(path).name == QEMU_PACKAGE:
            found = qemu_package(path)
            qemu_inside(found.release.suite)
            return "QEMU", found
        return "kernel", KernelStore().unpack(path)
    if word.startswith("qemu-"):
        return "QEMU", qemu_inside(word.removeprefix("qemu-"))
    return "kernel", KernelStore().get(word)
