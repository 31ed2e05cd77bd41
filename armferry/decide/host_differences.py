"""What two hosts give a guest beside the register list, and what the guest notices of it.

QEMU compares none of it: the load succeeds, and the guest's clock runs wrong, or half of its
vectors is gone. Counter frequency, vector lengths, interrupt controller, the CPU itself. What is
not known of one of the two hosts is said to be unknown.
"""

from collections.abc import Iterator

from armferry.decide.circumstance import Circumstance, CircumstanceKind, Weight, weighed
from armferry.decide.risk_level import Risk
from armferry.decide.vectors import compare_vectors, vector_facts
from armferry.ends import UNKNOWN, Move
from armferry.policy import AcceptedRisk
from armferry.registers import Accelerator
from armferry.registers.midr import identify, processor_list

__all__ = ["compare_hosts", "unknown_of_hosts"]

COUNTER_FREQUENCY = 0x6030_0000_0013_DF00  # CNTFRQ_EL0
_MIDR = 0x6030_0000_0013_C000
_GICS = {"arm_gic": 2, "arm_gicv3": 3}
_ITS = "arm_gicv3_its"


def compare_hosts(move: Move, accepted: AcceptedRisk) -> Iterator[Circumstance]:
    """Every difference that is known, and what it means for this guest."""
    yield from _interrupt_controller(move)
    yield from _cpu(move)
    yield from _counter(move, accepted)
    yield from compare_vectors(move, accepted)
    yield from _cores(move)


def unknown_of_hosts(move: Move) -> Iterator[str]:
    """What is compared where it is known, and is not known here: with of whom."""
    here, there = move.source_host, move.destination.host
    if here.counter_hz is UNKNOWN or there.counter_hz is UNKNOWN:
        yield f"the counter's frequency{_of(move, here.counter_hz, there.counter_hz)}"
    for what, ours, theirs in vector_facts(move):
        if ours is UNKNOWN or theirs is UNKNOWN:
            yield f"the vector lengths of {what}{_of(move, ours, theirs)}"


def _of(move: Move, here: object, there: object) -> str:
    texts = [
        end.text
        for end, fact in ((move.source, here), (move.destination, there))
        if fact is UNKNOWN
    ]
    return f" ({' and '.join(texts)})"


def _interrupt_controller(move: Move) -> Iterator[Circumstance]:
    """KVM gives what the host's hardware can; a section of the guest says what it has."""
    host = move.destination.host
    if move.destination.accelerator is not Accelerator.KVM:
        return
    for device in move.source.devices:
        version = _GICS.get(device.name)
        if version is not None and host.gic is not UNKNOWN and version not in host.gic:
            given = " and ".join(f"GICv{one}" for one in sorted(host.gic)) or "none"
            yield Circumstance(
                CircumstanceKind.GIC,
                f"GICv{version}",
                Weight.REFUSED,
                f"the guest has a GICv{version} (-machine gic-version={version}), the KVM of "
                f"{move.destination.text} cannot give one, only {given}: move the guest to a host "
                f"whose interrupt controller is a GICv{version}",
            )
        if device.name == _ITS and host.its is False:
            yield Circumstance(
                CircumstanceKind.GIC,
                "ITS",
                Weight.REFUSED,
                "the guest has an ITS (-machine its=on), the KVM of "
                f"{move.destination.text} cannot give one",
            )


def _cpu(move: Move) -> Iterator[Circumstance]:
    here, there = (end.cpus[0].get(_MIDR) for end in (move.source, move.destination))
    if here is None or there is None or here == there:
        return
    mine, theirs = identify(here), identify(there)
    if (mine.implementer, mine.part) == (theirs.implementer, theirs.part):
        words = f"another revision of the same CPU: {mine.text} -> {theirs.text}"
        yield Circumstance(CircumstanceKind.CPU, theirs.text, Weight.NOTED, words)
        return
    yield Circumstance(
        CircumstanceKind.CPU,
        theirs.text,
        Weight.NOTED,
        f"two different CPUs: {mine.text} -> {theirs.text}. A guest goes on with the workarounds "
        "for errata that its kernel chose at boot for the first, and without those that the second "
        "needs; the counter may run at another frequency",
    )


def _counter(move: Move, accepted: AcceptedRisk) -> Iterator[Circumstance]:
    here, there = move.source_host.counter_hz, move.destination.host.counter_hz
    if here is UNKNOWN or there is UNKNOWN or here == there:
        return
    facts = f"the counter runs at {_hertz(here)} here and at {_hertz(there)} on the destination"
    if move.source.fresh:
        words = f"{facts}; the guest never ran, so it reads the destination's"
        yield Circumstance(CircumstanceKind.COUNTER, _hertz(there), Weight.NOTED, words)
        return
    why = (
        f"{facts} (CNTFRQ_EL0): the guest read it at boot, so its clocks will run "
        f"{_factor(here, there)}; nothing can be sent that changes this"
    )
    yield weighed(
        CircumstanceKind.COUNTER,
        _hertz(there),
        why,
        Risk.GUEST_VISIBLE,
        COUNTER_FREQUENCY,
        accepted,
    )


def _cores(move: Move) -> Iterator[Circumstance]:
    cores = move.destination.host.cores
    if move.destination.accelerator is not Accelerator.KVM or cores is UNKNOWN or len(cores) < 2:
        return
    kinds = "; ".join(
        f"{identify(midr).text}: processors {processor_list(numbers)}"
        for midr, numbers in cores.items()
    )
    yield Circumstance(
        CircumstanceKind.CORES,
        str(len(cores)),
        Weight.NOTED,
        f"{move.destination.text} has {len(cores)} kinds of cores ({kinds}): KVM runs a guest on "
        "one kind only; start QEMU there on the processors of that kind (taskset --cpu-list), and "
        "see that the fingerprint was made on the same",
    )


def _hertz(number: int) -> str:
    if number % 1000:
        return f"{number} Hz"
    return f"{number / 1_000_000:g} MHz"


def _factor(here: int, there: int) -> str:
    ratio = there / here
    return f"{ratio:.3g} times as fast"
