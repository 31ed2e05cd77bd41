"""Whether this host's QEMU can have the KVM boundary, for `armferry host check`."""

from collections.abc import Iterator
from pathlib import Path

from armferry.boundary.preload import why_not
from armferry.errors import ArmferryError
from armferry.hosts.fingerprints.probe import find_qemu
from armferry.hosts.libvirt.host_check import Grade, HostFinding

__all__ = ["boundary_findings"]

_WHAT = "KVM boundary"


def boundary_findings(device: Path = Path("/dev/kvm")) -> Iterator[HostFinding]:
    """What the QEMU on PATH has of it; nothing on a host without KVM or without QEMU."""
    if not device.exists():
        return
    try:
        program = find_qemu(None)
        why = why_not(program)
    except ArmferryError:
        return  # said of QEMU already
    if why:
        yield HostFinding(
            _WHAT,
            Grade.WARNING,
            why,
            "armferry-qemu then carries outgoing migrations of guests with hidden registers itself",
        )
    else:
        yield HostFinding(_WHAT, Grade.GOOD, f"can be put into {program}")
