"""One end of a QMP conversation: a command, and QEMU's answer to it.

The standard library only, for hosts with a plain Python. Knows how to ask (docs/interop/qmp-spec),
not what. A thread takes in what QEMU says at all times and passes events over, so that a caller who
is interrupted (Ctrl-C) while it waits can go on with another command.
"""

import contextlib
import os
import queue
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from json import dumps
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from armferry.errors import ArmferryError, EnvironmentFault
from armferry.hosts.qmp.messages import Splitter, read_message

__all__ = ["UNLIMITED", "CommandRefused", "Monitor", "MonitorFault", "MonitorSilent", "QmpClient"]

UNLIMITED = 8 << 30
"""Bytes per second for a migration; QEMU's own limit would make a 64 MB guest take a second."""
_PORT = re.compile(r"[0-9]{1,5}")
_CHUNK = 64 << 10
_PEER = struct.Struct("3i")  # process, user, group


class MonitorFault(EnvironmentFault):
    """A monitor that cannot be reached, or that has gone."""


class MonitorSilent(MonitorFault):
    """A monitor that does not answer in time."""


class CommandRefused(MonitorFault):
    """QEMU answered a command with an error; `reason` is what it said."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class QmpClient:
    """A client on a connected socket, which becomes its own; a context manager.

    `name` is whose monitor it is, for messages; `limit`, in seconds, bounds each command. Used by
    several threads, one command follows the other. Raises MonitorFault.
    """

    def __init__(self, connection: socket.socket, name: str, *, limit: float = 20.0) -> None:
        self.name = name
        self._connection = connection
        self._limit = limit
        self._answers: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._count = 0
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        connection.settimeout(None)
        self._reader.start()
        try:
            if "QMP" not in self._next(time.monotonic() + limit, "connecting"):
                raise MonitorFault(f"{name}: no QMP monitor answers: it speaks something else")
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """What the command returns. Raises CommandRefused, MonitorSilent or MonitorFault."""
        with self._lock:
            deadline = time.monotonic() + self._limit
            self._count += 1
            request = {"execute": command, "id": self._count}
            if arguments:
                request["arguments"] = dict(arguments)
            try:
                self._connection.sendall(dumps(request).encode() + b"\n")
            except OSError as error:
                raise MonitorFault(f"{self.name}: QEMU went away during {command}") from error
            while True:
                message = self._next(deadline, command)
                # any other is the late answer to a command that was given up
                if message.get("id") == self._count:
                    break
        if "error" in message:
            reason = str(message["error"].get("desc"))
            raise CommandRefused(f"{self.name}: {command} was refused: {reason}", reason)
        return message.get("return")

    def close(self) -> None:
        """Lets go of the monitor; the QEMU runs on."""
        with contextlib.suppress(OSError):  # QEMU has gone already
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._connection.close()

    def _read(self) -> None:
        splitter = Splitter()
        with contextlib.suppress(OSError):  # an end like any other
            while data := self._connection.recv(_CHUNK):
                for piece in splitter.feed(data):
                    message = read_message(piece.data) if piece.whole else None
                    if message is not None and "event" not in message:
                        self._answers.put(message)
        self._answers.put(None)

    def _next(self, deadline: float, what: str) -> Mapping[str, Any]:
        try:
            message = self._answers.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            raise MonitorSilent(f"{self.name}: no answer to {what} in {self._limit:g} s") from None
        if message is None:
            self._answers.put(None)  # for the next command
            raise MonitorFault(f"{self.name}: QEMU went away during {what}")
        return message


class Monitor(QmpClient):
    """The monitor at `unix:PATH` or `tcp:HOST:PORT`, of a QEMU that somebody else started.

    Raises MonitorFault, or ArmferryError for what is no address.
    """

    def __init__(self, address: str, *, limit: float = 20.0) -> None:
        super().__init__(_connected(address, limit), address, limit=limit)

    @property
    def address(self) -> str:
        """Where it is."""
        return self.name

    @property
    def program(self) -> Path | None:
        """The program that listens, as Linux tells it of a UNIX socket; None where it does not."""
        if self._connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
            return None
        try:
            told = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            program = Path(os.readlink(f"/proc/{_PEER.unpack(told)[0]}/exe"))
        except OSError:
            return None  # another user's, or of a host without /proc
        return program if program.exists() else None


def _connected(address: str, limit: float) -> socket.socket:
    kind, _, rest = address.partition(":")
    host, _, port = rest.rpartition(":")
    with contextlib.ExitStack() as stack:
        try:
            if kind == "unix" and rest:
                connection = stack.enter_context(socket.socket(socket.AF_UNIX))
                connection.settimeout(limit)
                connection.connect(rest)
            elif kind == "tcp" and _PORT.fullmatch(port) and int(port) <= 65_535:
                where = (host.strip("[]"), int(port))
                connection = stack.enter_context(socket.create_connection(where, limit))
            else:
                raise ArmferryError(
                    f"{address!r} is no QMP address; accepted: unix:PATH, tcp:HOST:PORT"
                )
        except OSError as error:
            reason = error.strerror or error
            raise MonitorFault(f"{address}: no QMP monitor answers: {reason}") from error
        stack.pop_all()
        return connection
