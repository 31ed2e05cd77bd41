"""Fingerprints for the atlas, recorded: each from a real kernel in the lab or a real QEMU.

One file for each entry, the fingerprint and how it was made, in a folder that is the state of the
work: what is there is not recorded again. `armferry.hosts.fingerprints.atlas` packs and reads such
a folder.
"""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from armferry.errors import ArmferryError, EnvironmentFault
from armferry.hosts.fingerprints.fingerprint import dump
from armferry.hosts.fingerprints.probe import fingerprint_of_qemu, qemu_version
from armferry.hosts.qmp.process import MachineSpec
from armferry.lab.host import HostSpec, LabHost, outer_qemu
from armferry.lab.kernels import KernelStore
from armferry.lab.nested import NestedQemu
from armferry.lab.qemu_install import install
from armferry.lab.recording import record as record_host
from armferry.lab.recording import recorded
from armferry.lab.releases import Release, release_named

__all__ = ["AtlasRecordFault", "KvmEntry", "LayoutEntry", "QemuEntry", "record"]

_AT_ONCE = 2
_TIME_LIMIT = 240.0
_USERLAND = "trixie"
# On what a QEMU is recorded: its sections are the same on each kernel and for each machine type
# (tests/e2e/test_kvm_matrix.py).
_LAYOUT_KERNEL, _LAYOUT_MACHINE = "6.12", "virt-7.2"


class AtlasRecordFault(EnvironmentFault):
    """An entry could not be recorded."""


@dataclass(frozen=True, slots=True)
class KvmEntry:
    """What a kernel's KVM gives a VM on a CPU model; `kernel` is a whole release of the archive."""

    kernel: str
    cpu: str

    @property
    def name(self) -> str:
        return f"{self.kernel}/{self.cpu}"

    def boot(self) -> LabHost:
        """A host with that kernel on that CPU model. Raises `LabHostFault`."""
        return LabHost(_spec(self.kernel, self.cpu, release_named(_USERLAND)))

    def record(self) -> dict[str, Any]:
        """The fingerprint document and how it was made, from one boot of the lab."""
        with self.boot() as host:
            done = host.run(["armferry", "fingerprint", "kvm"], time_limit=_TIME_LIMIT)
            kernel, model, program = host.spec.kernel, host.spec.model, host.program
        if done.exit_code != 0:
            words = done.stderr.decode("utf-8", "replace").strip()
            raise AtlasRecordFault(f"atlas entry {self.name}: the host said: {words}")
        return {
            "made": {
                "command": f"armferry atlas record --kernels {kernel.release} --cpus {self.cpu}",
                "package": f"{kernel.origin.package} {kernel.origin.version}",
                "suite": kernel.origin.suite,
                "sha256": kernel.origin.sha256,
                "under": f"QEMU {qemu_version(program).version}, -cpu {model}",
            },
            "fingerprint": json.loads(done.stdout),
        }


@dataclass(frozen=True, slots=True)
class QemuEntry:
    """What a QEMU release under TCG gives a VM of a machine type and CPU model."""

    release: Release
    machine: str
    cpu: str

    @property
    def name(self) -> str:
        return f"qemu-{self.release.version}/{self.machine}/{self.cpu}"

    def record(self) -> dict[str, Any]:
        """The fingerprint document and how it was made, from a paused machine."""
        there = install(self.release)
        spec = MachineSpec(machine=self.machine, cpu=self.cpu)
        found = fingerprint_of_qemu(there.launcher, spec)
        return {
            "made": {
                "command": f"armferry atlas record --qemus {self.release.version} "
                f"--machines {self.machine} --cpus {self.cpu}",
                "package": f"qemu-system-arm {there.package}",
                "suite": self.release.suite,
            },
            "fingerprint": json.loads(dump(found)),
        }


@dataclass(frozen=True, slots=True)
class LayoutEntry:
    """The sections that a QEMU release saves under KVM with `-cpu host` on a CPU model.

    They are the same for every kernel and machine type; the atlas puts them beside the list of
    whatever kernel is asked for.
    """

    release: Release
    cpu: str

    @property
    def name(self) -> str:
        return f"qemu-{self.release.version}/kvm/{self.cpu}"

    def record(self) -> dict[str, Any]:
        """The fingerprint document and how it was made, from one boot of the lab."""
        spec = _spec(_LAYOUT_KERNEL, self.cpu, self.release)
        qemu = NestedQemu(_LAYOUT_MACHINE)
        recording = recorded(spec, qemu)
        if recording is None:
            with LabHost(spec) as host:
                recording = record_host(host, qemu)
        found = recording.destination().fingerprint
        about = replace(found.provenance, machine="")
        outer = f"QEMU {qemu_version(outer_qemu(self.cpu)).version}, -cpu {spec.model}"
        return {
            "made": {
                "command": f"armferry atlas record --kvm-qemus {self.release.version} "
                f"--cpus {self.cpu}",
                "package": f"qemu-system-arm of {self.release.suite}",
                "suite": self.release.suite,
                "under": f"Linux {spec.kernel.release}, {outer}",
            },
            "fingerprint": json.loads(dump(replace(found, provenance=about))),
        }


def _spec(kernel: str, cpu: str, userland: Release) -> HostSpec:
    return HostSpec(KernelStore().get(kernel), userland, cpu=cpu)


def record(
    entries: Iterable[KvmEntry | LayoutEntry | QemuEntry],
    folder: Path,
    done: Callable[[str, str], None],
) -> int:
    """Record into `folder` what is not there yet, two at a time; how many could not be.

    `done` is told the name of each entry, and what went wrong, empty when it is recorded.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def one(entry: KvmEntry | LayoutEntry | QemuEntry) -> bool:
        path = folder / f"{entry.name.replace('/', '_')}.json"
        if path.exists():
            return True
        try:
            document = {"name": entry.name, **entry.record()}
        except ArmferryError as fault:
            done(entry.name, str(fault))
            return False
        path.write_text(json.dumps(document), encoding="utf-8")
        done(entry.name, "")
        return True

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, entries)).count(False)
