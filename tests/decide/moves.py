"""A move from the little that a test wants to say of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from armferry.ends import UNKNOWN, Destination, End, Move, ResetKnowledge
from armferry.registers import Accelerator
from armferry.stream.description import DeviceLayout

NOWHERE = Destination({}, Accelerator.TCG)


def move_of(
    lists: Sequence[Mapping[int, int]],
    there: Destination,
    *,
    reset: Mapping[int, int] | None = None,
    fresh: bool = False,
    source: Sequence[DeviceLayout] = (),
    destination: Sequence[DeviceLayout] = (),
    contents: Sequence[Mapping[str, bytes]] = (),
    words: Sequence[int] = (),
    features: int | None = None,
    qemu: str = "",
) -> Move:
    """A guest with these lists, moved to where each vCPU finds `there`."""
    guest = End(
        "GUEST",
        tuple(lists),
        there.accelerator,
        fresh,
        guest=True,
        devices=tuple(source),
        contents=tuple(contents),
        words=tuple(words),
    )
    host = End(
        "HOST",
        (there.registers,) * len(lists),
        there.accelerator,
        there.at_reset,
        devices=tuple(destination),
        features=features,
        writable=UNKNOWN if there.writable is None else there.writable,
    )
    move = Move.between(guest, host, qemu=qemu)
    return replace(move, reset=ResetKnowledge((reset,) * len(lists)))
