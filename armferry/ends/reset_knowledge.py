"""What the source's registers held after reset, from a fingerprint of its host.

The only door to that knowledge: whatever asks for a move passes here, so a record that is not
fit for the guest is refused or left unused, and said so, everywhere alike. A wrong reset value
would make a loss look lossless.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from armferry.ends.end import End
from armferry.errors import ArmferryError

__all__ = ["GuestHadRun", "ResetKnowledge"]

_MIDR = 0x6030_0000_0013_C000


class GuestHadRun(ArmferryError):
    """A fingerprint that is to tell reset values, and was taken from a guest that ran."""


@dataclass(frozen=True, slots=True)
class ResetKnowledge:
    """Reset values for each vCPU of the source, None where none are known; and what to say.

    `notes` tell why a fingerprint that was given is not used, in words.
    """

    values: tuple[Mapping[int, int] | None, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: End, host: End | None) -> "ResetKnowledge":
        """What `host`, a fingerprint of the source's host, tells of `source`.

        Without one, a source that is itself a host recorded at reset speaks for itself. Raises
        GuestHadRun.
        """
        vcpus = range(len(source.cpus))
        if host is None:
            own = source.at_reset and not source.guest
            return cls(tuple(source.registers(vcpu) if own else None for vcpu in vcpus))
        cls.require_reset(host)
        notes = tuple(
            f"{host.text} is not used for reset values: it is of {theirs}, the source is of {ours}"
            for theirs, ours in _differences(host, source)
        )
        if notes:
            own = source.at_reset and not source.guest
            return cls(tuple(source.registers(v) if own else None for v in vcpus), notes)
        return cls(tuple(host.registers(vcpu) for vcpu in vcpus))

    @staticmethod
    def require_reset(host: End) -> None:
        """Raises GuestHadRun unless `host` was recorded at reset."""
        if not host.at_reset:
            raise GuestHadRun(
                f"{host.text}: --source-fingerprint wants values after reset, these are from a "
                "guest that had run"
            )


def _differences(host: End, source: End) -> Iterator[tuple[str, str]]:
    """What makes a record one of another sort of guest: (the record's, the source's), in words."""
    if host.accelerator is not source.accelerator:
        yield f"a guest under {host.accelerator.name}", f"one under {source.accelerator.name}"
    if host.machine and source.machine and host.machine != source.machine:
        yield f"machine type {host.machine}", f"machine type {source.machine}"
    if host.cpu and source.cpu and host.cpu != source.cpu:
        yield f"CPU {host.cpu}", f"CPU {source.cpu}"
    theirs, ours = host.cpus[0].get(_MIDR), source.cpus[0].get(_MIDR)
    if theirs is not None and ours is not None and theirs != ours:
        yield f"a CPU with MIDR_EL1 {theirs:#x}", f"one with {ours:#x}"
