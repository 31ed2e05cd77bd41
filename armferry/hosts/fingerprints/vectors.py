"""The vector lengths of a vCPU, asked of the QEMU that has it.

Properties `sve128` to `sve2048` and `sme128` to `sme2048` of the CPU (docs/system/arm/cpu-features
of QEMU). They are settings of the machine: no stream carries them, so a running or a paused QEMU
is the only one to tell.
"""

import contextlib
from collections.abc import Callable
from typing import Any

__all__ = ["LONGEST_VECTOR", "vector_lengths"]

LONGEST_VECTOR = 2048
"""Bits: the longest that the architecture has, a multiple of 128."""

Execute = Callable[..., Any]


def vector_lengths(
    execute: Execute, refused: type[Exception], feature: str
) -> tuple[int, ...] | None:
    """The lengths in bits that the first vCPU has of `feature`, `sve` or `sme`, ascending.

    Empty where the CPU has none of it, None where QEMU does not say. `refused` is what `execute`
    raises when QEMU says no.
    """
    with contextlib.suppress(refused, KeyError, IndexError):
        path = execute("query-cpus-fast")[0]["qom-path"]
        names = {one["name"] for one in execute("qom-list", {"path": path})}

        def has(name: str) -> bool:
            return name in names and bool(execute("qom-get", {"path": path, "property": name}))

        if not has(feature):
            return ()
        steps = range(128, LONGEST_VECTOR + 1, 128)
        return tuple(bits for bits in steps if has(f"{feature}{bits}"))
    return None
