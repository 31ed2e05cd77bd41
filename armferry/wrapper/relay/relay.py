"""Clients of a QMP monitor and QEMU's end of it, byte for byte in both directions.

One thread for each direction of each connection. Descriptors that a client passes go on with the
bytes they came with. What QEMU says is cut into messages only to take out answers that no client
asked for, and to hold back the word that an outgoing migration has completed until a gateway has
really delivered it.
"""

import array
import contextlib
import os
import socket
import threading
from collections.abc import Mapping
from typing import Any, Protocol

from armferry.hosts.files.descriptor import write_all
from armferry.hosts.qmp.messages import Piece, Splitter, read_message
from armferry.wrapper.beside.mapped import MappedSave
from armferry.wrapper.beside.transfers import Transfers
from armferry.wrapper.relay.command_router import CommandRouter

__all__ = ["Client", "SocketClient", "StdioClient", "converse"]

_CHUNK = 64 << 10
_MAX_DESCRIPTORS = 253  # SCM_MAX_FD
_COMPLETED = b'"completed"'
_FAILED = b'"failed"'
_ENDS = (_COMPLETED, _FAILED, b'"cancelled"')


class Client(Protocol):
    """The side that sends commands."""

    def receive(self) -> tuple[bytes, tuple[int, ...]]:
        """Bytes and the descriptors that came with them; no bytes at the end."""

    def send(self, data: bytes) -> None:
        """Passes on what QEMU said. Raises OSError."""

    def close(self) -> None:
        """Ends the conversation."""

    @property
    def end_is_final(self) -> bool:
        """Whether the end of the client's commands is the end of the conversation."""


class SocketClient:
    """A client on a socket."""

    end_is_final = True

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def receive(self) -> tuple[bytes, tuple[int, ...]]:
        """Bytes and the descriptors that came with them; no bytes at the end."""
        if self._connection.family != socket.AF_UNIX:
            return self._connection.recv(_CHUNK), ()
        space = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
        data, ancillary, _, _ = self._connection.recvmsg(_CHUNK, space, socket.MSG_CMSG_CLOEXEC)
        found: list[int] = []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                found += numbers
        return data, tuple(found)

    def send(self, data: bytes) -> None:
        """Passes on what QEMU said. Raises OSError."""
        self._connection.sendall(data)

    def close(self) -> None:
        """Ends the conversation; a thread that waits in `receive` comes back."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class StdioClient:
    """The client that started QEMU, on its standard input and output."""

    end_is_final = False

    def __init__(self, reading: int = 0, writing: int = 1) -> None:
        self._reading = reading
        self._writing = writing

    def receive(self) -> tuple[bytes, tuple[int, ...]]:
        """Bytes; none at the end."""
        return os.read(self._reading, _CHUNK), ()

    def send(self, data: bytes) -> None:
        """Passes on what QEMU said. Raises OSError."""
        write_all(self._writing, data)

    def close(self) -> None:
        """Nothing to end: both belong to the process that started QEMU."""


def converse(client: Client, qemu: socket.socket, transfers: Transfers) -> None:
    """Carries one conversation until either side ends it; closes both."""
    conversation = _Conversation(client, qemu, transfers)
    speaking = threading.Thread(target=conversation.commands, daemon=True)
    speaking.start()
    conversation.answers()
    client.close()
    qemu.close()


class _Conversation:
    def __init__(self, client: Client, qemu: socket.socket, transfers: Transfers) -> None:
        self._client = client
        self._qemu = qemu
        self._transfers = transfers
        self._router = CommandRouter(transfers)
        self._lock = threading.Lock()

    # -- to QEMU

    def commands(self) -> None:
        """Client to QEMU, until the client's end."""
        splitter = Splitter()
        waiting: tuple[int, ...] = ()
        with contextlib.suppress(OSError):  # the other direction ends the conversation
            while True:
                data, descriptors = self._client.receive()
                if not data:
                    break
                waiting += descriptors
                for piece in splitter.feed(data):
                    # some clients pass descriptors ahead, with a space: they are the command's
                    self._command(piece, waiting if piece.whole else ())
                    waiting = () if piece.whole else waiting
        self._router.close()
        if self._client.end_is_final:
            with contextlib.suppress(OSError):
                self._send(splitter.close(), waiting)
                self._qemu.shutdown(socket.SHUT_WR)

    def _command(self, piece: Piece, descriptors: tuple[int, ...]) -> None:
        actions = self._router.route(piece, descriptors)
        for descriptor in descriptors:
            if not any(descriptor in action.descriptors for action in actions):
                os.close(descriptor)
        for action in actions:
            if action.answer:
                with self._lock:
                    self._client.send(action.answer)
            self._send(action.data, action.descriptors)

    def _send(self, data: bytes, descriptors: tuple[int, ...]) -> None:
        if descriptors and data:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
            sent = self._qemu.sendmsg([data], [rights])
            data = data[sent:]
        self._qemu.sendall(data)
        for descriptor in descriptors:
            os.close(descriptor)

    # -- from QEMU

    def answers(self) -> None:
        """QEMU to client, until QEMU's end."""
        splitter = Splitter()
        after_taken = False
        with contextlib.suppress(OSError):
            while data := self._qemu.recv(_CHUNK):
                passed = bytearray()
                for piece in splitter.feed(data):
                    if after_taken and not piece.whole:
                        piece = Piece(piece.data.lstrip(b"\r\n"), False)
                    after_taken = False
                    own = self._router.answered(piece.data) if piece.whole else None
                    after_taken = own == b""
                    passed += self._checked(piece) if own is None else own
                if passed:
                    with self._lock:
                        self._client.send(bytes(passed))

    def _checked(self, piece: Piece) -> bytes:
        """The piece; a migration that QEMU calls completed has failed unless it arrived."""
        carried = self._transfers.last_out
        if not piece.whole or carried is None:
            return piece.data
        if not any(word in piece.data for word in _ENDS):
            return piece.data
        message = read_message(piece.data) or {}
        if self._router.answer_awaited and "event" not in message:
            return piece.data  # about an earlier one, if about any
        match _migration_status(message):
            case "completed" if not carried.wait():
                return piece.data.replace(_COMPLETED, _FAILED)
            case "failed" | "cancelled" if isinstance(carried, MappedSave):
                self._transfers.give_up()
        return piece.data


def _migration_status(message: Mapping[str, Any]) -> str:
    """What a message says of how a migration ended; empty for any other message.

    It is the event MIGRATION or the answer to query-migrate (qapi/migration.json). Other things
    are completed too, such as a dump, whose answer has totals of its own.
    """
    about: Any = message.get("return")
    if "event" in message:
        about = message.get("data") if message["event"] == "MIGRATION" else None
    if not isinstance(about, dict) or "status" not in about or {"completed", "total"} <= set(about):
        return ""
    return str(about["status"])
