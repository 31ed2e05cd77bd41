"""The one set of registers and values that every host of a group can give a guest.

A guest that is started with it finds the same host wherever it goes: each host hides what another
lacks, and presents the common minimum of what they say of themselves. Pure: hosts as ends in, the
baseline out, or the registers that make it impossible. Knows that a kernel lets some values be set
and not others (`values`); refuses to know how a host is made to present it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from armferry.decide.values import refusal
from armferry.ends import UNKNOWN, Destination, End
from armferry.registers import (
    Accelerator,
    Kind,
    Safer,
    describe,
    differing_fields,
    explain_value,
    name,
)

__all__ = ["Baseline", "HostPart", "Impossible", "make_baseline"]

_VECTOR_CONTROL = 0x6030_0000_0013_C090  # ZCR_EL1
_COUNTER_FREQUENCY = 0x6030_0000_0013_DF00  # CNTFRQ_EL0


@dataclass(frozen=True, slots=True)
class HostPart:
    """What one host must do: `hidden` are the registers it must not show, `changed` maps a
    register to its own value and the one to present, `vectors_off` are lengths in bits to turn off.
    """

    text: str
    hidden: tuple[int, ...]
    changed: Mapping[int, tuple[int, int]]
    vectors_off: tuple[int, ...] = ()

    @property
    def as_it_is(self) -> bool:
        """Whether a guest finds the baseline there without anything done."""
        return not (self.hidden or self.changed or self.vectors_off)


@dataclass(frozen=True, slots=True)
class Impossible:
    """A register, or what stands for one, that no value satisfies on every host."""

    index: int | None
    subject: str
    why: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.why}"


@dataclass(frozen=True, slots=True)
class Baseline:
    """`registers` is the list at reset that every host presents, ascending. `gic` is the interrupt
    controller's version, None where it is not known; `steal_time` whether hosts can account stolen
    time alike. `notes` are what was not known and so not compared.
    """

    registers: Mapping[int, int]
    hosts: tuple[HostPart, ...]
    impossible: tuple[Impossible, ...]
    gic: int | None = None
    steal_time: bool = True
    notes: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """Whether there is one."""
        return not self.impossible


def make_baseline(hosts: Sequence[End]) -> Baseline:
    """The baseline of `hosts`, which all run KVM: at least one."""
    lists = [host.cpus[0] for host in hosts]
    common = sorted(set(lists[0]).intersection(*lists[1:]))
    registers: dict[int, int] = {}
    impossible: list[Impossible] = []
    for index in common:
        value = _presented(index, hosts)
        if value is None:
            registers[index] = lists[0][index]
            impossible.append(_why_impossible(index, hosts))
        else:
            registers[index] = value
    impossible += _beside(hosts)
    lengths = _vector_lengths(hosts) if _VECTOR_CONTROL in common else None
    parts = tuple(_part(host, registers, lengths) for host in hosts)
    pages = {host.host.page_bytes for host in hosts}
    return Baseline(
        registers,
        parts,
        tuple(impossible),
        _interrupt_controller(hosts),
        len(pages - {UNKNOWN}) <= 1,
        tuple(_unknown(hosts, common)),
    )


def _presented(index: int, hosts: Sequence[End]) -> int | None:
    """The value that every host can present; None where there is none.

    Of what belongs to the guest, a host takes any value: the first host's is as good as another.
    """
    own = [host.cpus[0][index] for host in hosts]
    if len(set(own)) == 1 or not _host_decides(index):
        return own[0]
    for value in dict.fromkeys((_least(index, own), *own)):
        if all(_takes(index, value, host) for host in hosts):
            return value
    return None


def _host_decides(index: int) -> bool:
    register = describe(index)
    return register.constant or register.kind.is_firmware


def _takes(index: int, value: int, host: End) -> bool:
    return refusal(index, value, _destination(host)) is None


def _destination(host: End) -> Destination:
    return host.destinations(1)[0]


def _least(index: int, values: Sequence[int]) -> int:
    """What all of them promise."""
    if describe(index).kind is Kind.FIRMWARE_BITMAP:
        least = values[0]
        for value in values:
            least &= value
        return least
    if describe(index).kind is not Kind.IDENTIFICATION:
        return min(values)
    least = values[0]
    for value in values[1:]:
        for difference in differing_fields(index, least, value):
            left, right = difference.left, difference.right
            better = left > right
            if difference.field.safer in (Safer.HIGHER, Safer.HIGHER_OR_ZERO):
                better = left < right and right != 0
            if better:
                mask = difference.field.mask
                least = least & ~mask | value & mask
    return least


def _why_impossible(index: int, hosts: Sequence[End]) -> Impossible:
    values: dict[int, list[str]] = {}
    for host in hosts:
        values.setdefault(host.cpus[0][index], []).append(host.text)
    least = _least(index, list(values))
    parts = [
        f"{_shown(index, value, least, values)} on {', '.join(t)}" for value, t in values.items()
    ]
    fixed = [host.text for host in hosts if not _takes(index, least, host)]
    return Impossible(
        index,
        name(index, Accelerator.KVM),
        f"{'; '.join(parts)}; the kernel of {', '.join(fixed)} does not let it be set",
    )


def _shown(index: int, value: int, least: int, values: Iterable[int]) -> str:
    """A value by the fields in which the hosts differ."""
    if words := explain_value(index, value):
        return words
    fields = {
        difference.field.name: difference.field
        for one in values
        for difference in differing_fields(index, one, least)
    }
    return " ".join(f"{name} {field.of(value)}" for name, field in fields.items()) or f"{value:#x}"


def _beside(hosts: Sequence[End]) -> Iterator[Impossible]:
    """What no register list holds and nothing can change."""
    counters: dict[int, list[str]] = {}
    for host in hosts:
        if host.host.counter_hz is not UNKNOWN:
            counters.setdefault(host.host.counter_hz, []).append(host.text)
    if len(counters) > 1:
        parts = [f"{hertz / 1e6:g} MHz on {', '.join(t)}" for hertz, t in counters.items()]
        why = f"{'; '.join(parts)}: a guest's clock would run wrong, and nothing changes that"
        yield Impossible(_COUNTER_FREQUENCY, "CNTFRQ_EL0", why)
    versions = [host.host.gic for host in hosts if host.host.gic is not UNKNOWN]
    if versions and not frozenset.intersection(*versions):
        parts = [
            f"{' and '.join(f'GICv{v}' for v in sorted(host.host.gic)) or 'none'} on {host.text}"
            for host in hosts
            if host.host.gic is not UNKNOWN
        ]
        yield Impossible(None, "interrupt controller", "; ".join(parts))


def _interrupt_controller(hosts: Sequence[End]) -> int | None:
    versions = [host.host.gic for host in hosts if host.host.gic is not UNKNOWN]
    if len(versions) != len(hosts):
        return None
    return max(frozenset.intersection(*versions), default=None)


def _vector_lengths(hosts: Sequence[End]) -> frozenset[int] | None:
    """The lengths that every host has; None where one of them is not known."""
    lengths = [host.host.sve_bits for host in hosts if host.host.sve_bits is not UNKNOWN]
    return frozenset.intersection(*lengths) if len(lengths) == len(hosts) else None


def _part(host: End, registers: Mapping[int, int], lengths: frozenset[int] | None) -> HostPart:
    own = host.cpus[0]
    vectors = host.host.sve_bits
    off = () if lengths is None or vectors is UNKNOWN else tuple(sorted(vectors - lengths))
    return HostPart(
        host.text,
        tuple(sorted(own.keys() - registers.keys())),
        {
            index: (own[index], value)
            for index, value in registers.items()
            if own[index] != value and _host_decides(index)
        },
        off,
    )


def _unknown(hosts: Sequence[End], common: Sequence[int]) -> Iterator[str]:
    def of(texts: list[str], what: str) -> Iterator[str]:
        if texts:
            yield f"{what} of {', '.join(texts)} not recorded, so not compared"

    yield from of([h.text for h in hosts if h.host.counter_hz is UNKNOWN], "counter frequency")
    yield from of([h.text for h in hosts if h.host.gic is UNKNOWN], "interrupt controllers")
    if _VECTOR_CONTROL in common:
        yield from of([h.text for h in hosts if h.host.sve_bits is UNKNOWN], "vector lengths")
    yield from of([h.text for h in hosts if h.writable is UNKNOWN], "settable ID register fields")
