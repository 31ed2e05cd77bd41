"""Sockets opened: where sources connect, and connections to the destination.

Knows how each form of address becomes a connected socket; refuses to know what travels on it. A
plain listener that others than this machine can reach is an error unless it is asked for.
"""

import contextlib
import errno
import ipaddress
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import time

from armferry.gateway.address import (
    Address,
    ExecAddress,
    FdAddress,
    SystemdAddress,
    TcpAddress,
    UnixAddress,
)
from armferry.gateway.channel import Channel, SocketChannel
from armferry.gateway.errors import AddressError, GatewayError, NetworkFault
from armferry.gateway.listeners import listen_tcp, listen_unix, remove_stale
from armferry.gateway.tls import TlsChannel

__all__ = ["Dialer", "ExecChannel", "Listener", "is_private"]

_FIRST_SYSTEMD_FD = 3
_CHILD_LIMIT = 10.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_QUEUE_POLL = 0.01  # seconds
_RESPITE = 0.1  # seconds until something may have been given back


class ExecChannel(SocketChannel):
    """A command's standard input and output."""

    def __init__(self, command: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                start_new_session=True,
            )
        super().__init__(ours, f"exec:{command}")

    def close(self) -> None:
        """Closes the command's input and output and waits for it, not for ever."""
        super().close()
        try:
            self._process.wait(_CHILD_LIMIT)
        except subprocess.TimeoutExpired:
            # it was started in a group of its own: the shell and what it runs
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def gone(self) -> bool:
        """Never: a command may end once it has said everything."""
        return False

    @property
    def exit_status(self) -> int | None:
        """The command's exit status, None while it runs."""
        return self._process.poll()


class Listener:
    """Where sources connect: a listening socket, or one connection that is there already.

    `plain_allowed` permits a listener without TLS that other machines can reach. Raises
    AddressError, GatewayError or NetworkFault.
    """

    def __init__(
        self, address: Address, *, encrypted: bool = False, plain_allowed: bool = False
    ) -> None:
        self.address = address
        self._listening: socket.socket | None = None
        self._single: SocketChannel | None = None
        self._own_path: str | None = None
        self._respite = 0.0  # nothing is accepted before
        try:
            self._open(address)
            if not encrypted and not plain_allowed:
                self._keep_private(address)
        except BaseException:
            self.close()
            raise

    @property
    def given(self) -> bool:
        """Whether this is one connection that was there already, and not a place to connect to."""
        return self._listening is None

    @property
    def descriptor(self) -> int | None:
        """What to poll for connections; None when none can come, for now or for good."""
        if self._listening is None or time.monotonic() < self._respite:
            return None
        return self._listening.fileno()

    def take(self) -> SocketChannel | None:
        """The next connection; None when there is none now. Raises NetworkFault."""
        if self._listening is None:
            single, self._single = self._single, None
            return single
        try:
            connection, peer = self._listening.accept()
            return SocketChannel(connection, _peer_name(peer, self.address))
        except (BlockingIOError, ConnectionAbortedError):
            return None  # the peer went away between the two calls
        except OSError as error:
            if error.errno in _EXHAUSTED:
                # it waits in the kernel; moves that end give back what it needs
                self._respite = time.monotonic() + _RESPITE
                return None
            raise NetworkFault(f"{self.address}: cannot accept: {error.strerror}") from error

    def close(self) -> None:
        """Closes what was opened and removes a socket's path."""
        if self._listening is not None:
            self._listening.close()
        if self._single is not None:
            self._single.close()
        if self._own_path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._own_path)

    def _open(self, address: Address) -> None:
        match address:
            case TcpAddress():
                self._listening = _listen_tcp(address)
                self.address = TcpAddress(address.host, self._listening.getsockname()[1])
            case UnixAddress():
                self._listening = _listen_unix(address)
                self._own_path = address.path
            case ExecAddress():
                self._single = ExecChannel(address.command)
            case FdAddress():
                self._inherit(_inherited(address.number, address))
            case SystemdAddress():
                self._inherit(_inherited(_systemd_number(address), address))
        if self._listening is not None:
            self._listening.setblocking(False)

    def _inherit(self, connection: socket.socket) -> None:
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._listening = connection
        else:
            self._single = SocketChannel(connection, str(self.address))

    def _keep_private(self, asked: Address) -> None:
        if self._listening is None or self._listening.family == socket.AF_UNIX:
            return
        if not is_private(self._listening.getsockname()[0]):
            raise GatewayError(
                f"{asked}: guest memory would travel here unencrypted and anybody could "
                "connect; give TLS credentials (--tls-listen), listen on 127.0.0.1 or a UNIX "
                "socket, or allow it with --allow-plain"
            )


class Dialer:
    """Opens connections to the destination. `context` lays TLS over them, for the server `host`.

    `limit` in seconds bounds each connection, its TLS handshake included.
    """

    def __init__(
        self,
        address: Address,
        *,
        context: ssl.SSLContext | None = None,
        host: str | None = None,
        limit: float = 10.0,
    ) -> None:
        if isinstance(address, SystemdAddress):
            raise AddressError(f"{address}: systemd opens sockets to listen on; give --connect one")
        if context is not None and host is None:
            if not isinstance(address, TcpAddress):
                raise GatewayError(
                    f"{address}: whom must the destination's certificate name? --tls-hostname NAME"
                )
            host = address.host
        self.address = address
        self._context = context
        self._host = host or ""
        self._limit = limit
        self._used = False

    @property
    def encrypted(self) -> bool:
        """Whether TLS is laid over every connection."""
        return self._context is not None

    def dial(self) -> Channel:
        """A new connection. Raises NetworkFault or AddressError."""
        try:
            plain = self._plain()
        except OSError as error:
            reason = error.strerror or error
            raise NetworkFault(f"{self.address}: cannot connect: {reason}") from error
        except UnicodeError as error:
            raise AddressError(f"{self.address}: no host can have this name") from error
        if self._context is None:
            return plain
        try:
            return TlsChannel.connect(plain, self._context, self._host, self._limit)
        except OSError as error:
            plain.close()
            raise NetworkFault(f"{self.address}: no TLS with the destination: {error}") from error

    def _connect_unix(self, connection: socket.socket, path: str) -> None:
        """A full queue is waited for: with a time limit the kernel only says that it is full."""
        deadline = time.monotonic() + self._limit
        connection.settimeout(self._limit)
        while True:
            try:
                connection.connect(path)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_QUEUE_POLL)

    def _plain(self) -> SocketChannel:
        match self.address:
            case TcpAddress(host=host, port=port):
                connection = socket.create_connection((host, port), self._limit)
                return SocketChannel(connection, str(self.address))
            case UnixAddress(path=path):
                connection = socket.socket(socket.AF_UNIX)
                try:
                    self._connect_unix(connection, path)
                except OSError:
                    connection.close()
                    raise
                return SocketChannel(connection, str(self.address))
            case ExecAddress(command=command):
                return ExecChannel(command)
            case FdAddress(number=number) if not self._used:
                self._used = True
                return SocketChannel(_inherited(number, self.address), str(self.address))
        raise NetworkFault(f"{self.address}: one connection was there and it is used already")


def is_private(host: str) -> bool:
    """Whether only this machine can connect to `host`, an address or a name. Raises NetworkFault.

    A name is private when each of its addresses is.
    """
    if not host:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NetworkFault(f"{host}: no address is known for it: {error}") from error
    addresses = (str(where[0]).partition("%")[0] for *_, where in found)
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def _listen_tcp(address: TcpAddress) -> socket.socket:
    try:
        return listen_tcp(address.host, address.port)
    except OSError as error:
        raise NetworkFault(f"{address}: cannot listen: {error.strerror}") from error
    except UnicodeError as error:
        raise AddressError(f"{address}: no host can have this name") from error


def _listen_unix(address: UnixAddress) -> socket.socket:
    try:
        remove_stale(address.path)
        return listen_unix(address.path, mode=0o600)
    except OSError as error:
        raise NetworkFault(f"{address}: cannot listen: {error.strerror or error}") from error


def _inherited(number: int, address: Address) -> socket.socket:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise AddressError(f"{address}: is no socket; a channel needs both directions")
        connection = socket.socket(fileno=number)
    except OSError as error:
        raise AddressError(f"{address}: cannot be used: {error.strerror}") from error
    if connection.type != socket.SOCK_STREAM:
        connection.detach()
        raise AddressError(f"{address}: is no stream socket")
    return connection


def _systemd_number(address: SystemdAddress) -> int:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise AddressError(f"{address}: systemd has passed no sockets to this process")
    text = os.environ.get("LISTEN_FDS", "0")
    count = int(text) if re.fullmatch("[0-9]{1,6}", text) else 0
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    if not address.name and count == 1:
        return _FIRST_SYSTEMD_FD
    if address.name in names[:count]:
        return _FIRST_SYSTEMD_FD + names.index(address.name)
    raise AddressError(f"{address}: systemd passed {count} sockets: {', '.join(names)}")


def _peer_name(peer: object, address: Address) -> str:
    if isinstance(peer, tuple):
        return str(TcpAddress(peer[0], peer[1]))
    return f"a client of {address}"
