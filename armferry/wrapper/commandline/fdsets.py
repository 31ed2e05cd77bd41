"""Descriptors that QEMU was given in sets, for addresses such as `/dev/fdset/3`.

They come with `add-fd` on a monitor or on the command line, and a migration address may name them
where a file's name would stand. A set is kept for as long as QEMU keeps it: until `remove-fd`,
until a migration has used it, or until the monitor that gave it has gone. Source: QEMU's
qapi/misc.json (`add-fd`) and its manual (`-add-fd`).
"""

import fcntl
import os
from collections.abc import Iterable

from armferry.hosts.qmp.options import number_in, options_of
from armferry.option_text import keyed

__all__ = ["FdSets", "fdset_number", "given_sets"]

_PREFIX = "/dev/fdset/"


def fdset_number(path: str) -> int | None:
    """The number of the set that `path` names; None for any other path."""
    number = path.removeprefix(_PREFIX)
    return None if number == path else number_in(number)


def given_sets(words: list[str]) -> tuple[tuple[int, int], ...]:
    """(number of the set, descriptor) for each `-add-fd` of a command line."""
    found: list[tuple[int, int]] = []
    for option in options_of(words):
        if option.name == "add-fd" and option.value is not None:
            pairs = dict(keyed(option.value))
            fd, number = number_in(pairs.get("fd", "")), number_in(pairs.get("set", ""))
            if fd is not None and number is not None:
                found.append((number, fd))
    return tuple(found)


class FdSets:
    """The sets of one QEMU; it owns the descriptors it was given."""

    def __init__(self, given: Iterable[tuple[int, int]] = ()) -> None:
        self._sets: dict[int, list[int]] = {}
        for number, descriptor in given:
            self.add(number, descriptor)

    def add(self, number: int, descriptor: int) -> None:
        """Puts `descriptor` into the set `number`."""
        self._sets.setdefault(number, []).append(descriptor)

    def forget(self, number: int) -> None:
        """Closes the set `number`, if there is one."""
        for descriptor in self._sets.pop(number, ()):
            os.close(descriptor)

    def copy(self, number: int) -> int | None:
        """Another descriptor of the file of the set `number`; None when there is none.

        libvirt puts a second one beside it that bypasses the page cache: not that one, which
        takes no bytes of any length.
        """
        for descriptor in reversed(self._sets.get(number, [])):
            if not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
                return os.dup(descriptor)
        return None
