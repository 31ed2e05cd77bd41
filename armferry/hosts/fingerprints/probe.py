"""Fingerprints from a QEMU on this host: started paused, saved, read, ended.

Asks the QEMU itself and never guesses from a version. Nothing is left behind: the state of the
paused machine is kept in a temporary folder for as long as the probe takes.
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from armferry.errors import EnvironmentFault
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance, Scope
from armferry.hosts.fingerprints.from_kvm import host_record
from armferry.hosts.fingerprints.from_stream import fingerprint_of_stream
from armferry.hosts.fingerprints.host_record import HostRecord
from armferry.hosts.fingerprints.kvm import ask
from armferry.hosts.fingerprints.vectors import vector_lengths
from armferry.hosts.program import ProgramFault, answer_of
from armferry.hosts.qmp.process import MachineSpec, QemuProcess, RefusedByQemu
from armferry.hosts.qmp.running import QemuVersion, running_version
from armferry.registers import Accelerator
from armferry.stream import SavedState, read_saved

__all__ = [
    "ProbeError",
    "Vcpus",
    "find_qemu",
    "fingerprint_of_qemu",
    "probe_vcpus",
    "qemu_version",
    "vcpus_of",
]

_VERSION_LIMIT = 20.0
_HEADER = 8  # bytes of the magic and the version
_PROGRAM = "qemu-system-aarch64"


class ProbeError(EnvironmentFault):
    """A QEMU that is not there or does not answer."""


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


@dataclass(frozen=True, slots=True)
class Vcpus:
    """The vCPUs of a machine after reset, as the QEMU on this host makes them.

    `head` is their stream up to the end of its configuration. `about` is what QEMU says of itself,
    `sve_bits` and `sme_bits` are their vector lengths, None where it does not say.
    """

    head: bytes
    saved: SavedState
    about: QemuVersion
    sve_bits: tuple[int, ...] | None
    sme_bits: tuple[int, ...] | None

    def fingerprint(
        self, cpu: str, accelerator: Accelerator, scope: Scope = Scope.KIND
    ) -> Fingerprint:
        """The same as what this host would accept, for the text `cpu` after -cpu.

        `scope` says whether the machine is that of one guest. Under KVM the kernel of this host is
        asked as well. Raises KvmFault.
        """
        # the kernel knows what its QEMU does not: which bits of which constants may be set
        kernel = ask() if accelerator is Accelerator.KVM else None
        return replace(
            fingerprint_of_stream(self.saved),
            provenance=Provenance(
                how="probe",
                machine=self.saved.machine,
                cpu=cpu,
                accelerator=accelerator,
                qemu=self.about.version,
                package=self.about.package,
                kernel="" if kernel is None else os.uname().release,
                hardware=platform.machine(),
                scope=scope,
            ),
            at_reset=True,
            writable=None if kernel is None else kernel.writable,
            hardware=None if kernel is None else kernel.hardware,
            host=replace(
                HostRecord() if kernel is None else host_record(kernel),
                # what this vCPU was given, of what the host has
                sve_bits=self.sve_bits,
                sme_bits=self.sme_bits,
            ),
        )


def probe_vcpus(
    program: Path, spec: MachineSpec | Sequence[str], *, time_limit: float = 60.0
) -> Vcpus:
    """The vCPUs of the machine that `spec`, or QEMU's own words, describe.

    Raises QemuProcessError (with QEMU's own words) or StreamError.
    """
    with QemuProcess(program, spec, paused=True, time_limit=time_limit) as machine:
        return vcpus_of(machine)


def vcpus_of(machine: QemuProcess) -> Vcpus:
    """The vCPUs of a machine that was started paused. Raises QemuProcessError or StreamError."""
    about = running_version(machine.execute)
    sve, sme = (
        vector_lengths(machine.execute, RefusedByQemu, feature) for feature in ("sve", "sme")
    )
    with tempfile.TemporaryDirectory(prefix="armferry-probe-") as folder:
        path = Path(folder) / "state"
        machine.save(path)
        machine.quit()
        with FileWindow(path) as window:
            saved = read_saved(window)
            head = window.read(0, _head_length(saved))
    return Vcpus(head, saved, about, sve, sme)


def fingerprint_of_qemu(
    program: Path, spec: MachineSpec, *, time_limit: float = 60.0
) -> Fingerprint:
    """What `program` would accept for the machine, CPU, accelerator and vCPUs of `spec`.

    Raises QemuProcessError (with QEMU's own words), KvmFault or StreamError.
    """
    vcpus = probe_vcpus(program, spec, time_limit=time_limit)
    return vcpus.fingerprint(spec.cpu, Accelerator(spec.accel))


def _head_length(saved: SavedState) -> int:
    """Bytes before guest memory: the header and the configuration."""
    configuration = saved.configuration
    if configuration is None:
        return _HEADER
    length = configuration.offset + 5 + len(configuration.machine)
    return length + sum(
        6 + len(part.name) + len(part.payload) for part in configuration.subsections
    )
