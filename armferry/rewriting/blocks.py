"""Blocks of guest memory left out of a saved state, on request, where nothing is in them.

Only what the guest would have had to turn on: memory tags, secure memory, and, of a guest that
never ran, KVM's page of stolen time. The rest is the guest's memory or belongs to a device that it
sees. A plain stream only; what comes of it is a file beside the one that will be written.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from armferry.decide.memory import BlockKind, kind_of_block
from armferry.errors import ArmferryError
from armferry.hosts.files.descriptor import write_all
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.fingerprints.naming import naming
from armferry.hosts.fingerprints.saved_subject import state_in
from armferry.stream import StreamParser
from armferry.stream.events import Event
from armferry.stream.left_out import Cut, cuts_of

__all__ = ["without_blocks"]

_CHUNK = 1 << 20
_ALWAYS = (BlockKind.TAGS, BlockKind.SECURE)


@contextlib.contextmanager
def without_blocks(path: Path, names: frozenset[str], folder: Path | None) -> Iterator[Path]:
    """A file with the stream of `path` without these blocks, for as long as the block lasts.

    It lies in `folder`. Raises ArmferryError for a block that may not be left out or holds
    something, and for a state that is in anything.
    """
    with FileWindow(path) as window, naming(str(path)):
        saved = state_in(window)
        if saved.image is not None or saved.codec is not None or saved.snapshot is not None:
            raise ArmferryError(
                f"{path}: a memory block is left out of a plain stream only; write one first: "
                "armferry ferry IN OUT, or unpack it"
            )
        for name in sorted(names):
            kind = kind_of_block(name)
            fresh = kind is BlockKind.STEAL_TIME and saved.state.fresh
            if kind not in _ALWAYS and not fresh:
                raise ArmferryError(
                    f"{path}: memory block {name} ({kind.value}) is not left out: only memory "
                    "tags and secure memory can be, and the stolen-time page of a guest that "
                    "never ran"
                )
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".armferry-") as made:
            at = 0
            for cut in cuts_of(_events(window, saved.state.size), names):
                if cut.filler and window.read(cut.offset + cut.length - 1, 1) != b"\0":
                    raise ArmferryError(f"{path}: a page of {', '.join(names)} is not zero")
                _copy(window, made.fileno(), at, cut)
                at = cut.offset + cut.length
            _copy(window, made.fileno(), at, Cut(saved.state.size, 0))
            os.fsync(made.fileno())
            yield Path(made.name)


def _events(window: FileWindow, size: int) -> Iterator[Event]:
    parser = StreamParser(ram_records=True)
    for at in range(0, size, _CHUNK):
        yield from parser.feed(window.read(at, min(_CHUNK, size - at)))
    yield from parser.close()


def _copy(window: FileWindow, target: int, begin: int, cut: Cut) -> None:
    """The bytes from `begin` up to a cut, then what stands in its place."""
    for at in range(begin, cut.offset, _CHUNK):
        write_all(target, window.read(at, min(_CHUNK, cut.offset - at)))
    if cut.instead:
        write_all(target, cut.instead)
