"""What of a section a release of QEMU reads, and how it walks the two lists of the cpu section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from armferry.decide.layout import FEATURES
from armferry.facts import knows_device_subsection

if TYPE_CHECKING:
    # a move of two fingerprints reads no stream
    from armferry.stream.description import DeviceLayout, StructLayout

__all__ = ["parts_of", "trusts_features", "unknown_parts", "walked"]


def unknown_parts(state: StructLayout, version: str) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Subsections that a release does not know: fields around it (inner first), parent, name."""
    for field in state.fields:
        if field.struct is not None:
            for around, parent, name in unknown_parts(field.struct, version):
                yield (*around, f"{state.name}:{field.name}"), parent, name
    for part in state.subsections:
        if knows_device_subsection(version, part.name) is False:
            yield (), state.name, part.name
        else:
            yield from unknown_parts(part, version)


def parts_of(state: StructLayout) -> Iterator[tuple[str, StructLayout]]:
    """(name of the parent, subsection), in the order of the stream."""
    for part in state.subsections:
        yield state.name, part
        yield from parts_of(part)


def trusts_features(device: DeviceLayout) -> bool:
    """Whether the release takes the env.features word from the stream."""
    return any(field.name == FEATURES for field in device.state.fields)


def walked(left: list[int], right: list[int]) -> Iterator[tuple[int, bool, bool]]:
    """(index, it comes, it is here) as two cursors meet them, one on each list."""
    at = to = 0
    while at < len(left) or to < len(right):
        comes = to == len(right) or (at < len(left) and left[at] <= right[to])
        here = at == len(left) or (to < len(right) and right[to] <= left[at])
        yield (left[at] if comes else right[to]), comes, here
        at += comes
        to += here
