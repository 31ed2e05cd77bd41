"""A conversation between a client and a QEMU, both played by a test."""

import array
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from armferry.policy import Policy
from armferry.registers import Accelerator
from armferry.wrapper.beside.outgoing_judge import HidingJudge
from armferry.wrapper.beside.transfers import Transfers
from armferry.wrapper.relay.relay import SocketClient, converse


def _policy(machine: str, accelerator: Accelerator) -> Policy:
    return Policy()


class Rig:
    """A conversation: `client` and `qemu` are the two outer ends."""

    def __init__(self, folder: Path, *, hiding: bool) -> None:
        self.said: list[str] = []
        self.transfers = Transfers(
            folder,
            None,
            HidingJudge(_policy) if hiding else None,
            alive=lambda: True,
            notify=self.said.append,
        )
        self.client, inner_client = socket.socketpair()
        self.qemu, inner_qemu = socket.socketpair()
        for end in (self.client, self.qemu):
            end.settimeout(10)
        self.thread = threading.Thread(
            target=converse,
            args=(SocketClient(inner_client), inner_qemu, self.transfers),
            daemon=True,
        )
        self.thread.start()

    def close(self) -> None:
        self.client.close()
        self.qemu.close()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def send_with(self, descriptor: int, *messages: bytes) -> None:
        """Sends `descriptor` with the first of `messages`, and the others after it."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        self.client.sendmsg([messages[0]], rights)
        for message in messages[1:]:
            self.client.sendall(message)

    def to_qemu(self) -> tuple[dict[str, Any], list[int]]:
        """The next command that QEMU gets, and the descriptors with it."""
        space = socket.CMSG_SPACE(64)
        data, ancillary, _, _ = self.qemu.recvmsg(1 << 16, space)
        numbers = array.array("i")
        for _, _, content in ancillary:
            numbers.frombytes(content)
        return json.loads(data), list(numbers)


def receive(end: socket.socket, count: int) -> bytes:
    """The next `count` bytes."""
    data = b""
    while len(data) < count:
        more = end.recv(count - len(data))
        assert more, data
        data += more
    return data


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with contextlib.closing(Rig(tmp_path, hiding=False)) as made:
        yield made


@pytest.fixture
def hiding(tmp_path: Path) -> Iterator[Rig]:
    with contextlib.closing(Rig(tmp_path, hiding=True)) as made:
        yield made
