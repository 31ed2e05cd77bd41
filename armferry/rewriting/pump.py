"""A stream rewritten as it passes: from one descriptor to another, memory bounded.

Guest memory is passed on unchanged; only the device state is held until it is whole, decided and
rewritten. A refusal or a fault ends the output before the device state, so whatever reads it has
no complete guest. What was compressed is compressed again in the same way. A libvirt save image
stays one; where the output can be sought in, it is marked complete only when it is.
"""

import fcntl
import os
import stat
from collections.abc import Callable

from armferry.hosts.files.compression import compressed
from armferry.hosts.files.descriptor import write_all
from armferry.hosts.files.saved_file import Saved, StreamHead, take_head
from armferry.rewriting.errors import FerryError, WriteFault
from armferry.stream import SavedCollector, StateEdit, StreamParser, old_tail, rewrite_tail

__all__ = ["Edits", "pump"]

_CHUNK = 1 << 20

Edits = Callable[[Saved], StateEdit]
"""What becomes of a saved state; raises to refuse it."""


def pump(source: int, target: int, edits: Edits, step: Callable[[], None] | None = None) -> Saved:
    """Reads a stream or save image from `source`, writes it to `target` with its vCPUs edited.

    `step` is called after each piece. Returns the saved state as it came. Raises StreamError,
    FerryError, CompressionFault, MissingProgram, or what `edits` raises.
    """
    head = take_head(source)
    image = head.image
    mark = None if image is None else _place_of_mark(target)
    if image is not None:
        _write(target, image.header.encode(complete=mark is None) + image.body)
    with head.plain(source) as (plain, first), compressed(target, head.codec) as packed:
        saved = _carry(plain, packed, edits, head, first, step)
    if mark is not None and image is not None:
        # in this order on disk, or a power cut would leave an image that claims to be whole
        os.fsync(target)
        os.pwrite(target, image.header.encode(complete=True), mark)
    return saved


def _place_of_mark(target: int) -> int | None:
    """Where the header will stand in `target`; None when nothing can be changed there later."""
    appending = fcntl.fcntl(target, fcntl.F_GETFL) & os.O_APPEND
    if appending or not stat.S_ISREG(os.fstat(target).st_mode):
        return None
    return os.lseek(target, 0, os.SEEK_CUR)


def _carry(
    source: int,
    target: int,
    edits: Edits,
    head: StreamHead,
    first: bytes,
    step: Callable[[], None] | None,
) -> Saved:
    parser = StreamParser(origin=head.origin)
    collector = SavedCollector()
    offset = head.origin
    data = first or _read(source)
    while data:
        collector.take(parser.feed(data))
        if collector.begin < 0:
            _write(target, data)
        else:
            _write(target, data[: max(0, collector.begin - offset)])
        offset += len(data)
        if step is not None:
            step()
        data = _read(source)
    collector.take(parser.close())
    saved = Saved(collector.saved(offset), head.image, head.codec)
    tail = rewrite_tail(saved.state, edits(saved))
    old = old_tail(saved.state)
    if tail is None:
        _write(target, old.data)
    else:
        _write(target, old.data[: tail.offset - old.offset])
        _write(target, tail.data)
    return saved


def _read(source: int) -> bytes:
    try:
        return os.read(source, _CHUNK)
    except OSError as error:
        raise FerryError(f"the input cannot be read: {error.strerror}") from error


def _write(target: int, data: bytes | bytearray) -> None:
    try:
        write_all(target, memoryview(data))
    except OSError as error:
        raise WriteFault(f"the output cannot be written: {error.strerror}") from error
