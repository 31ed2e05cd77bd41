"""Fingerprints from a recorded stream.

A stream does not say which QEMU wrote it or on which host; it does say what its lists hold,
how every device is laid out, and whether the guest had run.
"""

from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance, Scope
from armferry.registers import accelerator_of
from armferry.stream import SavedState
from armferry.stream.description import layouts_of
from armferry.stream.events import Configuration, RamBlock

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
            scope=Scope.GUEST,
        ),
        tuple(cpu.registers for cpu in saved.cpus),
        at_reset=saved.fresh,
        devices=devices,
        features=saved.cpus[0].trusted_features,
        memory=tuple(_block(one) for one in saved.blocks) or None,
        configuration=_configuration(saved),
    )


def _block(block: RamBlock) -> RamBlock:
    """The block without where its pages lie; a mapped-ram file's page size is the file's own."""
    mapped = block.pages_offset is not None
    return RamBlock(block.name, block.length, None if mapped else block.page_size)


def _configuration(saved: SavedState) -> Configuration | None:
    """What the stream begins with, without where it stood."""
    found = saved.configuration
    if found is None:
        return None
    return Configuration(0, found.machine, found.page_size, found.capabilities, ())
