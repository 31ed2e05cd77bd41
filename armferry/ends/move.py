"""A move: a source, a destination, and what is known of the source's reset values.

Made in one way only, `Move.between`, for every caller: a command, the gateway, the hook, the lab.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from armferry.ends.end import End, HostFacts
from armferry.ends.reset_knowledge import ResetKnowledge
from armferry.ends.unknown import NotKnown
from armferry.ends.vcpu import Destination, SourceFacts

__all__ = ["Move"]


@dataclass(frozen=True)
class Move:
    """What is to be moved where.

    `qemu` is the version of the destination's QEMU (`10.0.13`), `reset` what is known of the
    source's values after reset, `source_host` of what its host gives beside the lists.
    """

    source: End
    destination: End
    reset: ResetKnowledge
    qemu: str | NotKnown
    source_host: HostFacts = field(default_factory=HostFacts)

    @classmethod
    def between(
        cls, source: End, destination: End, *, host: End | None = None, qemu: str = ""
    ) -> "Move":
        """The move of `source` to `destination`.

        `host` is a fingerprint of the source's host, `qemu` the version of the destination's QEMU,
        empty to take the one that `destination` was recorded with. Raises GuestHadRun.
        """
        known = ResetKnowledge.of(source, host)
        beside = source.host
        if host is not None and not known.notes:
            beside = beside.completed_by(host.host)
        return cls(source, destination, known, qemu or destination.qemu, beside)

    @property
    def of_one_guest(self) -> bool:
        """Whether memory size, vCPUs and devices of both ends are those of a guest.

        Else they are those of a question, and a difference says nothing of the hosts.
        """
        return (self.source.guest or self.source.whole) and self.destination.whole

    @property
    def both_hosts(self) -> tuple[tuple[End, HostFacts], tuple[End, HostFacts]]:
        """Each end, the source's first, with what is known of its host beside the lists."""
        return (self.source, self.source_host), (self.destination, self.destination.host)

    @cached_property
    def lists(self) -> tuple[Mapping[int, int], ...]:
        """The register list of each vCPU of the source."""
        return self.source.cpus

    @cached_property
    def destinations(self) -> tuple[Destination, ...]:
        """What each vCPU of the guest finds on the destination."""
        return self.destination.destinations(len(self.source.cpus), self.qemu)

    @cached_property
    def facts(self) -> tuple[SourceFacts, ...]:
        """What is known of each vCPU of the source beyond its list."""
        return tuple(SourceFacts(values, self.source.fresh) for values in self.reset.values)

    @cached_property
    def differing(self) -> tuple[frozenset[int] | None, ...]:
        """For each vCPU the registers in which it differs from the first one, on either end.

        None where it lists other registers than the first: then nothing is shared.
        """
        return tuple(self._differing(vcpu) for vcpu in range(len(self.lists)))

    def _differing(self, vcpu: int) -> frozenset[int] | None:
        found: set[int] = set()
        pairs = (
            (self.lists[0], self.lists[vcpu]),
            (self.destinations[0].registers, self.destinations[vcpu].registers),
            (self.facts[0].reset, self.facts[vcpu].reset),
        )
        for first, other in pairs:
            if first is other or first == other:
                continue
            if first is None or other is None or first.keys() != other.keys():
                return None
            found.update(index for index, value in first.items() if other[index] != value)
        return frozenset(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the records themselves, in words."""
        return self.reset.notes
