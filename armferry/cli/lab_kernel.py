"""`armferry lab kernel ...` and `armferry lab host`: real kernels on the command line.

Parses, calls and prints; what a kernel is and how one is booted, `armferry.lab` knows.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from armferry.cli.progress import working
from armferry.errors import ArmferryError
from armferry.lab.host import Job, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.naming import QEMU, host_named

__all__ = ["add_parsers"]

_TIMED_OUT = 124
"""Exit code of a command whose time was up, as timeout(1) has it."""


def add_parsers(rooms: "argparse._SubParsersAction[Any]") -> None:
    """Adds `kernel` and `host` below `lab`."""
    kernel = rooms.add_parser("kernel", help="Debian's arm64 kernels")
    commands = kernel.add_subparsers(dest="lab_command", metavar="COMMAND", required=True)

    adder = commands.add_parser("install", help="download and unpack kernels")
    adder.add_argument(
        "kernels", nargs="+", metavar="KERNEL", help="a series (6.12) or a release of `list`"
    )
    adder.set_defaults(func=run_install)

    lister = commands.add_parser("list", help="the unpacked kernels")
    lister.add_argument(
        "--available", action="store_true", help="those of Debian's archive instead"
    )
    lister.add_argument("--json", action="store_true", help="print a JSON array")
    lister.set_defaults(func=run_list)

    host = rooms.add_parser(
        "host",
        help="boot a kernel that has /dev/kvm and run a command in it",
        epilog="armferry is installed in the host: armferry lab host --kernel 6.12 -- armferry "
        "fingerprint kvm. The command runs in /job, beside the files given; what it leaves in "
        "/out is copied to the folder of --out.",
    )
    host.add_argument(
        "--kernel", required=True, help="a series (6.12), a release or a package file"
    )
    host.add_argument("--cpu", default="neoverse-n1", help="the host's CPU (default: neoverse-n1)")
    host.add_argument(
        "--qemu",
        default=QEMU,
        metavar="RELEASE",
        help=f"the QEMU inside, a release or a package file (default: {QEMU})",
    )
    host.add_argument(
        "--smp", type=int, default=1, metavar="N", help="the host's CPUs (default: 1)"
    )
    host.add_argument(
        "--append",
        default="",
        metavar="WORDS",
        help="more for the kernel's command line: kvm-arm.mode=nested",
    )
    host.add_argument(
        "--file", action="append", default=[], type=Path, metavar="FILE", help="copy it to /job"
    )
    host.add_argument("--out", type=Path, metavar="FOLDER", help="copy what is left in /out to it")
    host.add_argument(
        "--time-limit", type=float, default=600.0, metavar="S", help="seconds (default: 600)"
    )
    host.add_argument("command", nargs="+", metavar="COMMAND", help="the command, after --")
    host.set_defaults(func=run_host)


def run_install(arguments: argparse.Namespace) -> int:
    """Gets kernels."""
    store = KernelStore()
    for request in arguments.kernels:
        with working(f"Linux {request}: installing"):
            kernel = store.install(request)
        origin = kernel.origin
        print(f"{kernel.release} is there: {kernel.image} ({origin.package} of {origin.suite})")
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Lists kernels, oldest first."""
    store = KernelStore()
    if arguments.available:
        with working("reading the lists of packages"):
            rows = [asdict(package) for package in store.available()]
        lines = [f"{row['suite']:<19} {row['name']} {row['version']}" for row in rows]
    else:
        kernels = store.installed()
        rows = [{**asdict(kernel.origin), "image": str(kernel.image)} for kernel in kernels]
        lines = [f"{row['release']:<18} {row['suite']:<19} {row['image']}" for row in rows]
    print(json.dumps(rows, indent=2) if arguments.json else "\n".join(lines))
    return 0


def run_host(arguments: argparse.Namespace) -> int:
    """Boots a host, runs the command; its exit code."""
    files = {path.name: _content(path) for path in arguments.file}
    qemu = arguments.qemu
    words = (arguments.kernel, qemu if qemu.endswith(".deb") else f"qemu-{qemu}")
    spec = replace(host_named(words, arguments.cpu), append=arguments.append, smp=arguments.smp)
    with LabHost(spec) as host:
        print(f"{host.release} up in {host.boot_seconds:.1f} s", file=sys.stderr)
        job = Job(tuple(arguments.command), files)
        result = host.do(job, time_limit=arguments.time_limit)
    sys.stdout.buffer.write(result.completed.stdout)
    sys.stderr.buffer.write(result.completed.stderr)
    if arguments.out is not None:
        for name, content in result.out.items():
            path = arguments.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if result.completed.exit_code is None:
        print(f"the command did not end in {arguments.time_limit:g} s", file=sys.stderr)
        return _TIMED_OUT
    return result.completed.exit_code


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArmferryError(f"{path}: cannot be read: {error.strerror}") from error
