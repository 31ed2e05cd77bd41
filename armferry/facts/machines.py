"""Arm machine types of the measured QEMU releases, read from machines.toml."""

from collections.abc import Mapping
from functools import cache

from armferry.facts.tables import Basis, basis, table

__all__ = ["machines_basis", "newest_virt", "oldest_virt", "unversioned_machines"]


@cache
def unversioned_machines() -> frozenset[str]:
    """Names of Arm machine types that carry no version."""
    return frozenset(table("machines")["unversioned"])


def newest_virt() -> Mapping[str, str]:
    """The newest version of virt (`virt-10.0`) that each measured release offers."""
    found: Mapping[str, str] = table("machines")["newest-virt"]
    return found


def oldest_virt() -> str:
    """The oldest version of virt that any measured release offers."""
    return str(table("machines")["oldest-virt"])


def machines_basis() -> Basis:
    """What the names rest on."""
    return basis(table("machines"))
