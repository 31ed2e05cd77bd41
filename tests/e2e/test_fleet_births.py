"""Birth decides who can come back: on two real kernels, as the fleet's relation says.

A guest of `armferry.lab.guest`, stock QEMU 11.1 on both sides: born on 6.12 it goes to 6.17 and
back; born on 6.17 it is refused by 6.12. Hosts are booted one after the other.
"""

from pathlib import Path

import pytest

from armferry.lab.host import HostSpec, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.releases import release_named
from armferry.lab.stays import Stay, Stayed, stay

from ..fleet.hosts_of_atlas import atlas_relation

pytestmark = [pytest.mark.qemu, pytest.mark.kernel, pytest.mark.full]

SUITE, MACHINE = "trixie-backports", "virt-10.1"
OLD, NEW = "6.12", "6.17"


def named(kernel: str) -> str:
    return f"{kernel}/neoverse-n1/qemu-11.1"


def stays(kernel: str, guest: bytes, *wanted: Stay) -> list[Stayed]:
    """What becomes of guests on a host with that kernel."""
    with LabHost(HostSpec(KernelStore().get(kernel), release_named(SUITE))) as host:
        return stay(host, guest, wanted)


def test_who_was_born_on_the_old_kernel_comes_back_and_nobody_else(guest_kernel: Path) -> None:
    guest = guest_kernel.read_bytes()
    (born_old,) = stays(OLD, guest, Stay(MACHINE))
    assert born_old.outcome.completed
    away, born_new = stays(
        NEW, guest, Stay(MACHINE, came=born_old.stream, log=born_old.log), Stay(MACHINE)
    )
    assert born_new.outcome.completed
    back, refused = stays(
        OLD,
        guest,
        Stay(MACHINE, came=away.stream, log=away.log),
        Stay(MACHINE, came=born_new.stream, log=born_new.log),
    )
    relation = atlas_relation(MACHINE)
    for birth, present, destination, stayed in (
        (OLD, OLD, NEW, away),
        (OLD, NEW, OLD, back),
        (NEW, NEW, OLD, refused),
    ):
        cell = relation.cell(named(birth), named(present), named(destination))
        assert (cell.stock == "works") is stayed.outcome.completed, (birth, present, cell, stayed)
    assert back.outcome.completed
    assert not refused.outcome.completed
