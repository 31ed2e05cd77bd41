"""Whether this host's kernel lets a guest be born so: tried on a scratch vCPU before QEMU starts.

The vCPU is made as QEMU makes one; each setting is written and read back, as the library will do.
Nothing of the host changes.
"""

from collections.abc import Iterable

from armferry.boundary.birth import Obstacle
from armferry.boundary.rules import Action, Rule
from armferry.hosts.fingerprints.kvm import RegisterRefused, Vcpu
from armferry.registers import differing_fields

__all__ = ["obstacles_here"]


def obstacles_here(rules: Iterable[Rule]) -> tuple[Obstacle, ...]:
    """What this kernel does not let be set. Raises KvmFault."""
    found: list[Obstacle] = []
    with Vcpu() as vcpu:
        for rule in sorted(rules):
            if rule.action is not Action.SET:
                continue
            try:
                own = vcpu.get(rule.index)
            except RegisterRefused:
                found.append(Obstacle(rule.index, "this kernel has no such register"))
                continue
            wanted = (own & ~rule.mask) | (rule.value & rule.mask)
            if own == wanted:
                continue
            fields = ", ".join(one.field.name for one in differing_fields(rule.index, own, wanted))
            what = f"{own:#x} cannot become {wanted:#x}" + (f" ({fields})" if fields else "")
            try:
                vcpu.set(rule.index, wanted)
            except RegisterRefused as refused:
                found.append(Obstacle(rule.index, f"{what}: {refused}"))
                continue
            if vcpu.get(rule.index) != wanted:
                found.append(Obstacle(rule.index, f"{what}: this kernel ignores the write"))
    return tuple(found)
