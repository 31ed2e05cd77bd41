"""Bytes moved from one channel to another, unread.

Between two sockets the kernel moves them through a pipe (splice(2)); they never enter this
process. With a cipher on either side they are copied through one buffer. Knows nothing of what
is moved.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator

from armferry.gateway.channel import Channel

__all__ = ["BUFFER_SIZE", "SinkFault", "copy_all"]

BUFFER_SIZE = 256 << 10
_PIPE_SIZE = 1 << 20


class SinkFault(Exception):
    """The receiving channel failed, not the sending one; the cause is an OSError."""


def copy_all(source: Channel, sink: Channel, moved: Callable[[int], None]) -> None:
    """Moves everything that comes from `source` to `sink`, until it ends.

    Calls `moved` with the number of bytes, each time some have arrived. The sink's direction is
    left open. Raises OSError when the source fails and SinkFault when the sink does.
    """
    early = source.take_pushed_back()
    if early:
        with _sink_faults():
            sink.send((early,))
        moved(len(early))
    if source.descriptor is None or sink.descriptor is None:
        _through_buffer(source, sink, moved)
    else:
        _in_kernel(source.descriptor, sink.descriptor, moved)


def _through_buffer(source: Channel, sink: Channel, moved: Callable[[int], None]) -> None:
    buffer = memoryview(bytearray(BUFFER_SIZE))
    while count := source.receive_into(buffer):
        with _sink_faults():
            sink.send((buffer[:count],))
        moved(count)


def _in_kernel(source: int, sink: int, moved: Callable[[int], None]) -> None:
    reader, writer = os.pipe()
    try:
        with contextlib.suppress(OSError):  # beyond the user's limit for pipes the usual size does
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        while count := os.splice(source, writer, _PIPE_SIZE):
            left = count
            while left:
                with _sink_faults():
                    left -= os.splice(reader, sink, left)
            moved(count)
    finally:
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def _sink_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SinkFault(str(error)) from error
