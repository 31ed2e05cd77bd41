"""The table of lines against the programs that print them."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from armferry.explain import Program, known_lines
from armferry.lab import libvirt_install, qemu_install
from armferry.lab.initramfs import userland_archive
from armferry.lab.releases import RELEASES, release_named

_FORMAT = re.compile(r"%(?:\d\$)?(?:\.\*|\d+)?l*[dsuxX]")
_KVM = "kvm-"
_LIBRARIES = ("libvirt.so.0", "libvirt/connection-driver/libvirt_driver_qemu.so")


def _files(where: str) -> Iterator[Path]:
    if where.startswith(_KVM):
        yield userland_archive(release_named(where.removeprefix(_KVM)))
    elif where == "libvirt":
        root = libvirt_install.install(release_named("trixie")).root
        yield from (root / "usr/lib/x86_64-linux-gnu" / name for name in _LIBRARIES)
    else:
        release = next(one for one in RELEASES if one.version == where)
        yield qemu_install.install(release).root / "usr/bin/qemu-system-aarch64"


@cache
def _bytes(where: str) -> bytes:
    return b"".join(path.read_bytes() for path in _files(where))


@pytest.mark.kernel
@pytest.mark.parametrize(
    "where", [f"{_KVM}{s}" for s in ("bookworm", "trixie", "trixie-backports")]
)
def test_texts_of_qemu_for_arm64(where: str) -> None:
    _check(where)


@pytest.mark.qemu
@pytest.mark.parametrize("where", [*(release.version for release in RELEASES), "libvirt"])
def test_texts_of_the_rig(where: str) -> None:
    _check(where)


def test_no_other_place_is_named() -> None:
    known = {*(release.version for release in RELEASES), "libvirt"}
    known |= {f"{_KVM}{release.suite}" for release in RELEASES}
    assert {where for line in known_lines() for where in line.where} <= known
    assert all(line.where for line in known_lines() if line.program is Program.QEMU)


def _check(where: str) -> None:
    """Every text that is said to be there is, piece by piece between its formats."""
    content = _bytes(where)
    lines = [known for known in known_lines() if where in known.where]
    assert lines
    for known in lines:
        whole = known.text.encode() in content
        pieces = [piece for piece in _FORMAT.split(known.text) if len(piece) > 3]
        assert whole or all(piece.encode() in content for piece in pieces), known.name
