"""`armferry lab qemu ...`: the rig of real QEMUs on the command line; `lab_kernel` has the kernels.

Parses, calls and prints; what a release is and how one is installed, `armferry.lab` knows.
"""

import argparse
import json
import sys
import time

from armferry.cli import lab_guest, lab_kernel, lab_matrix
from armferry.cli.options import add_json
from armferry.cli.progress import working
from armferry.lab import libvirt_install
from armferry.lab.qemu_install import InstalledQemu, install, installed, resolve
from armferry.lab.releases import RELEASES, Release

__all__ = ["add_parsers"]


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `lab` and what is below it; each command sets `func`, a callable(args) -> exit code."""
    lab = subparsers.add_parser("lab")
    rooms = lab.add_subparsers(dest="lab_room", metavar="ROOM", required=True)
    qemu = rooms.add_parser("qemu", help="Debian's QEMU releases, side by side")
    commands = qemu.add_subparsers(dest="lab_command", metavar="COMMAND", required=True)

    adder = commands.add_parser("install", help="install releases that are not there yet")
    adder.add_argument(
        "releases",
        nargs="+",
        metavar="RELEASE",
        help="a version, its beginning, a Debian suite, or `all`",
    )
    adder.set_defaults(func=_install)

    lister = commands.add_parser("list", help="the releases, and where the installed ones are")
    add_json(lister)
    lister.set_defaults(func=_list)

    lab_kernel.add_parsers(rooms)
    lab_guest.add_parser(rooms)
    lab_matrix.add_parsers(rooms)
    libvirt = rooms.add_parser("libvirt", help="Debian's libvirts with their QEMUs, side by side")
    libvirt_commands = libvirt.add_subparsers(dest="lab_command", metavar="COMMAND", required=True)
    libvirt_adder = libvirt_commands.add_parser(
        "install", help="install releases that are not there yet; needs root"
    )
    libvirt_adder.add_argument(
        "releases", nargs="+", metavar="RELEASE", help="a version, its beginning or a Debian suite"
    )
    libvirt_adder.set_defaults(func=_install_libvirt)


def _install(arguments: argparse.Namespace) -> int:
    names: list[str] = arguments.releases
    wanted = list(RELEASES) if names == ["all"] else [resolve(name) for name in names]
    for release in wanted:
        before = installed(release)
        if before is not None:
            print(f"QEMU {before.version} ({release.suite}) is there: {before.launcher}")
            continue
        print(f"QEMU {release.version} ({release.suite}): installing ...", file=sys.stderr)
        start = time.monotonic()
        with working(f"QEMU {release.version}"):
            there = install(release)
        took = time.monotonic() - start
        print(f"QEMU {there.version} ({release.suite}) installed in {took:.0f} s: {there.launcher}")
    return 0


def _install_libvirt(arguments: argparse.Namespace) -> int:
    for name in arguments.releases:
        release = resolve(name)
        if libvirt_install.installed(release) is None:
            print(f"libvirt of {release.suite}: installing ...", file=sys.stderr)
        with working(f"libvirt of {release.suite}"):
            there = libvirt_install.install(release)
        print(f"libvirt {there.version} with QEMU {there.qemu} ({release.suite}): {there.root}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    rows = [(release, installed(release)) for release in RELEASES]
    if arguments.json:
        releases = [_row(release, there) for release, there in rows]
        print(json.dumps({"schema": 1, "releases": releases}, indent=1))
        return 0
    for release, there in rows:
        version = there.version if there is not None else release.version
        place = there.launcher if there is not None else "not installed"
        print(f"{version:<8} {release.suite:<19} {place}")
    return 0


def _row(release: Release, there: InstalledQemu | None) -> dict[str, str | None]:
    return {
        "suite": release.suite,
        "version": there.version if there is not None else release.version,
        "package": there.package if there is not None else None,
        "launcher": str(there.launcher) if there is not None else None,
    }
