"""`armferry lab guest`: a guest of the lab, run for a while and saved, to try armferry with.

Parses, calls and prints; what the guests are, `armferry.lab.guest` and `armferry.lab.linux` know.
"""

import argparse
import shlex
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from armferry.cli.progress import working
from armferry.cli.render import next_step
from armferry.errors import ArmferryError
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.guest import GuestLog, build
from armferry.lab.kernels import KernelStore
from armferry.lab.linux import LinuxMachine, LinuxSpec
from armferry.lab.patience import patient
from armferry.lab.qemu_install import InstalledQemu, install, resolve

__all__ = ["add_parser"]

_TICKS = 5
_POLL = 0.05
_BARE_MEMORY, _LINUX_MEMORY = 64, 256
_QEMU = "10.0.2"


def add_parser(rooms: "argparse._SubParsersAction[Any]") -> None:
    """Adds `guest` below `lab`."""
    guest = rooms.add_parser(
        "guest",
        help="run a guest and save it, to try armferry with",
        epilog="Without --kernel it is a small bare-metal guest that fills registers and memory "
        "with patterns. With --kernel it is Debian's kernel with a workload that watches clocks, "
        "timers, memory, NEON, SVE, pointer authentication, performance counters, breakpoints and "
        "caches. Both count on the serial line, and say there when something of them was lost.",
    )
    guest.add_argument("--kernel", metavar="KERNEL", help="a series (6.12) or a release: Linux")
    guest.add_argument(
        "--qemu",
        default=_QEMU,
        metavar="RELEASE",
        help=f"the QEMU that runs it, one of `armferry lab qemu list` (default: {_QEMU})",
    )
    guest.add_argument(
        "--cpu", default="cortex-a57", help="a CPU model of that QEMU (default: cortex-a57)"
    )
    guest.add_argument("--machine", help="default: the machine type named after the QEMU")
    guest.add_argument("--smp", type=int, default=2, metavar="N", help="vCPUs (default: 2)")
    guest.add_argument(
        "--memory",
        type=int,
        metavar="MIB",
        help=f"default: {_BARE_MEMORY}, with Linux {_LINUX_MEMORY}",
    )
    guest.add_argument(
        "--time-limit",
        type=float,
        metavar="S",
        help="seconds for each step (default: minutes, more on a busy machine)",
    )
    guest.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="where to save it"
    )
    guest.set_defaults(func=_run)


def _run(arguments: argparse.Namespace) -> int:
    """Runs a guest and saves it."""
    _refuse_to_overwrite(arguments.output)
    qemu = install(resolve(arguments.qemu))
    machine = arguments.machine or f"virt-{'.'.join(qemu.version.split('.')[:2])}"
    linux = arguments.kernel is not None
    spec = MachineSpec(
        machine=machine,
        cpu=arguments.cpu,
        smp=arguments.smp,
        memory=arguments.memory or (_LINUX_MEMORY if linux else _BARE_MEMORY),
    )
    save = _save_linux if linux else _save_bare
    with working("running a guest"):
        about = save(qemu, spec, arguments)
    print(
        f"{arguments.output}: {about}, {machine}, {arguments.cpu}, {arguments.smp} vCPUs, "
        f"{spec.memory} MiB, QEMU {qemu.version}; {arguments.output.stat().st_size >> 20} MiB"
    )
    shown = shlex.join([str(qemu.launcher), *spec.arguments()])
    load = shlex.quote(f"exec:cat {shlex.quote(str(arguments.output))}")
    print(f"It goes on with: {shown} -serial stdio -incoming {load}")
    next_step(f"armferry inspect {shlex.quote(str(arguments.output))}")
    return 0


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise ArmferryError(f"{path} is no file; name one to save the guest in")
    if not path.parent.is_dir():
        raise ArmferryError(f"{path.parent} is no folder; make it, or name another file")


def _save_bare(qemu: InstalledQemu, spec: MachineSpec, arguments: argparse.Namespace) -> str:
    limit = arguments.time_limit or patient(60.0)
    with tempfile.TemporaryDirectory(prefix="armferry-") as folder:
        serial = Path(folder, "serial")
        with QemuProcess(
            qemu,
            replace(spec, kernel=build()),
            serial=serial,
            time_limit=limit,
        ) as machine:
            deadline = time.monotonic() + limit
            while (log := GuestLog.read(serial)).last < _TICKS:
                if time.monotonic() > deadline or log.faults():
                    words = "; ".join(log.faults()) or "it does not count"
                    raise ArmferryError(
                        f"the guest does not run on {arguments.cpu}: {words}; name another --cpu"
                    )
                time.sleep(_POLL)
            machine.save(arguments.output)
    return "the bare-metal guest"


def _save_linux(qemu: InstalledQemu, spec: MachineSpec, arguments: argparse.Namespace) -> str:
    kernel = KernelStore().get(arguments.kernel)
    with tempfile.TemporaryDirectory(prefix="armferry-") as folder:
        guest = LinuxSpec(
            kernel, machine=spec.machine, cpu=spec.cpu, smp=spec.smp, memory=spec.memory
        )
        log = Path(folder, "serial")
        with LinuxMachine(qemu, guest, log, time_limit=arguments.time_limit) as machine:
            workers = machine.settled().workers
            machine.machine.save(arguments.output)
    return f"Linux {kernel.release} with {', '.join(workers)}"
