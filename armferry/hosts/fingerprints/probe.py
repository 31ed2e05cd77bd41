"""Fingerprints from a QEMU on this host: started paused, saved, read, ended.

Asks the QEMU itself and never guesses from a version. Nothing is left behind: the state of the
paused machine is kept in a temporary folder for as long as the probe takes.
"""

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from armferry.errors import EnvironmentFault
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance
from armferry.hosts.fingerprints.from_stream import fingerprint_of_stream
from armferry.hosts.fingerprints.kvm import ask
from armferry.hosts.program import ProgramFault, answer_of
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.registers import Accelerator
from armferry.stream import read_saved

__all__ = ["ProbeError", "QemuVersion", "find_qemu", "fingerprint_of_qemu", "qemu_version"]

_VERSION_LIMIT = 20.0
_PROGRAM = "qemu-system-aarch64"


class ProbeError(EnvironmentFault):
    """A QEMU that is not there or does not answer."""


@dataclass(frozen=True, slots=True)
class QemuVersion:
    """What a QEMU says of itself: `version` such as 10.0.13, `package` as its packager put it."""

    version: str
    package: str


def find_qemu(program: str | None) -> Path:
    """The path of `program`, or of the QEMU on PATH. Raises ProbeError."""
    found = shutil.which(program or _PROGRAM)
    if found is None:
        raise ProbeError(
            f"{program or _PROGRAM}: no such program; install QEMU for Arm or name one with --qemu"
        )
    return Path(found)


def qemu_version(program: Path) -> QemuVersion:
    """What `program --version` says. Raises ProbeError."""
    try:
        answer = answer_of(program, ["--version"], limit=_VERSION_LIMIT)
    except ProgramFault as fault:
        raise ProbeError(str(fault)) from None
    if answer.status:
        raise ProbeError(f"{program} --version ended with {answer.status}: {answer.err.strip()}")
    words = answer.out.split("\n", 1)[0].partition("version ")[2]
    version, _, package = words.partition(" ")
    if not version[:1].isdigit():
        raise ProbeError(f"{program} is no QEMU: --version says {answer.out[:80]!r}")
    return QemuVersion(version, package.strip(" ()"))


def fingerprint_of_qemu(
    program: Path, spec: MachineSpec, *, time_limit: float = 60.0
) -> Fingerprint:
    """What `program` would accept for the machine, CPU, accelerator and vCPUs of `spec`.

    Under KVM the kernel of this host is asked as well. Raises ProbeError, QemuProcessError (with
    QEMU's own words), KvmFault or StreamError.
    """
    about = qemu_version(program)
    with tempfile.TemporaryDirectory(prefix="armferry-probe-") as folder:
        path = Path(folder) / "state"
        with QemuProcess(program, spec, paused=True, time_limit=time_limit) as machine:
            machine.save(path)
            machine.quit()
        with FileWindow(path) as window:
            saved = read_saved(window)
    accelerator = Accelerator(spec.accel)
    return replace(
        fingerprint_of_stream(saved),
        provenance=Provenance(
            how="probe",
            machine=saved.machine or spec.machine,
            cpu=spec.cpu,
            accelerator=accelerator,
            qemu=about.version,
            package=about.package,
            kernel=os.uname().release if accelerator is Accelerator.KVM else "",
            hardware=platform.machine(),
        ),
        at_reset=True,
        # what its QEMU cannot tell, the kernel does: which bits of which constants may be set
        writable=ask().writable if accelerator is Accelerator.KVM else None,
    )
