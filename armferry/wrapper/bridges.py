"""Sockets in front of files and pipes, for gateways carry sockets only.

A bridge is a thread that pours one into the other until the end; an error of the file is kept,
for whoever asks whether everything arrived.
"""

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator

from armferry.ferry.copy import write_all
from armferry.wrapper.errors import UriFault

__all__ = ["Bridge", "as_sink", "as_source", "open_sink", "open_source"]

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
        self.error: OSError | None = None
        self._pour = pour
        self._descriptor = descriptor
        self._connection = connection

    def run(self) -> None:
        """Until the end, or an error, which closes the connection and so fails the move."""
        with self._connection:
            try:
                self._pour(self._descriptor, self._connection)
                os.close(self._descriptor)
            except OSError as error:
                self.error = error


def as_source(descriptor: int, bridges: list[Bridge]) -> int:
    """A socket that `descriptor`'s bytes come from: itself, or a bridge's, added to `bridges`."""
    return _bridged(descriptor, bridges, _pour_in)


def as_sink(descriptor: int, bridges: list[Bridge]) -> int:
    """A socket whose bytes go to `descriptor`: itself, or a bridge's, added to `bridges`."""
    return _bridged(descriptor, bridges, _pour_out)


def open_source(path: str, offset: int) -> int:
    """The file `path` to read from `offset` on. Raises UriFault."""
    with _file_faults(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(descriptor, offset, os.SEEK_SET)
        return descriptor


def open_sink(path: str, offset: int) -> int:
    """The file `path` to write from `offset` on, what was there gone. Raises UriFault."""
    with _file_faults(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(descriptor, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)
        return descriptor


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
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return descriptor
    except OSError as error:
        raise UriFault(f"fd:{descriptor}: {error.strerror}") from error
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
