"""A channel through TLS, both directions usable at once.

OpenSSL's connection object must not be used by two threads at the same time, so the cipher works
on memory under a lock and the socket is used outside of it: a sender that waits for the peer
never keeps the receiver from reading.
"""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable
from typing import Self, cast

from armferry.gateway.channel import Buffer, SocketChannel, readable

__all__ = ["TlsChannel", "Wire"]

_WIRE_BYTES = 256 << 10
_PLAIN_BYTES = 128 << 10
_PIECE = 4096


class TlsChannel:
    """TLS over a connected socket: made by `connect`, or of a handshake that has been made."""

    def __init__(self, plain: SocketChannel, cipher: ssl.SSLObject, wire: "Wire") -> None:
        self._plain = plain
        self._cipher = cipher
        # typeshed knows only the form that returns bytes
        self._read = cast(Callable[[int, memoryview], int], cipher.read)
        self._wire = wire
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._pushed_back = b""
        self._ended = False

    @classmethod
    def connect(
        cls, plain: SocketChannel, context: ssl.SSLContext, host: str, limit: float
    ) -> Self:
        """Greets the server that must call itself `host`; `limit` in seconds. Raises OSError."""
        wire = Wire()
        cipher = context.wrap_bio(wire.incoming, wire.outgoing, server_hostname=host)
        return cls._shake_hands(plain, cipher, wire, limit)

    @classmethod
    def _shake_hands(
        cls, plain: SocketChannel, cipher: ssl.SSLObject, wire: "Wire", limit: float
    ) -> Self:
        deadline = time.monotonic() + limit
        while True:
            try:
                cipher.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError:
                plain.send((wire.outgoing.read(),))  # the alert that tells the peer why
                raise
            else:
                done = True
            plain.send((wire.outgoing.read(),))
            if done:
                return cls(plain, cipher, wire)
            if not plain.wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"no TLS handshake in {limit:g} s")
            if not wire.fill(plain):
                raise ConnectionResetError("the peer closed the connection in the TLS handshake")

    @property
    def name(self) -> str:
        """Who the peer is, for messages."""
        return self._plain.name

    @property
    def descriptor(self) -> int | None:
        """None: the socket carries ciphertext."""
        return None

    @property
    def gone(self) -> bool:
        """Whether the peer has let go of both directions, so that no answer can reach it."""
        return self._plain.gone

    @property
    def version(self) -> str:
        """The protocol that was agreed on, such as TLSv1.3."""
        return self._cipher.version() or ""

    def receive_into(self, buffer: memoryview) -> int:
        """Waits for bytes; how many were put into `buffer`, 0 at the end. Raises OSError."""
        if self._pushed_back:
            count = min(len(self._pushed_back), len(buffer))
            buffer[:count] = self._pushed_back[:count]
            self._pushed_back = self._pushed_back[count:]
            return count
        while not self._ended:
            count = self._deciphered(buffer)
            if count or self._ended:
                return count
            if not self._wire.fill(self._plain):
                # QEMU up to 9.2 closes without saying goodbye; the stream itself says when it is
                # whole, so a goodbye that is missing is an end like any other
                self._ended = True
        return 0

    def _deciphered(self, buffer: memoryview) -> int:
        """Fills `buffer` from what has come and sends what the protocol answers."""
        with self._lock:
            count = self._decrypt(buffer)
            answer = self._wire.outgoing.read()
        if answer:
            with self._sending:
                self._plain.send((answer,))
        return count

    def _decrypt(self, buffer: memoryview) -> int:
        """Fills `buffer` from what has come; 0 when more must come."""
        filled = 0
        while filled < len(buffer):
            try:
                count = self._read(len(buffer) - filled, buffer[filled:])
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                count = 0
            if not count:
                self._ended = True
                break
            filled += count
        return filled

    def wait(self, seconds: float) -> bool:
        """Whether there is something to receive (an end counts), waiting no longer than this.

        Raises OSError.
        """
        deadline = time.monotonic() + seconds
        piece = memoryview(bytearray(_PIECE))
        while not self._pushed_back and not self._ended:
            # what has come may be a word of the protocol and no byte of the channel
            count = self._deciphered(piece)
            if count:
                self._pushed_back = bytes(piece[:count])
            elif not self._ended:
                if not readable(self._plain.socket, max(0.0, deadline - time.monotonic())):
                    return False
                self._ended = not self._wire.fill(self._plain)
        return True

    def push_back(self, data: bytes) -> None:
        """Makes `data` the next to be received."""
        self._pushed_back = data + self._pushed_back

    def take_pushed_back(self) -> bytes:
        """What was pushed back and not received since."""
        data, self._pushed_back = self._pushed_back, b""
        return data

    def send(self, parts: tuple[Buffer, ...]) -> None:
        """Sends every byte of `parts` in order. Raises OSError."""
        for part in parts:
            view = memoryview(part)
            for begin in range(0, len(view), _PLAIN_BYTES):
                piece = view[begin : begin + _PLAIN_BYTES]
                with self._sending:
                    with self._lock:
                        self._cipher.write(piece)  # memory takes all of it
                        wire = self._wire.outgoing.read()
                    self._plain.send((wire,))

    def finish(self) -> None:
        """Says goodbye and ends this direction; the other one goes on. Never raises."""
        try:
            with self._sending:
                with self._lock:
                    # an error only says that the peer has not said goodbye, and it need not
                    with contextlib.suppress(ssl.SSLError):
                        self._cipher.unwrap()
                    wire = self._wire.outgoing.read()
                self._plain.send((wire,))
        except OSError:
            return  # the peer is gone already, which ends the direction as well
        self._plain.finish()

    def abort(self) -> None:
        """Ends both directions at once, as a fault of the connection. Never raises."""
        self._plain.abort()

    def close(self) -> None:
        """Gives the connection back, once no thread uses it any more."""
        self._plain.close()


class Wire:
    """Ciphertext on its way between the socket and the cipher."""

    def __init__(self) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self._buffer: memoryview | None = None

    def fill(self, plain: SocketChannel) -> int:
        """Waits for ciphertext; how many bytes came, 0 at the end. Raises OSError."""
        if self._buffer is None:  # a stranger that has not shown a certificate costs less
            self._buffer = memoryview(bytearray(_WIRE_BYTES))
        count = plain.receive_into(self._buffer)
        self.incoming.write(self._buffer[:count])
        return count
