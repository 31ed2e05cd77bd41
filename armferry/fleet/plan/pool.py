"""Hosts that are alike but for what is free on them, found by it."""

from collections.abc import Iterator

__all__ = ["Pool"]


class Pool:
    """Host numbers by free memory; those that hold no guest apart from the others."""

    def __init__(self) -> None:
        self._shelves = _Shelves(), _Shelves()

    def add(self, host: int, free: int, *, empty: bool) -> None:
        """A host comes in."""
        self._shelves[empty].add(host, free)

    def remove(self, host: int, free: int, *, empty: bool) -> None:
        """A host goes, with what it was added with."""
        self._shelves[empty].remove(host, free)

    def fullest_first(self, need: int, *, empty_too: bool) -> Iterator[int]:
        """Hosts that may have `need` free (the first few may have a little less)."""
        yield from self._shelves[False].fullest_first(need)
        if empty_too:
            yield from self._shelves[True].fullest_first(need)

    def emptiest_first(self, need: int) -> Iterator[int]:
        """Hosts that may have `need` free; those that hold no guest before the others."""
        yield from self._shelves[True].emptiest_first(need)
        yield from self._shelves[False].emptiest_first(need)


class _Shelves:
    """Eight shelves for each doubling of the free memory; `_filled` has a bit for each in use."""

    def __init__(self) -> None:
        self._hosts: dict[int, dict[int, None]] = {}
        self._filled = 0

    def add(self, host: int, free: int) -> None:
        shelf = _shelf(free)
        self._hosts.setdefault(shelf, {})[host] = None
        self._filled |= 1 << shelf

    def remove(self, host: int, free: int) -> None:
        shelf = _shelf(free)
        hosts = self._hosts[shelf]
        del hosts[host]
        if not hosts:
            self._filled &= ~(1 << shelf)

    def fullest_first(self, need: int) -> Iterator[int]:
        shelf = _shelf(need)
        filled = self._filled >> shelf
        while filled:
            step = (filled & -filled).bit_length() - 1
            yield from self._hosts[shelf + step]
            filled &= filled - 1

    def emptiest_first(self, need: int) -> Iterator[int]:
        shelf = _shelf(need)
        filled = self._filled >> shelf
        while filled:
            step = filled.bit_length() - 1
            yield from self._hosts[shelf + step]
            filled &= ~(1 << step)


def _shelf(free: int) -> int:
    """Rises with what is free; an overcommitted host has nothing free."""
    free = max(0, free)
    bits = free.bit_length()
    return free if bits < 4 else (bits << 3) | ((free >> (bits - 4)) & 7)
