"""A connection that has been accepted, until it has said what it is.

Rule of this file: nothing here waits, whatever the peer does, so that one loop serves every
stranger. With TLS the handshake comes first; what a peer may send during all of it is bounded.
"""

import contextlib
import select
import socket
import ssl

from armferry.gateway.channel import Channel, SocketChannel
from armferry.gateway.channel_kind import FIRST_BYTES
from armferry.gateway.credentials import names_of
from armferry.gateway.tls import TlsChannel, Wire

__all__ = ["Greeting"]

_PIECE = 16 << 10
_MAX_WIRE = 256 << 10
"""Bytes of a handshake; one with a chain of certificates has some kilobytes."""


class Greeting:
    """The first words of `plain`, through TLS with `context`.

    Of `authorized` the certificate must name one, unless that is None. `step` whenever the socket
    is ready for `events`. Once it has returned True, `first` has what was said, fewer than
    FIRST_BYTES when the peer has ended, and `channel` is what to go on with, `first` still to be
    received from it.
    """

    def __init__(
        self,
        plain: SocketChannel,
        context: ssl.SSLContext | None = None,
        authorized: frozenset[str] | None = None,
    ) -> None:
        self.plain = plain
        self._authorized = authorized
        self.first = b""
        self.ended = False
        self._wire = Wire()
        self._cipher = (
            None
            if context is None
            else context.wrap_bio(self._wire.incoming, self._wire.outgoing, server_side=True)
        )
        self.shaken = self._cipher is None
        """Whether the TLS handshake, if there is one, has been made."""
        self._unsent = b""
        self._came = 0

    @property
    def events(self) -> int:
        """What of the socket to poll for."""
        return select.POLLOUT if self._unsent else select.POLLIN

    @property
    def channel(self) -> Channel:
        """The connection, what it has said pushed back."""
        channel: Channel = self.plain
        if self._cipher is not None:
            channel = TlsChannel(self.plain, self._cipher, self._wire)
        channel.push_back(self.first)
        return channel

    def step(self) -> bool:
        """Whether everything there is to know is known. Raises OSError (ssl.SSLError is one)."""
        if self._unsent:
            return self._send()
        data = self._receive(FIRST_BYTES - len(self.first) if self._cipher is None else _PIECE)
        if data is None:
            return False
        self.ended = not data
        if self._cipher is None:
            self.first += data
        else:
            self._came += len(data)
            self._wire.incoming.write(data)
            self._decipher(self._cipher)
            if self._came > _MAX_WIRE and not self._known:
                raise ConnectionAbortedError("much has come and no word of a migration")
            if self.ended and not self.shaken:
                raise ConnectionResetError("the peer closed the connection in the TLS handshake")
        return self._known

    @property
    def _known(self) -> bool:
        return not self._unsent and (self.ended or len(self.first) >= FIRST_BYTES)

    def _decipher(self, cipher: ssl.SSLObject) -> None:
        try:
            if not self.shaken:
                cipher.do_handshake()
                self._authorize(cipher)
                self.shaken = True
            while len(self.first) < FIRST_BYTES:
                data = cipher.read(FIRST_BYTES - len(self.first))
                if not data:
                    self.ended = True
                    break
                self.first += data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError:
            # the alert that tells the peer why; it may be read or not
            self._unsent += self._wire.outgoing.read()
            with contextlib.suppress(OSError):
                self._send()
            raise
        self._unsent += self._wire.outgoing.read()
        if self._unsent:
            self._send()

    def _authorize(self, cipher: ssl.SSLObject) -> None:
        if self._authorized is not None:
            names = names_of(cipher.getpeercert() or {})
            if not self._authorized.intersection(names):
                raise PermissionError(f"'{names[0]}' is not one of --tls-authorize")

    def _send(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            sent = self.plain.socket.send(self._unsent, socket.MSG_DONTWAIT)
            self._unsent = self._unsent[sent:]
        return self._known

    def _receive(self, count: int) -> bytes | None:
        """What has come, nothing at the end; None when nothing has."""
        try:
            return self.plain.socket.recv(count, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
