"""Wrapped QEMUs for the tests in this folder."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.lab.qemu_install import InstalledQemu


@pytest.fixture
def wrapped(qemu_release: Callable[[str], InstalledQemu], tmp_path: Path) -> Callable[[str], Path]:
    """A function from a release to a program that is its QEMU, wrapped."""

    def named(release: str) -> Path:
        program = tmp_path / f"armferry-qemu-{release}"
        words = [sys.executable, "-m", "armferry.wrapper.start"]
        qemu = shlex.quote(str(qemu_release(release).launcher))
        program.write_text(f'#!/bin/sh\nARMFERRY_QEMU={qemu} exec {shlex.join(words)} "$@"\n')
        program.chmod(0o755)
        return program

    return named
