"""The Debian packages as `make deb` makes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from armferry import __version__

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("packages")
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    for compiler in ("", "aarch64-linux-gnu-gcc"):
        environment = os.environ | {"ARMFERRY_BOUNDARY_CC": compiler}
        subprocess.run([*wheel, "--wheel-dir", made, ROOT], check=True, env=environment)
    tool = ROOT / "tools" / "debian_packages.py"
    subprocess.run([sys.executable, tool, made, made], check=True)
    return made


def _files(package: Path) -> dict[str, str]:
    """Path -> mode and owner of every file."""
    said = subprocess.run(
        ["dpkg-deb", "--contents", package], check=True, capture_output=True, text=True
    ).stdout
    rows = (line.split() for line in said.splitlines())
    return {row[5].removeprefix("."): " ".join(row[:2]) for row in rows}


def test_package_for_every_machine(folder: Path) -> None:
    files = _files(folder / f"armferry_{__version__}_all.deb")
    programs = {"/usr/bin/armferry", "/usr/bin/armferry-qemu"}
    assert {name for name, mode in files.items() if mode == "-rwxr-xr-x root/root"} == programs
    for name in (
        "/usr/lib/python3/dist-packages/armferry/py.typed",
        "/usr/share/man/man1/armferry-check.1.gz",
        "/usr/share/bash-completion/completions/armferry",
        "/usr/lib/systemd/system/armferry-gateway@.service",
        "/usr/share/doc/armferry/copyright",
    ):
        assert files[name] == "-rw-r--r-- root/root"
    assert not [name for name in files if name.endswith((".so", "/RECORD", ".pyc"))]


def test_package_with_the_library(folder: Path) -> None:
    package = folder / f"armferry-boundary_{__version__}_arm64.deb"
    libraries = [name for name in _files(package) if name.endswith(".so")]
    place = "/usr/lib/python3/dist-packages/armferry/boundary/libarmferry-boundary.so"
    assert libraries == [place]
    field = ["dpkg-deb", "--field", str(package), "Architecture", "Depends"]
    said = subprocess.run(field, check=True, capture_output=True, text=True).stdout
    assert "Architecture: arm64" in said
    assert f"armferry (= {__version__})" in said
