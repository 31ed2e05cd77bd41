"""What a lab host boots into: newc archives that are concatenated into one initial ramdisk.

    base      static busybox, /init, the frame of a merged /usr
    userland  QEMU, its libraries and python3 of one Debian suite, pruned to what runs
    this      armferry itself and the modules of the kernel that is booted

The first two are made once and kept uncompressed in the cache: unpacking is then copying. Knows
the file names Debian uses; facts about what a kernel demands of an initramfs:
Documentation/filesystems/ramfs-rootfs-initramfs.rst of the kernel. mmdebstrap(1) makes the root;
its `extract` variant unpacks packages and configures nothing.
"""

import hashlib
import importlib.resources
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path

from armferry.boundary.build import CROSS, FLAGS, SOURCE, BuildFault, compile_library
from armferry.boundary.preload import LIBRARY
from armferry.cache import cache_folder
from armferry.errors import EnvironmentFault
from armferry.lab import cpio
from armferry.lab.apt import AptState
from armferry.lab.apt_sources import debian_mirror
from armferry.lab.deb import unpack
from armferry.lab.kernels import Kernel
from armferry.lab.releases import Release

__all__ = [
    "AGENT_PORT",
    "InitramfsFault",
    "base_archive",
    "boundary_library",
    "own_archive",
    "userland_archive",
]

AGENT_PORT = "armferry.agent"
"""Name of the virtio console port that the agent serves."""

_PACKAGES = "qemu-system-arm,python3-minimal,libpython3-stdlib"
_KEPT = re.compile(
    r"usr/bin/(?:python3[.\d]*|qemu-system-aarch64)"
    r"|usr/lib/python3(?:\.\d+)?/(?!.*(?:/test/|/idlelib/|/ensurepip/|/pydoc_data/)).*"
    r"|usr/lib/(?:aarch64-linux-gnu/)?[^/]+\.so(?:\.[^/]*)?"
)
_FOLDERS = ("dev", "proc", "sys", "tmp", "root", "job", "out", "modules", "opt")
_USR_FOLDERS = ("bin", "sbin", "lib")
_PACKAGE_FOLDER = "opt/armferry"

_INIT = f"""#!/usr/bin/busybox sh
# First process of a lab host: mount, load what virtio needs, serve the agent, power off.
export PATH=/usr/bin:/usr/sbin HOME=/root PYTHONPATH=/{_PACKAGE_FOLDER}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do
    [ -e "$module" ] && insmod "$module"
done
mkdir -p /dev/virtio-ports
until [ -e /dev/virtio-ports/{AGENT_PORT} ]; do
    for port in /sys/class/virtio-ports/*; do
        [ -s "$port/name" ] && ln -sf "/dev/${{port##*/}}" "/dev/virtio-ports/$(cat $port/name)"
    done
    usleep 20000
done
python3 -m armferry.lab.agent /dev/virtio-ports/{AGENT_PORT}
poweroff -f
"""

_COMMAND = """#!/bin/sh
exec python3 -m armferry.cli.main "$@"
"""

_APPLETS = (
    *("cat", "cp", "dd", "dmesg", "echo", "env", "grep", "head", "insmod", "kill", "ln", "ls"),
    *(
        "find",
        "mkdir",
        "mount",
        "mv",
        "poweroff",
        "ps",
        "rm",
        "sed",
        "sh",
        "sleep",
        "sort",
        "tail",
        "tar",
    ),
    *("tee", "test", "touch", "tr", "uname", "usleep", "wc"),
)


class InitramfsFault(EnvironmentFault):
    """A part of the initial ramdisk could not be made."""


def base_archive(apt: AptState | None = None) -> Path:
    """Busybox and /init; made when its content is not in the cache yet. Raises `AptFault`."""
    folder = cache_folder("initramfs")
    busybox = folder / "busybox"
    if not busybox.exists():
        _fetch_busybox(apt or AptState(cache_folder("apt")), busybox)
    entries = [cpio.directory(name) for name in (*_FOLDERS, "usr")]
    for name in _USR_FOLDERS:
        entries += [cpio.directory(f"usr/{name}"), cpio.symlink(name, f"usr/{name}")]
    entries.append(cpio.file("usr/bin/busybox", busybox.read_bytes(), 0o755))
    entries += [cpio.symlink(f"usr/bin/{applet}", "busybox") for applet in _APPLETS]
    # Without it the kernel gives /init no standard output.
    entries.append(cpio.device("dev/console", 5, 1))
    entries.append(cpio.file("usr/bin/armferry", _COMMAND.encode(), 0o755))
    entries.append(cpio.file("init", _INIT.encode(), 0o755))
    archive = folder / "base.cpio"
    cpio.store(archive, entries)
    return archive


def userland_archive(release: Release) -> Path:
    """QEMU and python3 of the Debian suite of `release`, for arm64.

    Made once per suite in about 25 s and 110 MB; remove the file to get a newer point release.
    Raises `InitramfsFault`.
    """
    archive = cache_folder("initramfs") / f"userland-{release.suite}.cpio"
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=archive.parent) as temporary:
            root = Path(temporary, "root")
            _extract(release, root)
            cpio.store(archive, _pruned(root))
    return archive


def own_archive(kernel: Kernel) -> bytes:
    """armferry as it is installed here, and the modules that `kernel` needs, in load order."""
    entries = [cpio.directory(_PACKAGE_FOLDER)]
    package = importlib.resources.files("armferry")
    entries += _package_entries(package, f"{_PACKAGE_FOLDER}/armferry")
    library = boundary_library()
    entries.append(
        cpio.file(f"{_PACKAGE_FOLDER}/armferry/boundary/{library.name}", library.read_bytes())
    )
    for number, module in enumerate(kernel.modules):
        entries.append(cpio.file(f"modules/{number:02}-{module.name}", module.read_bytes()))
    return b"".join(cpio.write(entries))


def boundary_library() -> Path:
    """The boundary library for aarch64, compiled when it or its source is new.

    Raises `InitramfsFault`.
    """
    key = hashlib.sha256(SOURCE.read_bytes() + repr(FLAGS).encode()).hexdigest()[:32]
    path = cache_folder("boundary", key) / LIBRARY
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            compiled = Path(folder, LIBRARY)
            try:
                compile_library(compiled, CROSS)
            except BuildFault as fault:
                raise InitramfsFault(f"{fault}: install gcc-aarch64-linux-gnu") from fault
            compiled.rename(path)
    return path


def _package_entries(package: Traversable, name: str) -> Iterator[cpio.Entry]:
    yield cpio.directory(name)
    for child in sorted(package.iterdir(), key=lambda child: child.name):
        if child.is_dir():
            if child.name != "__pycache__":
                yield from _package_entries(child, f"{name}/{child.name}")
        elif child.name != LIBRARY:
            yield cpio.file(f"{name}/{child.name}", child.read_bytes())


def _pruned(root: Path) -> Iterator[cpio.Entry]:
    """The kept files of a Debian root, old-style /lib and /bin moved below /usr."""
    made: set[str] = set()
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in sorted(names)):
            name = str(path.relative_to(root))
            if name.partition("/")[0] in _USR_FOLDERS:
                name = f"usr/{name}"
            if not _KEPT.fullmatch(name):
                continue
            parents = [str(parent) for parent in reversed(Path(name).parents)][1:]
            yield from (cpio.directory(parent) for parent in parents if parent not in made)
            made.update(parents)
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                yield cpio.symlink(name, os.readlink(path))
            else:
                yield cpio.file(name, path.read_bytes(), stat.S_IMODE(status.st_mode))


def _extract(release: Release, root: Path) -> None:
    mirror = debian_mirror()
    suites = dict.fromkeys((release.base, release.suite))
    command = [
        "mmdebstrap",
        "--variant=extract",
        "--architectures=arm64",
        f"--include={_PACKAGES}",
        # Backports and old suites stop renewing the validity date of their Release file.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        f'--aptopt=APT::Default-Release "{release.suite}"',
        release.base,
        str(root),
        *(f"deb {mirror} {suite} main" for suite in suites),
    ]
    _run(command, "install the package mmdebstrap")


def _fetch_busybox(apt: AptState, busybox: Path) -> None:
    packages = apt.packages(re.compile("busybox-static"))
    if not packages:
        raise InitramfsFault("Debian's archive has no busybox-static for arm64: try another mirror")
    with tempfile.TemporaryDirectory(dir=busybox.parent) as temporary:
        unpack(apt.download(packages[-1]), Path(temporary))
        found = next(Path(temporary).glob("**/bin/busybox"))
        shutil.move(found, busybox)


def _run(command: Sequence[str], remedy: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise InitramfsFault(f"{command[0]} is not installed: {remedy}") from missing
    if done.returncode != 0:
        words = "\n".join(done.stderr.strip().splitlines()[-12:])
        raise InitramfsFault(f"{command[0]} failed with exit code {done.returncode}:\n{words}")
