"""What this host's /dev/kvm said, as a fingerprint, the common document."""

from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance
from armferry.hosts.fingerprints.host_record import HostRecord
from armferry.hosts.fingerprints.kvm import KvmHost
from armferry.registers import Accelerator

__all__ = ["fingerprint_of_kvm", "host_record"]


def host_record(host: KvmHost) -> HostRecord:
    """What the host gives beside its register list."""
    return HostRecord(
        counter_hz=host.counter_hz,
        page_bytes=host.page_bytes,
        sve_bits=host.vector_bits,
        sme_bits=(),  # KVM gives no guest SME
        gic=host.gic_versions,
        its=host.has_its,
        cores=host.cores,
    )


def fingerprint_of_kvm(host: KvmHost) -> Fingerprint:
    """The document that every other command takes."""
    return Fingerprint(
        Provenance(
            how="kvm",
            cpu="host",
            accelerator=Accelerator.KVM,
            kernel=host.kernel,
            hardware="" if host.cpu is None else host.cpu.text,
        ),
        (host.registers,),
        at_reset=True,
        writable=host.writable,
        hardware=host.hardware,
        host=host_record(host),
        capabilities={capability.name: value for capability, value in host.capabilities.items()},
    )
