"""How QEMU orders the register lists of HVF, read from hvf.toml.

Knows orders and encodings by release; refuses to know values. No Mac was at hand: everything here
was read, nothing measured.
"""

from collections.abc import Iterable
from functools import cache

from armferry.facts.qemu import applies
from armferry.facts.tables import table

__all__ = ["hvf_order", "hvf_section"]


def hvf_order(indexes: Iterable[int], qemu: str) -> tuple[int, ...]:
    """`indexes` in the order in which the QEMU of version `qemu` lists them under HVF.

    Raises UnknownQemuVersion.
    """
    ordered = sorted(indexes)
    for rule in table("hvf")["order"]:
        if applies(rule, qemu):
            late, behind = int(rule["late"], 16), int(rule["behind"], 16)
            if late in ordered:
                ordered.remove(late)
                place = sum(index <= behind for index in ordered)
                ordered.insert(place, late)
    return tuple(ordered)


@cache
def hvf_section() -> str:
    """The name of the section that only HVF saves."""
    return str(table("hvf")["section"]["name"])
