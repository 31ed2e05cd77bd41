"""A write that can be undone: the bytes at an offset, before and after.

A rewrite in place is a list of steps, each a list of patches: a step is on disk before the next
one begins. Knows no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Patch", "Step"]


@dataclass(frozen=True, slots=True)
class Patch:
    """What stands at `offset`; `old` is shorter than `new`, or empty, past the end of a file.

    Equal ones are written nowhere: they must be so for the rewrite to be undone or finished.
    """

    offset: int
    old: bytes
    new: bytes


Step = Sequence[Patch]
"""Patches in any order."""
