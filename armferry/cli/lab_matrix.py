"""`armferry lab matrix` and `armferry lab gate`: real kernels against each other.

Parses, calls and prints; `armferry.lab.matrix` boots and moves, `armferry.lab.gate` judges.
"""

import argparse
import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from armferry.errors import ArmferryError
from armferry.hosts.files.descriptor import write_all
from armferry.lab.gate import gate_document, gate_lines, judge_update
from armferry.lab.heat_map import heat_map
from armferry.lab.host import HostSpec
from armferry.lab.kernels import KernelStore
from armferry.lab.matrix import record_all, run_matrix
from armferry.lab.matrix_text import matrix_json, matrix_lines, tally
from armferry.lab.naming import KERNEL, QEMU, host_named, qemu_inside
from armferry.lab.nested import NestedQemu
from armferry.lab.recording import host_key
from armferry.rewriting.copy import written_beside

__all__ = ["add_parsers"]


def add_parsers(rooms: "argparse._SubParsersAction[Any]") -> None:
    """Adds `matrix` and `gate` below `lab`."""
    matrix = rooms.add_parser(
        "matrix",
        help="load every host's guest on every other host",
        epilog="A host is a kernel, a CPU and a QEMU. What was tried once is kept in the cache: a "
        "matrix that was interrupted goes on where it was.",
    )
    matrix.add_argument(
        "--kernels", required=True, nargs="+", metavar="KERNEL", help="series (6.12) or releases"
    )
    matrix.add_argument(
        "--cpus", nargs="+", default=["neoverse-n1"], metavar="CPU", help="default: neoverse-n1"
    )
    matrix.add_argument(
        "--qemus", nargs="+", default=["10.0"], metavar="RELEASE", help="default: 10.0"
    )
    matrix.add_argument(
        "--machine", default="virt-7.2", help="the guest's machine type (default: virt-7.2)"
    )
    matrix.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the tables to it")
    matrix.add_argument(
        "--heat-map", type=Path, metavar="FILE", help="draw it as SVG: rows from, columns to"
    )
    matrix.add_argument("--json", action="store_true", help="print a JSON document")
    matrix.set_defaults(func=run_the_matrix)

    gate = rooms.add_parser(
        "gate",
        help="does an update of the kernel or of QEMU break moves, and what must a level say",
        epilog="A kernel is a package file (linux-image-*-cloud-arm64), a series (6.12) or a "
        "release; a QEMU a package file (qemu-system-arm for arm64) or qemu-RELEASE. Both words "
        "change both: --old 6.12 qemu-10.0 --new 6.17 qemu-11.1. What is not named is Linux "
        f"{KERNEL} and QEMU {QEMU}. Exit code 0: every move works; 1: with the shipped levels; "
        "2: only with more.",
    )
    for end in ("old", "new"):
        gate.add_argument(
            f"--{end}",
            required=True,
            nargs="+",
            metavar="PACKAGE",
            help=f"the {end} kernel, the {end} QEMU, or both",
        )
    gate.add_argument("--cpu", default="neoverse-n1", help="the hosts' CPU (default: neoverse-n1)")
    gate.add_argument(
        "--machine", default="virt-7.2", help="the guest's machine type (default: virt-7.2)"
    )
    gate.add_argument("--json", action="store_true", help="print a JSON document")
    gate.set_defaults(func=run_gate)


def run_the_matrix(arguments: argparse.Namespace) -> int:
    """Runs it; 0 when everything happened as predicted, 2 when not."""
    store = KernelStore()
    qemu = NestedQemu(arguments.machine)
    hosts = [
        (HostSpec(store.get(kernel), qemu_inside(release), cpu=cpu), qemu)
        for kernel, cpu, release in product(arguments.kernels, arguments.cpus, arguments.qemus)
    ]
    with _steps("recording") as progress:
        # a kernel may have been named twice, by its series and by its release
        recordings = record_all(dict.fromkeys(hosts), progress)
    with _steps("moving") as progress:
        cells = run_matrix(recordings, progress)
    text = "\n".join(matrix_lines(cells)) + "\n"
    if arguments.output is not None:
        with written_beside(arguments.output) as descriptor:
            write_all(descriptor, text.encode())
    if arguments.heat_map is not None:
        title = f"Moves between {len(hosts)} hosts, {arguments.machine}"
        with written_beside(arguments.heat_map) as descriptor:
            write_all(descriptor, heat_map(matrix_json(cells), title).encode())
    if arguments.json:
        print(json.dumps(matrix_json(cells), indent=1))
    elif arguments.output is not None:
        print(tally(cells))
    else:
        sys.stdout.write(text)
    return 2 if any(cell.faults for cell in cells) else 0


def run_gate(arguments: argparse.Namespace) -> int:
    """Judges an update."""
    qemu = NestedQemu(arguments.machine)
    ends = (arguments.old, arguments.new)
    hosts = [(host_named(words, arguments.cpu), qemu) for words in ends]
    if host_key(*hosts[0]) == host_key(*hosts[1]):
        named = " and ".join(map(" ".join, ends))
        raise ArmferryError(f"{named} are one and the same host")
    with _steps("recording") as progress:
        old, new = record_all(hosts, progress)
    with _steps("moving") as progress:
        gate = judge_update(old, new, progress)
    if arguments.json:
        print(json.dumps(gate_document(gate), indent=1))
        return gate.exit_code
    for line in gate_lines(gate):
        print(line)
    return gate.exit_code


@contextlib.contextmanager
def _steps(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal; a line for each step elsewhere, on standard error."""
    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        yield lambda name, done, whole: print(
            f"{what} {done}/{whole}: {name}", file=sys.stderr, flush=True
        )
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)

        def show(name: str, done: int, whole: int) -> None:
            progress.update(task, completed=done, total=whole, description=f"{what} {name}")

        yield show
