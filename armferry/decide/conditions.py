"""Registers that the destination's kernel takes away while a guest is loaded.

KVM has some registers only while a field of an identification register says so, and the field may
be lowered. QEMU puts the whole list of its own host, ascending: first the guest's lower
identification register, then the register that hangs on it, which the kernel no longer has. That
put fails, and so the load (measured on Linux 6.16 to 6.17). On what they hang is a fact
(`armferry.facts.conditions`).
"""

from collections.abc import Mapping

from armferry.facts import conditions
from armferry.registers import Accelerator

__all__ = ["spoils", "taken_away"]


def taken_away(
    incoming: Mapping[int, int], own: Mapping[int, int], accelerator: Accelerator
) -> dict[int, tuple[int, ...]]:
    """The registers of `own` that are gone once the values of `incoming` are put over its own.

    Each with the identification registers whose values do it. `own` are values after reset.
    """
    if accelerator is not Accelerator.KVM:
        return {}
    lost = {}
    for register, condition in conditions().items():
        if not condition.applies_to_list(own):
            continue
        put = {on: incoming.get(on, own.get(on, 0)) for on, _ in condition.fields if on in own}
        if not condition.holds(put):
            lost[register] = tuple(dict.fromkeys(on for on in put if put[on] != own[on]))
    return lost


def spoils(
    incoming: Mapping[int, int], own: Mapping[int, int], accelerator: Accelerator
) -> dict[int, tuple[int, ...]]:
    """The other way round: identification registers of `incoming` that take registers away."""
    found: dict[int, tuple[int, ...]] = {}
    for register, causes in taken_away(incoming, own, accelerator).items():
        for index in causes:
            found[index] = (*found.get(index, ()), register)
    return found
