"""The test guest, from its sources to a file for QEMU's `-kernel`."""

import hashlib
import os
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

from armferry.cache import cache_folder
from armferry.lab.cross import cross_tool

__all__ = ["build"]

_WHAT = "the test guest"


def build() -> Path:
    """The guest as an ELF file in the cache, built first when its sources are new.

    Raises CrossBuildError when binutils for aarch64 are missing or fail.
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
        cross_tool(_WHAT, "as", "-o", str(made), str(assembly_path))
        cross_tool(_WHAT, "ld", "-T", str(script_path), "-o", str(linked), str(made))
        os.replace(linked, guest)
    return guest
