"""A write that can be undone: the bytes at an offset, before and after.

A rewrite in place is a list of steps, each a list of patches: a step is on disk before the next
one begins. Knows no file.
"""

from collections.abc import Iterator, Sequence
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

    def overlaps(self, begin: int, end: int) -> bool:
        """Whether it has a byte from `begin` to `end`."""
        length = max(len(self.old), len(self.new))
        return self.offset < end and begin < self.offset + length

    def covering(self, at: int) -> Iterator[bytes]:
        """Of old and new those that have a byte at offset `at`."""
        return (data for data in (self.old, self.new) if 0 <= at - self.offset < len(data))


Step = Sequence[Patch]
"""Patches in any order."""
