"""Debian's QEMUs, installed side by side below the cache and run from outside their roots.

A root is what mmdebstrap's `extract` variant makes: the packages of one suite unpacked, nothing
configured, so it needs no chroot to make or to use. A launcher script runs the binary through the
root's own dynamic loader, with the root's libraries, firmware and modules; it replaces itself
with QEMU, so its process id is QEMU's. Layout of the cache folder `qemu`:

    10.0.13/                        the root, named by the version found in it
    10.0.13.bin/qemu-system-aarch64 the launcher, and one for qemu-img beside it
    trixie.json                     what the suite gave: version, package, root

Only the suite is trusted to name a release; the version is asked of the binary. mmdebstrap's
options: mmdebstrap(1). The loader's options: ld.so(8).
"""

import fcntl
import json
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from armferry.cache import cache_folder
from armferry.errors import EnvironmentFault
from armferry.hosts.files.atomic import write_whole
from armferry.lab.apt_sources import debian_mirror
from armferry.lab.releases import RELEASES, Release, release_named

__all__ = ["InstalledQemu", "QemuInstallError", "install", "installed", "make_root", "resolve"]

_PACKAGES = "qemu-system-arm,qemu-system-common,qemu-system-data,qemu-utils"
_BINARY = "usr/bin/qemu-system-aarch64"
_IMAGE_TOOL = "usr/bin/qemu-img"
_INSTALL_LIMIT = 900.0
_LOG_LINES = 12

_LOADERS = {
    "x86_64": ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
    "aarch64": ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
}
"""Machine (uname -m) -> Debian's multiarch folder and the dynamic loader in it."""


class QemuInstallError(EnvironmentFault):
    """A QEMU could not be installed, or the installed one does not run."""


@dataclass(frozen=True, slots=True)
class InstalledQemu:
    """A QEMU that is there and answered with its version.

    `version` and `package` are what the binary says of itself (`10.0.13`,
    `1:10.0.13+ds-0+deb13u1`); `launcher` is the program to run, with QEMU's own arguments, and
    `image_tool` its qemu-img.
    """

    release: Release
    version: str
    package: str
    root: Path
    launcher: Path
    image_tool: Path


def resolve(name: str) -> Release:
    """The release that `name` means, knowing also the versions really installed.

    Raises `armferry.lab.releases.UnknownReleaseError`.
    """
    for release in RELEASES:
        record = _read_record(release)
        if record is not None and record["version"] == name:
            return release
    return release_named(name)


def installed(release: Release) -> InstalledQemu | None:
    """The QEMU of `release` when it is in the cache, else None; quick, starts nothing.

    A root that is there under the version the table knows, made from the same suite, is taken in.
    """
    record = _read_record(release)
    if record is None:
        root = _folder() / release.version
        if not _whole(root) or not _made_from(root, release):
            return None
        record = _write_record(release, root)
    root = _folder() / record["root"]
    if not _whole(root):
        return None
    return InstalledQemu(
        release=release,
        version=record["version"],
        package=record["package"],
        root=root,
        launcher=_launcher(root, _BINARY, "-L", str(root / "usr/share/qemu")),
        image_tool=_launcher(root, _IMAGE_TOOL),
    )


def install(release: Release) -> InstalledQemu:
    """The QEMU of `release`, installed first when it is not there (half a minute, 170 MB).

    Safe against a second installer and against being killed: a root appears whole or not at all.
    Raises QemuInstallError with the step that failed, the end of its log and what to do.
    """
    there = installed(release)
    if there is not None:
        return there
    with _lock(release):
        there = installed(release)
        if there is None:
            _make(release)
            there = installed(release)
    if there is None:
        raise QemuInstallError(
            f"installing QEMU {release.version} ({release.suite}): it vanished from {_folder()} "
            "right after it was installed; is something else cleaning that folder?"
        )
    return there


def _make(release: Release) -> None:
    folder = _folder()
    with tempfile.TemporaryDirectory(prefix=f".{release.suite}-", dir=folder) as temporary:
        root = Path(temporary) / "root"
        what = f"QEMU {release.version} ({release.suite})"
        make_root(release, root, what=what, variant="extract", packages=_PACKAGES)
        version, package = _ask_version(root)
        final = folder / version
        if final.exists():
            final = folder / f"{version}-{release.suite}"
            shutil.rmtree(final, ignore_errors=True)
        root.rename(final)
    _record(release, final, version, package)


def make_root(release: Release, root: Path, *, what: str, variant: str, packages: str) -> None:
    """Makes `root`, a Debian root of `release` with `packages`; `what` begins every message.

    `variant` is mmdebstrap's: `extract` only unpacks, `minbase` also configures and needs root.
    Raises QemuInstallError with the end of the log and what to do.
    """
    step = f"installing {what}"
    program = shutil.which("mmdebstrap")
    if program is None:
        raise QemuInstallError(f"{step}: mmdebstrap is missing; apt-get install mmdebstrap")
    mirror = debian_mirror()
    options = [f"--variant={variant}", f"--include={packages}"]
    # Release files of backports and of old suites are often past their date on a mirror.
    options += ["--aptopt=" + 'Acquire::Check-Valid-Until "false"', *_proxy_options()]
    sources = [f"deb {mirror} {release.base} main"]
    if release.suite != release.base:
        options.append(f'--aptopt=APT::Default-Release "{release.suite}"')
        sources.append(f"deb {mirror} {release.suite} main")
    command = [program, *options, release.base, str(root), *sources]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_INSTALL_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise QemuInstallError(
            f"{step}: mmdebstrap did not finish in {_INSTALL_LIMIT:.0f} s; "
            f"is {mirror} reachable from here?"
        ) from late
    if done.returncode != 0:
        end = "\n".join(f"    {line}" for line in done.stdout.splitlines()[-_LOG_LINES:])
        raise QemuInstallError(
            f"{step}: mmdebstrap ended with status {done.returncode}:\n{end}\n"
            f"check that {mirror} is reachable, carries {release.suite}, and that "
            f"{_folder()} has 500 MB free; then run: {shlex.join(command)}"
        )


def _proxy_options() -> list[str]:
    """The proxy that this machine's apt is configured with: mmdebstrap's apt would not know it."""
    dump = shutil.which("apt-config")
    if dump is None:
        return []
    keys = ("Acquire::http::Proxy", "Acquire::https::Proxy")
    done = subprocess.run([dump, "dump", *keys], capture_output=True, text=True, check=False)
    lines = (line.rstrip(";") for line in done.stdout.splitlines())
    return [f"--aptopt={line}" for line in lines if line.startswith(keys)]


def _ask_version(root: Path) -> tuple[str, str]:
    """Upstream version and Debian package version, as the binary in `root` prints them."""
    with tempfile.TemporaryDirectory() as temporary:
        probe = Path(temporary) / "qemu-system-aarch64"
        write_whole(probe, _script(root, _BINARY), mode=0o755)
        done = subprocess.run(
            [str(probe), "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    match = re.match(r"QEMU emulator version (\d[\w.]*)(?: \(Debian ([^)]*)\))?", done.stdout)
    if done.returncode != 0 or match is None:
        raise QemuInstallError(
            f"asking the QEMU in {root} for its version: it printed "
            f"{(done.stdout + done.stderr).strip()!r}; remove that folder and install again"
        )
    return match[1], match[2] or ""


def _whole(root: Path) -> bool:
    """Whether `root` has all that is used of it: the rig once knew no qemu-img."""
    return all((root / program).exists() for program in (_BINARY, _IMAGE_TOOL))


def _launcher(root: Path, program: str, *words: str) -> Path:
    """The launcher of `program` in `root`, written or brought up to date when need be.

    `words` come before the caller's own.
    """
    launcher = root.with_name(f"{root.name}.bin") / Path(program).name
    script = _script(root, program, *words)
    if not launcher.exists() or launcher.read_text(encoding="utf-8") != script:
        launcher.parent.mkdir(exist_ok=True)
        write_whole(launcher, script, mode=0o755)
    return launcher


def _script(root: Path, program: str, *words: str) -> str:
    machine = platform.machine()
    if machine not in _LOADERS:
        raise QemuInstallError(
            f"no QEMU can be installed on {machine}: the rig knows Debian on "
            f"{' and '.join(sorted(_LOADERS))}"
        )
    triplet, loader = _LOADERS[machine]
    # Older suites have /lib beside /usr/lib; the extract variant makes no link between the two.
    libraries = [root / "lib" / triplet, root / "usr/lib" / triplet]
    loaders = [folder / loader for folder in libraries if (folder / loader).exists()]
    if not loaders:
        raise QemuInstallError(f"no {loader} in {root}; remove that folder and install again")
    command = [
        str(loaders[0]),
        "--library-path",
        ":".join(map(str, libraries)),
        str(root / program),
        *words,
    ]
    modules = shlex.quote(str(root / "usr/lib" / triplet / "qemu"))
    return (
        "#!/bin/sh\n"
        "# Runs a program of this root with its own loader, libraries, modules and firmware.\n"
        f"export QEMU_MODULE_DIR={modules}\n"
        f'exec {shlex.join(command)} "$@"\n'
    )


def _made_from(root: Path, release: Release) -> bool:
    """Whether apt's sources in `root` name the suite of `release` last."""
    sources = root / "etc/apt/sources.list"
    if not sources.exists():
        return False
    suites = re.findall(r"^deb \S+ (\S+)", sources.read_text(encoding="utf-8"), re.MULTILINE)
    return bool(suites) and suites[-1] == release.suite


def _record_path(release: Release) -> Path:
    return _folder() / f"{release.suite}.json"


def _read_record(release: Release) -> dict[str, str] | None:
    try:
        text = _record_path(release).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    record: dict[str, str] = json.loads(text)
    return record


def _write_record(release: Release, root: Path) -> dict[str, str]:
    version, package = _ask_version(root)
    return _record(release, root, version, package)


def _record(release: Release, root: Path, version: str, package: str) -> dict[str, str]:
    record = {"suite": release.suite, "version": version, "package": package, "root": root.name}
    write_whole(_record_path(release), json.dumps(record, indent=2) + "\n")
    return record


@contextmanager
def _lock(release: Release) -> Iterator[None]:
    with open(_folder() / f".{release.suite}.lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _folder() -> Path:
    return cache_folder("qemu")
