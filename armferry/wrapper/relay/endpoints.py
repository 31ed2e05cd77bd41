"""Where monitors are met: the client's address and QEMU's private socket, opened before QEMU runs.

For each way in which a monitor may stand on the command line: QEMU listens for clients, QEMU
connects to one, or the client is the process that started QEMU. Opened in the process that becomes
QEMU, so that names, descriptors and permissions are the ones that QEMU would have had.
"""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

from armferry.gateway.listeners import listen_tcp, listen_unix, remove_socket
from armferry.wrapper.beside.process_end import Life
from armferry.wrapper.beside.transfers import Transfers
from armferry.wrapper.commandline.monitors import MeetingPoint, Role
from armferry.wrapper.relay.relay import Client, SocketClient, StdioClient, converse

__all__ = ["Endpoint"]

_TICK = 0.005
_PATIENCE = 60.0


class Endpoint:
    """One monitor that is served. Raises OSError when the client's address cannot be opened.

    `path` is the private socket: QEMU listens there or, when it connects by itself, finds this
    endpoint listening.
    """

    def __init__(self, meeting: MeetingPoint, path: Path) -> None:
        self._meeting = meeting
        self.path = path
        self._outside: socket.socket | None = None
        self._inside: socket.socket | None = None
        self._own_path = ""
        self._thread: threading.Thread | None = None
        match meeting.role:
            case Role.LISTEN:
                self._outside = self._listening()
            case Role.CONNECT:
                self._outside = self._connected()
                self._inside = listen_unix(str(path))
            case Role.STDIO:
                self._inside = listen_unix(str(path))

    @property
    def standard_streams(self) -> bool:
        """Whether standard input and output are this monitor's."""
        return self._meeting.role is Role.STDIO

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What it needs to keep open."""
        return tuple(one.fileno() for one in (self._outside, self._inside) if one is not None)

    def serve(self, transfers: Transfers, life: Life) -> None:
        """Serves one client after the other, in a thread of its own."""
        self._thread = threading.Thread(target=self._serve, args=(transfers, life), daemon=True)
        self._thread.start()

    def finish(self, limit: float) -> None:
        """QEMU has gone: waits until its last words have reached the client."""
        if self._thread is not None:
            self._thread.join(limit)

    def remove(self) -> None:
        """Removes the path that clients came to."""
        if self._own_path:
            with contextlib.suppress(OSError):
                os.unlink(self._own_path)

    # -- opened before QEMU runs

    def _listening(self) -> socket.socket:
        meeting = self._meeting
        if meeting.number >= 0:
            return socket.socket(fileno=meeting.number)
        if meeting.path:
            if not meeting.path.startswith("\0"):
                self._own_path = os.path.abspath(meeting.path)
            remove_socket(meeting.path)
            return listen_unix(meeting.path)
        return listen_tcp(meeting.host, meeting.port)

    def _connected(self) -> socket.socket:
        meeting = self._meeting
        if meeting.number >= 0:
            return socket.socket(fileno=meeting.number)
        if meeting.path:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(meeting.path)
            return connection
        return socket.create_connection((meeting.host or "localhost", meeting.port))

    # -- served while QEMU runs

    def _serve(self, transfers: Transfers, life: Life) -> None:
        while True:
            met = self._met(life)
            if met is None:
                return
            converse(*met, transfers)

    def _met(self, life: Life) -> tuple[Client, socket.socket] | None:
        """The next client and QEMU's end for it; None when QEMU has gone."""
        if self._meeting.role is Role.LISTEN:
            assert self._outside is not None
            client = life.accept(self._outside)
            qemu = None if client is None else self._to_qemu(life)
            if client is None or qemu is None:
                return None
            return SocketClient(client), qemu
        assert self._inside is not None
        while True:
            qemu = life.accept(self._inside)
            if qemu is None:
                return None
            if self._meeting.role is Role.STDIO:
                return StdioClient(), qemu
            found = self._again()
            if found is not None:
                return SocketClient(found), qemu
            qemu.close()  # QEMU tries again, if its options say so

    def _to_qemu(self, alive: Life) -> socket.socket | None:
        """A connection to QEMU's monitor; None when QEMU has gone."""
        deadline = time.monotonic() + _PATIENCE
        while alive() and time.monotonic() < deadline:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self.path))
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                time.sleep(_TICK)
                continue
            return connection
        return None

    def _again(self) -> socket.socket | None:
        """The connection made at first; afterwards, a new one; None when nobody listens."""
        first, self._outside = self._outside, None
        if first is not None:
            return first
        try:
            return self._connected()
        except OSError:
            return None
