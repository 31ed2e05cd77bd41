"""A lab host as it was once recorded: what its KVM offers and what its QEMU saves of a fresh guest.

Recordings are kept in the cache under a key made of everything that decides them: the kernel's
image and modules, the userland, the CPU and QEMU's words. So a recording is never out of date, and
what was recorded once is not booted for again.
"""

import dataclasses
import functools
import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from armferry.cache import cache_folder
from armferry.errors import EnvironmentFault
from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance, parse
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.fingerprints.subject import Subject
from armferry.lab.host import HostSpec, LabHost
from armferry.lab.initramfs import userland_archive
from armferry.lab.nested import NestedQemu, save
from armferry.lab.patience import patient

__all__ = ["Recording", "RecordingFault", "host_key", "record", "recorded"]


class RecordingFault(EnvironmentFault):
    """A lab host could not be recorded: its KVM or its QEMU did not do what was asked."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One host: `spec` and `qemu` say what was started there, `stream` is what it saved.

    `kvm` is what its /dev/kvm says of itself; `key` tells hosts apart by content.
    """

    spec: HostSpec
    qemu: NestedQemu
    key: str
    stream: Path
    kvm: Fingerprint

    @property
    def name(self) -> str:
        """Such as `6.12.107+deb13 neoverse-n1 10.0.13`."""
        return f"{self.spec.kernel.release} {self.spec.cpu} {self.spec.qemu_version}"

    def source(self) -> Subject:
        """The guest it saved. Raises `BadStream`."""
        return open_subject(str(self.stream))

    def destination(self) -> Subject:
        """What it would accept: the saved lists and layouts, and what the kernel lets be set."""
        saved = self.source()
        about = Provenance(
            how="probe",
            machine=saved.machine,
            cpu="host",
            accelerator=saved.accelerator,
            qemu=self.spec.qemu_version,
            kernel=self.kvm.provenance.kernel,
            hardware=self.kvm.provenance.hardware,
        )
        fingerprint = dataclasses.replace(
            saved.fingerprint,
            provenance=about,
            writable=self.kvm.writable,
            hardware=self.kvm.hardware,
        )
        return Subject(self.name, fingerprint, None)


def host_key(spec: HostSpec, qemu: NestedQemu) -> str:
    """What a recording is kept under: a hash of everything that decides it."""
    kernel = spec.kernel
    parts = [
        _hash_of(kernel.image),
        *map(_hash_of, kernel.modules),
        _hash_of(userland_archive(spec.userland)),
        *([] if spec.package is None else [_hash_of(spec.package.archive)]),
        json.dumps([spec.model, spec.memory, spec.append, qemu.arguments()]),
        *([] if spec.smp == 1 else [f"smp {spec.smp}"]),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def recorded(spec: HostSpec, qemu: NestedQemu) -> Recording | None:
    """The recording in the cache, None when there is none. Raises `FingerprintError`."""
    key = host_key(spec, qemu)
    folder = cache_folder("matrix") / "hosts" / key
    if not folder.exists():
        return None
    document = folder / "kvm.json"
    kvm = parse(document.read_bytes(), str(document))
    return Recording(spec, qemu, key, folder / "stream", kvm)


def record(host: LabHost, qemu: NestedQemu) -> Recording:
    """Record `host`, booted; about 8 s. Raises `LabHostFault`, `RecordingFault`."""
    spec = host.spec
    asked = host.run(["python3", "-m", "armferry", "fingerprint", "kvm"], time_limit=patient(120.0))
    if asked.exit_code != 0:
        raise RecordingFault(
            f"lab host {spec.kernel.release} on {spec.cpu}: armferry fingerprint kvm failed: "
            f"{asked.stderr.decode('utf-8', 'replace').strip()}"
        )
    outcome, stream = save(host, qemu)
    if not outcome.completed:
        words = outcome.reason or outcome.stderr.strip()
        raise RecordingFault(
            f"lab host {spec.kernel.release} on {spec.cpu}: QEMU {spec.qemu_version} could "
            f"not save a machine {qemu.machine}: {words}"
        )
    folder = cache_folder("matrix", "hosts") / host_key(spec, qemu)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary, "made")
        made.mkdir()
        (made / "kvm.json").write_bytes(asked.stdout)
        (made / "stream").write_bytes(stream)
        # somebody else may have recorded the same host meanwhile: theirs is as good
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    found = recorded(spec, qemu)
    assert found is not None
    return found


@functools.cache
def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
