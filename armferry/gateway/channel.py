"""One connection to a QEMU: bytes each way, half-close, abort.

Every kind of channel keeps the same promises, certified by one suite of tests: `send` returns
when the kernel has taken every byte and blocks while the peer does not read; the end of the
peer's bytes is 0 from `receive_into` and does not end the other direction; `abort` from any
thread wakes one that is blocked in `receive_into` or `send`, at once, with an error or an end.
One thread may receive while another sends.
"""

import select
import socket
import struct
from typing import Protocol

__all__ = ["Buffer", "Channel", "SocketChannel", "readable"]

Buffer = bytes | bytearray | memoryview

_KEEPALIVE_IDLE = 10
_KEEPALIVE_INTERVAL = 5
_KEEPALIVE_COUNT = 4
_UNACKNOWLEDGED_LIMIT = 30_000  # milliseconds until a silent network is an error
_CREDENTIALS = struct.Struct("iii")  # struct ucred
_ABORTING_LINGER = struct.pack("ii", 1, 0)


class Channel(Protocol):
    """What a move needs of a connection."""

    @property
    def name(self) -> str:
        """Who the peer is, for messages."""

    @property
    def descriptor(self) -> int | None:
        """The socket whose bytes are the channel's own, None when they pass through a cipher."""

    @property
    def gone(self) -> bool:
        """Whether the peer has let go of both directions, so that no answer can reach it."""

    def receive_into(self, buffer: memoryview) -> int:
        """Waits for bytes; how many were put into `buffer`, 0 at the end. Raises OSError."""

    def wait(self, seconds: float) -> bool:
        """Whether there is something to receive (an end counts), waiting no longer than this.

        Raises OSError.
        """

    def push_back(self, data: bytes) -> None:
        """Makes `data` the next to be received."""

    def take_pushed_back(self) -> bytes:
        """What was pushed back and not received since."""

    def send(self, parts: tuple[Buffer, ...]) -> None:
        """Sends every byte of `parts` in order. Raises OSError."""

    def finish(self) -> None:
        """Ends this direction; the other one goes on. Never raises."""

    def abort(self) -> None:
        """Ends both directions at once, as a fault of the connection. Never raises."""

    def close(self) -> None:
        """Gives the connection back, once no thread uses it any more."""


class SocketChannel:
    """A connected stream socket as it is; takes the socket over."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        self._socket = connection
        self._name = name
        self._pushed_back = b""
        self._prepare()
        self.origin = _origin(connection)
        """Which machine or process the peer is; empty when that is unknown."""

    @property
    def name(self) -> str:
        """Who the peer is, for messages."""
        return self._name

    @property
    def descriptor(self) -> int | None:
        """The socket."""
        return self._socket.fileno()

    @property
    def socket(self) -> socket.socket:
        """The socket, for a cipher that is laid over it."""
        return self._socket

    @property
    def gone(self) -> bool:
        """Whether the peer has let go of both directions, so that no answer can reach it."""
        return _polled(self._socket, 0)

    @property
    def peer_ended(self) -> bool:
        """Whether the peer has ended its direction, though bytes of it may still wait here."""
        return _polled(self._socket, select.POLLRDHUP)

    def receive_into(self, buffer: memoryview) -> int:
        """Waits for bytes; how many were put into `buffer`, 0 at the end. Raises OSError."""
        if self._pushed_back:
            count = min(len(self._pushed_back), len(buffer))
            buffer[:count] = self._pushed_back[:count]
            self._pushed_back = self._pushed_back[count:]
            return count
        return self._socket.recv_into(buffer)

    def wait(self, seconds: float) -> bool:
        """Whether there is something to receive (an end counts), waiting no longer than this."""
        return bool(self._pushed_back) or readable(self._socket, seconds)

    def push_back(self, data: bytes) -> None:
        """Makes `data` the next to be received."""
        self._pushed_back = data + self._pushed_back

    def take_pushed_back(self) -> bytes:
        """What was pushed back and not received since."""
        data, self._pushed_back = self._pushed_back, b""
        return data

    def send(self, parts: tuple[Buffer, ...]) -> None:
        """Sends every byte of `parts` in order. Raises OSError."""
        if len(parts) == 1:
            self._socket.sendall(parts[0])
            return
        left = [memoryview(part) for part in parts if len(part)]
        while left:
            sent = self._socket.sendmsg(left)
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]

    def finish(self) -> None:
        """Ends this direction; the other one goes on. Never raises."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the peer is gone already, which ends the direction as well

    def abort(self) -> None:
        """Ends both directions at once, as a fault of the connection. Never raises."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTING_LINGER)
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # nothing is left to end

    def close(self) -> None:
        """Gives the connection back, once no thread uses it any more."""
        self._socket.close()

    def _prepare(self) -> None:
        # without O_NONBLOCK, which a Python timeout would set: the kernel's splice must block
        self._socket.settimeout(None)
        if self._socket.family in (socket.AF_INET, socket.AF_INET6):
            options = (
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_COUNT),
                (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_LIMIT),
            )
            for level, option, value in options:
                self._socket.setsockopt(level, option, value)


def readable(connection: socket.socket, seconds: float) -> bool:
    """Whether `connection` has bytes, an end or an error, waiting no longer than this."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _polled(connection: socket.socket, events: int) -> bool:
    """Whether one of `events`, an error or a hang-up is there now."""
    poll = select.poll()
    poll.register(connection, events)
    return bool(poll.poll(0))


def _origin(connection: socket.socket) -> str:
    try:
        if connection.family == socket.AF_UNIX:
            size = _CREDENTIALS.size
            pid, _, _ = _CREDENTIALS.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            )
            return f"process {pid}"
        return str(connection.getpeername()[0])
    except OSError:
        return ""  # gone already, or not connected yet
