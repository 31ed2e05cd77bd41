"""The Linux guest's initial ramdisk: the workload, compiled, as /init and nothing else."""

import hashlib
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

from armferry.cache import cache_folder
from armferry.lab import cpio
from armferry.lab.cross import cross_tool

__all__ = ["initial_ramdisk"]

_FLAGS = ("-static", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


def initial_ramdisk() -> Path:
    """The initial ramdisk in the cache, built first when its sources are new (5 s).

    Raises CrossBuildError when the compiler for aarch64 is missing or fails.
    """
    sources = files("armferry.lab.linux") / "workload"
    content = [source.read_bytes() for source in sorted(sources.iterdir(), key=lambda s: s.name)]
    key = hashlib.sha256(b"\0".join(content)).hexdigest()[:16]
    archive = cache_folder("guest") / f"linux-{key}.cpio"
    if archive.exists():
        return archive
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder, as_file(sources) as place:
        program = Path(folder, "init")
        units = sorted(str(unit) for unit in place.glob("*.c"))
        cross_tool("the Linux guest", "gcc", *_FLAGS, "-o", str(program), *units)
        entries = [
            *(cpio.directory(name) for name in ("dev", "proc", "sys")),
            # Without it the kernel gives /init no standard output.
            cpio.device("dev/console", 5, 1),
            cpio.file("init", program.read_bytes(), 0o755),
        ]
        cpio.store(archive, entries)
    return archive
