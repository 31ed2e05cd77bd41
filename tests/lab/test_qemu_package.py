"""A QEMU out of a package file: what is taken of it, whose userland it gets, what is refused."""

import subprocess
from pathlib import Path

import pytest

from armferry.lab import cpio
from armferry.lab.qemu_package import WrongQemuPackage, qemu_package

BINARY = "usr/bin/qemu-system-aarch64"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARMFERRY_CACHE", str(tmp_path / "cache"))


def _deb(
    folder: Path,
    version: str,
    name: str = "qemu-system-arm",
    architecture: str = "arm64",
    files: tuple[str, ...] = (BINARY, "usr/share/doc/x"),
) -> Path:
    root = folder / "root"
    for path in files:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{path} of {version}")
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
        "Maintainer: test <test@example.org>\nDescription: test\n"
    )
    deb = folder / "package.deb"
    subprocess.run(["dpkg-deb", "-b", root, deb], check=True, capture_output=True)
    return deb


@pytest.mark.parametrize(
    ("version", "upstream", "suite"),
    [
        ("1:5.2+dfsg-11+deb11u3", "5.2", "bullseye"),
        ("1:7.2+dfsg-7+deb12u18", "7.2", "bookworm"),
        ("1:10.0.2+ds-2+deb13u1~bpo12+1", "10.0.2", "bookworm-backports"),
        ("1:10.0.7+ds-0+deb13u1", "10.0.7", "trixie"),
        ("1:10.0.14+ds-0+deb13u1", "10.0.14", "trixie"),
        ("1:11.1.3+ds-1~bpo13+1", "11.1.3", "trixie-backports"),
        ("1:11.2.0~rc1+ds-1", "11.2.0", "trixie-backports"),
        ("10.1.0-1", "10.1.0", "trixie"),
    ],
)
def test_a_package_gets_the_userland_it_was_built_for(
    version: str, upstream: str, suite: str, tmp_path: Path
) -> None:
    found = qemu_package(_deb(tmp_path, version))
    assert (found.version, found.package, found.release.suite) == (upstream, version, suite)
    (program,) = cpio.read(found.archive.read_bytes())
    assert (program.name, program.mode & 0o777) == (BINARY, 0o755)
    assert program.content.decode() == f"{BINARY} of {version}"
    assert qemu_package(tmp_path / "package.deb") == found


@pytest.mark.parametrize(
    ("name", "architecture", "files", "said"),
    [
        ("hello", "arm64", (BINARY,), "hello for arm64 has no QEMU for a lab host"),
        ("qemu-system-arm", "amd64", (BINARY,), "qemu-system-arm for amd64 has no QEMU"),
        ("qemu-system-arm", "arm64", ("x",), f"there is no {BINARY} in it"),
    ],
)
def test_another_package_is_refused(
    name: str, architecture: str, files: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    deb = _deb(tmp_path, "1:10.0.13+ds-1", name, architecture, files)
    with pytest.raises(WrongQemuPackage) as refused:
        qemu_package(deb)
    assert str(refused.value).startswith(f"{deb}: {said}")
    assert refused.value.exit_code == 3
