"""The two wheels: a pure one, and the one for aarch64 that holds the library; the same twice."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from armferry.boundary.build import CROSS

ROOT = Path(__file__).parents[2]
LIBRARY = "armferry/boundary/libarmferry-boundary.so"


def _wheel(folder: Path, compiler: str) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    environment = {**os.environ, "ARMFERRY_BOUNDARY_CC": compiler}
    subprocess.run(command, check=True, env=environment, timeout=300)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_for_aarch64_has_the_library_and_is_the_same_twice(tmp_path: Path) -> None:
    wheels = [_wheel(tmp_path / name, CROSS) for name in ("first", "second")]
    assert wheels[0].name.endswith("-py3-none-manylinux_2_17_aarch64.whl")
    with zipfile.ZipFile(wheels[0]) as archive:
        content = archive.read(LIBRARY)
        assert b"Root-Is-Purelib: false" in archive.read(
            next(name for name in archive.namelist() if name.endswith("/WHEEL"))
        )
    assert content[:4] == b"\x7fELF"
    assert content[18] == 183, "EM_AARCH64"
    digests = {hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}
    assert len(digests) == 1


def test_wheel_for_any_machine_has_none(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, "")
    if os.uname().machine == "aarch64":
        assert wheel.name.endswith("_aarch64.whl")
        return
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert LIBRARY not in archive.namelist()


def test_compiler_that_fails_ends_the_build(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    environment = {**os.environ, "ARMFERRY_BOUNDARY_CC": "no-such-compiler"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=300)
    assert done.returncode != 0
    assert b"no-such-compiler: No such file or directory" in done.stdout + done.stderr
