"""A fingerprint as one end of a move: an empty text of the document becomes `UNKNOWN`."""

from armferry.ends import UNKNOWN, End, HostFacts, NotKnown
from armferry.hosts.fingerprints.documents import OTHERS
from armferry.hosts.fingerprints.fingerprint import Fingerprint, Scope
from armferry.registers import Accelerator

__all__ = ["end_of"]

_COUNTER_FREQUENCY = 0x6030_0000_0013_DF00
"""CNTFRQ_EL0, which TCG lists and KVM does not."""
_PFR0, _GIC_FIELD = 0x6030_0000_0013_C020, 24  # ID_AA64PFR0_EL1


def end_of(fingerprint: Fingerprint, text: str = "the fingerprint") -> End:
    """The host that `fingerprint` describes; `text` is how a person named it."""
    about = fingerprint.provenance
    return End(
        text,
        fingerprint.cpus,
        fingerprint.accelerator,
        fingerprint.at_reset,
        partial=about.how in OTHERS,
        whole=about.scope is Scope.GUEST,
        machine=about.machine or UNKNOWN,
        cpu=about.cpu or UNKNOWN,
        qemu=about.qemu or UNKNOWN,
        kernel=about.kernel or UNKNOWN,
        devices=fingerprint.devices,
        features=fingerprint.features,
        writable=UNKNOWN if fingerprint.writable is None else fingerprint.writable,
        hardware=UNKNOWN if fingerprint.hardware is None else fingerprint.hardware,
        memory=UNKNOWN if fingerprint.memory is None else fingerprint.memory,
        configuration=fingerprint.configuration or UNKNOWN,
        host=_host_facts(fingerprint),
    )


def _host_facts(fingerprint: Fingerprint) -> HostFacts:
    """What the host gives beside the list, from the record or, failing that, from the list."""
    host, first = fingerprint.host, fingerprint.cpus[0]
    return HostFacts(
        counter_hz=host.counter_hz or first.get(_COUNTER_FREQUENCY) or UNKNOWN,
        page_bytes=host.page_bytes or UNKNOWN,
        sve_bits=UNKNOWN if host.sve_bits is None else frozenset(host.sve_bits),
        sme_bits=UNKNOWN if host.sme_bits is None else frozenset(host.sme_bits),
        gic=_gic(fingerprint) if host.gic is None else frozenset(host.gic),
        its=UNKNOWN if host.its is None else host.its,
        cores=UNKNOWN if host.cores is None else host.cores,
    )


def _gic(fingerprint: Fingerprint) -> frozenset[int] | NotKnown:
    """What older records of /dev/kvm tell: they tried a GICv3, which shows in an ID register."""
    asked = fingerprint.provenance.how in ("kvm", "atlas")
    if not asked or fingerprint.accelerator is not Accelerator.KVM:
        return UNKNOWN
    tried = fingerprint.cpus[0].get(_PFR0, 0) >> _GIC_FIELD & 0xF
    return UNKNOWN if tried else frozenset({2})
