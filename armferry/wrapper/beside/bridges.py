"""Sockets in front of files and pipes, for gateways carry sockets only.

A bridge is a thread that pours one into the other until the end; what went wrong is kept, for
the caller that asks whether everything arrived.
"""

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator

from armferry.errors import ArmferryError
from armferry.hosts.files.descriptor import write_all
from armferry.wrapper.errors import UriFault

__all__ = [
    "Bridge",
    "as_sink",
    "as_source",
    "at_offset",
    "bridged",
    "open_sink",
    "open_source",
]

_CHUNK = 1 << 20


class Bridge(threading.Thread):
    """Pours `descriptor` into `connection` or the other way, and closes both."""

    def __init__(
        self,
        pour: Callable[[int, socket.socket], None],
        descriptor: int,
        connection: socket.socket,
    ) -> None:
        super().__init__(daemon=True)
        self.error = ""
        self._pour = pour
        self._descriptor = descriptor
        self._connection = connection

    def run(self) -> None:
        """Until the end, or an error, which closes the connection and so fails the move."""
        with self._connection:
            try:
                self._pour(self._descriptor, self._connection)
            except ArmferryError as error:
                self.error = str(error)
            except OSError as error:
                self.error = error.strerror or str(error)
            try:
                os.close(self._descriptor)  # some file systems tell of a failed write only now
            except OSError as error:
                self.error = self.error or error.strerror or str(error)


def as_source(descriptor: int, bridges: list[Bridge]) -> int:
    """A socket that `descriptor`'s bytes come from: itself, or a bridge's, added to `bridges`."""
    return _bridged(descriptor, bridges, _pour_in)


def as_sink(descriptor: int, bridges: list[Bridge]) -> int:
    """A socket whose bytes go to `descriptor`: itself, or a bridge's, added to `bridges`."""
    return _bridged(descriptor, bridges, _pour_out)


def open_source(path: str) -> int:
    """The file `path` to read. Raises UriFault."""
    with _file_faults(path):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def at_offset(descriptor: int, offset: int, path: str, *, emptied: bool = False) -> int:
    """`descriptor`, which is the file `path`, to go on at `offset`, what follows gone if it is
    to be `emptied`. Raises UriFault."""
    try:
        with _file_faults(path):
            if emptied:
                os.ftruncate(descriptor, offset)
            os.lseek(descriptor, offset, os.SEEK_SET)
    except UriFault:
        os.close(descriptor)
        raise
    return descriptor


def open_sink(path: str) -> int:
    """The file `path` to read and write. Raises UriFault."""
    with _file_faults(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _file_faults(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UriFault(f"file:{path}: {error.strerror}") from error


def _bridged(
    descriptor: int, bridges: list[Bridge], pour: Callable[[int, socket.socket], None]
) -> int:
    try:
        # O_NONBLOCK belongs to the open file, which is shared with who passed it: clear it
        os.set_blocking(descriptor, True)
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return descriptor
    except OSError as error:
        raise UriFault(f"fd:{descriptor}: {error.strerror}") from error
    return bridged(descriptor, bridges, pour)


def bridged(
    descriptor: int, bridges: list[Bridge], pour: Callable[[int, socket.socket], None]
) -> int:
    """A socket whose other end a bridge, added to `bridges`, serves with `pour`."""
    ours, theirs = socket.socketpair()
    bridge = Bridge(pour, descriptor, ours)
    bridge.start()
    bridges.append(bridge)
    return theirs.detach()


def _pour_in(descriptor: int, connection: socket.socket) -> None:
    while data := os.read(descriptor, _CHUNK):
        connection.sendall(data)


def _pour_out(descriptor: int, connection: socket.socket) -> None:
    while data := connection.recv(_CHUNK):
        write_all(descriptor, data)
