"""Whether a program can be preloaded is found out by doing it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from armferry.boundary import BoundaryFault, why_not

STATIC = "int main(void) { return 0; }"


def test_program_that_can(own_library: Path) -> None:
    assert why_not(Path("/bin/true"), own_library) == ""


def test_program_that_is_static(own_library: Path, tmp_path: Path) -> None:
    program = tmp_path / "static"
    command = ["gcc", "-static", "-x", "c", "-", "-o", str(program)]
    subprocess.run(command, input=STATIC, text=True, check=True)
    assert why_not(program, own_library) == "the program is linked statically"


def test_script_passes_it_on(own_library: Path, tmp_path: Path) -> None:
    program = tmp_path / "script"
    program.write_text('#!/bin/sh\nexec /bin/true "$@"\n')
    program.chmod(0o755)
    assert why_not(program, own_library) == ""


def test_program_that_changes_its_user(own_library: Path, tmp_path: Path) -> None:
    program = tmp_path / "setuid"
    shutil.copy("/bin/true", program)
    os.chown(program, os.getuid() + 1, os.getgid() + 1)
    program.chmod(0o6755)
    tmp_path.chmod(0o755)
    assert why_not(program, own_library) == (
        "the program changes its user or group when it starts (setuid)"
    )


def test_program_that_cannot_be_run(own_library: Path, tmp_path: Path) -> None:
    with pytest.raises(BoundaryFault, match="no-such-program: cannot be run"):
        why_not(tmp_path / "no-such-program", own_library)


def test_library_whose_path_the_loader_cuts(own_library: Path, tmp_path: Path) -> None:
    path = tmp_path / "a folder" / own_library.name
    path.parent.mkdir()
    shutil.copy(own_library, path)
    assert why_not(Path("/bin/true"), path) == (
        f"the library's path has a character that separates names in LD_PRELOAD: {path}"
    )


def test_armferry_without_the_library() -> None:
    """A wheel for any machine has none."""
    assert why_not(Path("/bin/true")) == (
        "this armferry came without its library; the package for aarch64 has it"
    )
