"""What a saved state or a fingerprint holds."""

from collections.abc import Mapping
from dataclasses import dataclass

from armferry.api.ends import EndLike, opened
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.registers import name

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a state or a fingerprint.

    `vcpus` has one register list (index -> value) for each vCPU, ascending; `run_state` is QEMU's
    word for what the guest did when it was saved, empty for a fingerprint; `memory_bytes` the size
    of all blocks of guest memory, None where it is not known.
    """

    machine: str
    accelerator: str
    run_state: str
    memory_bytes: int | None
    vcpus: tuple[Mapping[int, int], ...]
    fingerprint: Fingerprint

    def registers(self, vcpu: int = 0) -> dict[str, int]:
        """The registers of one vCPU by name, in the order of their indexes."""
        accelerator = self.fingerprint.accelerator
        return {name(index, accelerator): value for index, value in self.vcpus[vcpu].items()}


def inspect(state: EndLike) -> Inspection:
    """What `state` holds. Raises ArmferryError.

    >>> inspect("atlas:6.12/neoverse-n1").registers()["PSCI_VERSION"]
    65537
    """
    subject = opened(state)
    saved = subject.saved
    return Inspection(
        machine=subject.machine,
        accelerator=subject.accelerator.value,
        run_state="" if saved is None else saved.run_state,
        memory_bytes=None if saved is None else sum(block.length for block in saved.blocks),
        vcpus=subject.lists,
        fingerprint=subject.fingerprint,
    )
