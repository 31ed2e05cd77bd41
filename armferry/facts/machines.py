"""Arm machine types of the measured QEMU releases, read from machines.toml."""

import re
from collections.abc import Mapping
from functools import cache

from armferry.facts.tables import Basis, basis, table

__all__ = [
    "like_of_distribution",
    "machines_basis",
    "newest_virt",
    "oldest_virt",
    "unversioned_machines",
]


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


def like_of_distribution(machine: str) -> str | None:
    """The machine type of QEMU that a distribution's own is like; None for any other."""
    for one in table("machines")["distribution"]:
        if machine in one["like"]:
            return str(one["like"][machine])
        plain = re.sub(f"{one['suffix']}$", "", machine) if "suffix" in one else machine
        if plain != machine:
            return plain
    return None
