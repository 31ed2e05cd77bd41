"""Fingerprints from a recorded stream.

A stream does not say which QEMU wrote it or on which host; it does say what its lists hold,
how every device is laid out, and whether the guest had run.
"""

from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance
from armferry.registers import accelerator_of
from armferry.stream import SavedState
from armferry.stream.description import layouts_of

__all__ = ["fingerprint_of_stream"]


def fingerprint_of_stream(saved: SavedState) -> Fingerprint:
    """What the host that wrote `saved` would accept, as far as the stream tells."""
    if saved.description is None:
        devices = tuple(cpu.layout for cpu in saved.cpus)
    else:
        devices = layouts_of(saved.description, saved.end_offset + 1)
    return Fingerprint(
        Provenance(
            how="stream",
            machine=saved.machine,
            accelerator=accelerator_of(saved.cpus[0].registers),
        ),
        tuple(cpu.registers for cpu in saved.cpus),
        at_reset=saved.fresh,
        devices=devices,
        features=saved.cpus[0].trusted_features,
    )
