"""An image that is read: its header, its snapshots, its tables one by one.

Knows which tables there are and finds a snapshot by its name; what a number in them means,
`format` knows. Reads a `Window`, never a file.
"""

from collections.abc import Callable, Iterable
from itertools import islice

from armferry.errors import ArmferryError
from armferry.hosts.files.qcow2.format import (
    HEADER_BYTES,
    Header,
    Snapshot,
    read_header,
    read_snapshots,
)
from armferry.stream import TruncatedStream, Window

__all__ = ["Image", "NoSuchSnapshot"]

_NAMED = 20


class NoSuchSnapshot(ArmferryError):
    """A name that no snapshot of the image has, or several; the message has those there are."""


class Image:
    """A qcow2 image in `window`. Raises StreamError."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.header: Header = read_header(window.read(0, HEADER_BYTES), window.size)
        self.snapshots, self.snapshot_table_bytes = read_snapshots(window, self.header)

    @property
    def states(self) -> tuple[Snapshot, ...]:
        """The snapshots that hold a saved state."""
        return tuple(one for one in self.snapshots if one.state_size)

    def find(self, name: str) -> Snapshot:
        """The snapshot with a saved state called `name`, or with that id. Raises NoSuchSnapshot.

        A name goes before an id, as with QEMU's `-loadvm`.
        """
        for key in ("name", "id"):
            found = [one for one in self.snapshots if getattr(one, key) == name]
            if len(found) > 1:
                ids = _listed((one.id for one in found), len(found))
                raise NoSuchSnapshot(
                    f"{len(found)} snapshots have the {key} {name!r}: give one of the ids {ids}"
                )
            if found and not found[0].state_size:
                raise NoSuchSnapshot(
                    f"the snapshot {name!r} holds a disk and no saved state; {self._choice()}"
                )
            if found:
                return found[0]
        raise NoSuchSnapshot(f"there is no snapshot {name!r}; {self._choice()}")

    def only_state(self, described: Callable[[Snapshot], str]) -> Snapshot:
        """The only snapshot with a saved state. Raises NoSuchSnapshot.

        Where there are several, the message has what `described` says of each.
        """
        if len(self.states) == 1:
            return self.states[0]
        if self.states:
            raise NoSuchSnapshot(
                f"{len(self.states)} snapshots hold a saved state: give one as IMAGE#NAME: "
                f"{_listed(map(described, self.states), len(self.states))}"
            )
        raise NoSuchSnapshot(
            "no snapshot in this qcow2 image holds a saved state. QEMU keeps the state of a "
            "machine in one of its images, often in that of the UEFI variables: look at each with "
            "armferry inspect IMAGE"
        )

    def table(self, offset: int, length: int) -> bytes:
        """`length` bytes of a table at `offset`, all of them. Raises TruncatedStream."""
        data = self.window.read(offset, length)
        if len(data) < length:
            raise TruncatedStream("the qcow2 image ends within a table", offset=offset)
        return data

    def _choice(self) -> str:
        names = _listed((repr(one.name) for one in self.states), len(self.states))
        return f"those with a saved state: {names}" if names else "none here has a saved state"


def _listed(names: Iterable[str], count: int) -> str:
    """The first of `count` names, and how many there are more: an image can have 65,536."""
    first = ", ".join(islice(names, _NAMED))
    more = max(0, count - _NAMED)
    return first + (f" and {more} more: armferry inspect IMAGE lists them" if more else "")
