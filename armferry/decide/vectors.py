"""Vector lengths: what a guest loses or notices where the destination has others.

QEMU compares none of them. A length that the destination lacks is lossy where a vector register of
the guest holds something beyond what is left, else guest-visible: the guest chose its lengths when
it booted. Knows where the parts of `cpu` keep the vectors (target/arm/machine.c of QEMU).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

from armferry.decide.circumstance import Circumstance, CircumstanceKind, Weight, weighed
from armferry.decide.risk_level import Risk
from armferry.ends import UNKNOWN, HostFacts, Move, NotKnown
from armferry.policy import AcceptedRisk
from armferry.registers import name

__all__ = ["compare_vectors", "vector_facts"]

Lengths = frozenset[int] | NotKnown

_SVE_PART, _SME_PART = "cpu/sve", "cpu/sme"
_Z_BYTES, _Z_COUNT, _Z_FIRST_BIT = 112, 32, 128
_P_BYTES, _P_COUNT = 32, 17
"""Of each Z register the 64-bit words 2 to 15, then of each P register and of FFR four words."""
_ZA_ROWS = 256
"""The array of SME: 256 rows of 256 bytes, of which a guest sees as many as its vector has."""
_LENGTH = 0xF
_STREAMING = 1
_SVCR = 0x6030_0000_0013_DA12


@dataclass(frozen=True, slots=True)
class _Extension:
    """SVE or SME: `control` is the register with which a guest at EL1 chooses its length.

    `accepted_by` is the register by whose name another choice is accepted.
    """

    text: str
    control: int
    accepted_by: int

    def lengths(self, host: HostFacts) -> Lengths:
        found: Lengths = attrgetter(f"{self.text.lower()}_bits")(host)
        return found


_EXTENSIONS = (
    _Extension("SVE", 0x6030_0000_0013_C090, 0x6060_0000_0015_FFFF),  # ZCR_EL1, KVM's SVE_VLS
    _Extension("SME", 0x6030_0000_0013_C096, 0x6030_0000_0013_C096),  # SMCR_EL1
)


def vector_facts(move: Move) -> Iterator[tuple[str, Lengths, Lengths]]:
    """`SVE`, `SME`: those that the guest has, with their lengths here and on the destination."""
    for one in _used(move):
        yield one.text, one.lengths(move.source_host), one.lengths(move.destination.host)


def compare_vectors(move: Move, accepted: AcceptedRisk) -> Iterator[Circumstance]:
    """For each that the guest has, what it loses or notices; nothing where it is the same."""
    for one in _used(move):
        there = one.lengths(move.destination.host)
        if there is not UNKNOWN:
            yield from _compared(one, move, there, accepted)


def _used(move: Move) -> Iterator[_Extension]:
    return (one for one in _EXTENSIONS if one.control in move.source.cpus[0])


def _compared(
    one: _Extension, move: Move, there: frozenset[int], accepted: AcceptedRisk
) -> Iterator[Circumstance]:
    here = one.lengths(move.source_host)
    missing = sorted(here - there) if here is not UNKNOWN else []
    beyond = list(_beyond(one, move, there))
    changed = None if here is UNKNOWN else _changed(one, move, here, there)
    if not (missing or beyond or changed):
        return
    facts = f"the destination's {one.text} vectors have {_text(there)} bits"
    if missing:
        facts += f", the source's {', '.join(map(str, missing))} too"
    if move.source.fresh:
        words = f"{facts}; the guest never ran, so it finds the destination's"
        yield Circumstance(CircumstanceKind.VECTORS, one.text, Weight.NOTED, words)
        return
    risk = Risk.LOSSY if beyond else Risk.GUEST_VISIBLE
    if beyond:
        vcpu, names = beyond[0]
        holds = "hold" if len(names) > 1 else "holds"
        why = f"{facts}: {_shortened(names)} of vCPU {vcpu} {holds} something beyond, which is lost"
    elif changed:
        why = (
            f"{facts}: the guest's vectors have {changed[0]} bits ({name(one.control)}) and will "
            f"have {changed[1]}"
        )
    else:
        why = f"{facts}: nothing is in the vectors beyond, but the guest chose its length at boot"
    yield weighed(CircumstanceKind.VECTORS, one.text, why, risk, one.accepted_by, accepted)


def _changed(
    one: _Extension, move: Move, here: frozenset[int], there: frozenset[int]
) -> tuple[int, int] | None:
    """The length that a vCPU has now and the other one that it will have; None for the same."""
    for registers in move.lists:
        wanted = ((registers.get(one.control, 0) & _LENGTH) + 1) * 128
        now, then = (_chosen(lengths, wanted) for lengths in (here, there))
        if now != then:
            return now, then
    return None


def _chosen(lengths: frozenset[int], wanted: int) -> int:
    """What the hardware makes of a wanted length: the longest that is no longer, or the least."""
    fitting = [bits for bits in lengths if bits <= wanted]
    return max(fitting) if fitting else min(lengths, default=0)


def _beyond(
    one: _Extension, move: Move, there: frozenset[int]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Each vCPU with registers that hold something above the destination's longest vector."""
    longest = max(there, default=0)
    for vcpu, parts in enumerate(move.source.contents):
        streaming = bool(move.lists[vcpu].get(_SVCR, 0) & _STREAMING)
        names: tuple[str, ...] = ()
        if (one.text == "SME") is streaming:  # whose length the vectors have at the moment
            names = _vectors_beyond(parts.get(_SVE_PART, b""), longest)
        if one.text == "SME" and _array_beyond(parts.get(_SME_PART, b""), longest):
            names += ("ZA",)
        if names:
            yield vcpu, names


def _vectors_beyond(content: bytes, bits: int) -> tuple[str, ...]:
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


def _array_beyond(content: bytes, bits: int) -> bool:
    """Whether a `cpu/sme` holds something outside the square that `bits` bits leave of it."""
    side = bits // 8
    if len(content) != _ZA_ROWS * _ZA_ROWS:
        return False
    rows = (content[at : at + _ZA_ROWS] for at in range(0, side * _ZA_ROWS, _ZA_ROWS))
    return any(content[side * _ZA_ROWS :]) or any(any(row[side:]) for row in rows)


def _text(bits: frozenset[int]) -> str:
    return " or ".join(map(str, sorted(bits))) or "no"


def _shortened(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"
