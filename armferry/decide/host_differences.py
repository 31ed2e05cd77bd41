"""What two hosts give a guest beside the register list, and what the guest notices of it.

QEMU compares none of it: the load succeeds, and the guest's clock runs wrong, or half of its
vectors is gone. Counter frequency, vector lengths, interrupt controller, the CPU itself. What is
not known of one of the two hosts is said to be unknown.
"""

from collections.abc import Iterator

from armferry.decide.circumstance import Circumstance, CircumstanceKind, Weight
from armferry.decide.risk_level import Risk
from armferry.ends import UNKNOWN, Move
from armferry.policy import AcceptedRisk
from armferry.registers import Accelerator
from armferry.registers.midr import identify, processor_list

__all__ = ["compare_hosts", "unknown_of_hosts"]

COUNTER_FREQUENCY = 0x6030_0000_0013_DF00  # CNTFRQ_EL0
VECTOR_LENGTHS = 0x6060_0000_0015_FFFF  # KVM's SVE_VLS
_MIDR = 0x6030_0000_0013_C000
_VECTOR_CONTROL = 0x6030_0000_0013_C090  # ZCR_EL1
_VECTORS = "cpu/sve"
_Z_BYTES, _Z_COUNT, _Z_FIRST_BIT = 112, 32, 128
_P_BYTES, _P_COUNT = 32, 17
"""The subsection `cpu/sve`: of each Z register the 64-bit words 2 to 15, then of each P register
and of FFR four words (target/arm/machine.c)."""
_GICS = {"arm_gic": 2, "arm_gicv3": 3}
_ITS = "arm_gicv3_its"


def compare_hosts(move: Move, accepted: AcceptedRisk) -> Iterator[Circumstance]:
    """Every difference that is known, and what it means for this guest."""
    yield from _interrupt_controller(move)
    yield from _cpu(move)
    yield from _counter(move, accepted)
    yield from _vectors(move, accepted)
    yield from _cores(move)


def unknown_of_hosts(move: Move) -> Iterator[str]:
    """What is compared where it is known, and is not known here: with of whom."""
    here, there = move.source_host, move.destination.host
    if here.counter_hz is UNKNOWN or there.counter_hz is UNKNOWN:
        yield f"the counter's frequency{_of(move, here.counter_hz, there.counter_hz)}"
    if _uses_vectors(move) and (here.sve_bits is UNKNOWN or there.sve_bits is UNKNOWN):
        yield f"the vector lengths{_of(move, here.sve_bits, there.sve_bits)}"


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
    yield _weighed(
        CircumstanceKind.COUNTER,
        _hertz(there),
        why,
        Risk.GUEST_VISIBLE,
        _accepts(accepted, COUNTER_FREQUENCY, Risk.GUEST_VISIBLE),
        "CNTFRQ_EL0",
    )


def _vectors(move: Move, accepted: AcceptedRisk) -> Iterator[Circumstance]:
    """Shorter vectors than the guest's: lossy where a register holds something beyond them."""
    there = move.destination.host.sve_bits
    if not _uses_vectors(move) or there is UNKNOWN:
        return
    longest = max(there, default=0)
    beyond = [
        (vcpu, names)
        for vcpu, parts in enumerate(move.source.contents)
        if (names := _beyond(parts.get(_VECTORS, b""), longest))
    ]
    here = move.source_host.sve_bits
    missing = sorted(here - there) if here is not UNKNOWN else []
    if not beyond and not missing:
        return
    facts = f"the destination's vectors have {_lengths(there)} bits"
    if missing:
        facts += f", the source's {', '.join(map(str, missing))} too"
    if beyond:
        vcpu, names = beyond[0]
        why = f"{facts}: {', '.join(names)} of vCPU {vcpu} hold something beyond, which is lost"
        risk = Risk.LOSSY
    elif move.source.fresh:
        words = f"{facts}; the guest never ran, so it finds the destination's"
        yield Circumstance(CircumstanceKind.VECTORS, "SVE", Weight.NOTED, words)
        return
    else:
        why = f"{facts}: nothing is in the vectors beyond, but the guest chose its length at boot"
        risk = Risk.GUEST_VISIBLE
    yield _weighed(
        CircumstanceKind.VECTORS,
        "SVE",
        why,
        risk,
        _accepts(accepted, VECTOR_LENGTHS, risk),
        "SVE_VLS",
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


def _weighed(
    kind: CircumstanceKind, subject: str, why: str, risk: Risk, accepted: bool, name: str
) -> Circumstance:
    if accepted:
        return Circumstance(kind, subject, Weight.ACCEPTED, why, risk)
    asks = f"{why}; not done unless you name it (--accept-risk {name} or {risk})"
    return Circumstance(kind, subject, Weight.REFUSED, asks, risk)


def _accepts(accepted: AcceptedRisk, index: int, risk: Risk) -> bool:
    every = accepted.lossy or (risk is Risk.GUEST_VISIBLE and accepted.guest_visible)
    return every or index in accepted.registers


def _uses_vectors(move: Move) -> bool:
    """Whether the guest has SVE: its control register is in the list."""
    return _VECTOR_CONTROL in move.source.cpus[0]


def _beyond(content: bytes, bits: int) -> tuple[str, ...]:
    """The registers of a `cpu/sve` that hold something above `bits` bits of a vector."""
    if len(content) != _Z_BYTES * _Z_COUNT + _P_BYTES * _P_COUNT:
        return ()
    z_from = max(0, (bits - _Z_FIRST_BIT) // 8)
    names = [
        f"Z{number}"
        for number in range(_Z_COUNT)
        if any(content[number * _Z_BYTES + z_from : (number + 1) * _Z_BYTES])
    ]
    at = _Z_BYTES * _Z_COUNT
    p_from = bits // 64
    names += [
        "FFR" if number == _P_COUNT - 1 else f"P{number}"
        for number in range(_P_COUNT)
        if any(content[at + number * _P_BYTES + p_from : at + (number + 1) * _P_BYTES])
    ]
    return tuple(names)


def _lengths(bits: frozenset[int]) -> str:
    return " or ".join(map(str, sorted(bits))) or "no"


def _hertz(number: int) -> str:
    if number % 1000:
        return f"{number} Hz"
    return f"{number / 1_000_000:g} MHz"


def _factor(here: int, there: int) -> str:
    ratio = there / here
    return f"{ratio:.3g} times as fast"
