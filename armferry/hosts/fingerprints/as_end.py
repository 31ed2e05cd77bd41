"""A fingerprint as one end of a move: an empty text of the document becomes `UNKNOWN`."""

from armferry.ends import UNKNOWN, End
from armferry.hosts.fingerprints.fingerprint import Fingerprint

__all__ = ["end_of"]


def end_of(fingerprint: Fingerprint, text: str = "the fingerprint") -> End:
    """The host that `fingerprint` describes; `text` is how a person named it."""
    about = fingerprint.provenance
    return End(
        text,
        fingerprint.cpus,
        fingerprint.accelerator,
        fingerprint.at_reset,
        machine=about.machine or UNKNOWN,
        cpu=about.cpu or UNKNOWN,
        qemu=about.qemu or UNKNOWN,
        kernel=about.kernel or UNKNOWN,
        devices=fingerprint.devices,
        features=fingerprint.features,
        writable=UNKNOWN if fingerprint.writable is None else fingerprint.writable,
        memory=UNKNOWN if fingerprint.memory is None else fingerprint.memory,
        configuration=fingerprint.configuration or UNKNOWN,
    )
