"""The test guest, from its sources to a file for QEMU's `-kernel`."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

from armferry.cache import cache_folder
from armferry.errors import EnvironmentFault

__all__ = ["GuestBuildError", "build"]

_PREFIX = "aarch64-linux-gnu-"
_LIMIT = 60.0


class GuestBuildError(EnvironmentFault):
    """The guest cannot be built on this machine."""


def build() -> Path:
    """The guest as an ELF file in the cache, built first when its sources are new.

    Raises GuestBuildError when binutils for aarch64 are missing or fail.
    """
    sources = files("armferry.lab.guest")
    assembly, script = sources / "guest.s", sources / "guest.ld"
    key = hashlib.sha256(assembly.read_bytes() + script.read_bytes()).hexdigest()[:16]
    guest = cache_folder("guest") / f"guest-{key}.elf"
    if guest.exists():
        return guest
    with (
        tempfile.TemporaryDirectory(dir=guest.parent) as folder,
        as_file(assembly) as assembly_path,
        as_file(script) as script_path,
    ):
        made, linked = Path(folder) / "guest.o", Path(folder) / "guest.elf"
        _tool("as", "-o", str(made), str(assembly_path))
        _tool("ld", "-T", str(script_path), "-o", str(linked), str(made))
        os.replace(linked, guest)
    return guest


def _tool(name: str, *arguments: str) -> None:
    program = shutil.which(_PREFIX + name)
    if program is None:
        raise GuestBuildError(
            f"building the test guest: {_PREFIX}{name} is missing; "
            "apt-get install binutils-aarch64-linux-gnu"
        )
    command = [program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
    if done.returncode != 0:
        raise GuestBuildError(
            f"building the test guest: {_PREFIX}{name} ended with status {done.returncode}:\n"
            f"{done.stderr.strip()}\nthe sources are part of armferry: reinstall it, or report this"
        )
