"""Strangers who can connect and mean harm: silence, floods, destinations that take nobody."""

import contextlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armferry.gateway import (
    Dialer,
    Ending,
    Gateway,
    Judge,
    Limits,
    Listener,
    Log,
    connecting_context,
    listening_context,
    parse_address,
)
from armferry.gateway import gateway as loop
from armferry.gateway.budget import Budget
from armferry.gateway.channel import Channel
from armferry.gateway.credentials import names_of
from armferry.gateway.errors import NetworkFault, OversizedState

Carry = Callable[..., Any]
Credentials = Callable[[str], Path]
MULTIFD = b"\x11\x22\x33\x44"
LIMIT = 20.0


def send(source: socket.socket, data: bytes) -> None:
    source.sendall(data)
    source.shutdown(socket.SHUT_WR)


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def gone(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_silence_is_not_waited_for_longer_than_the_limit(
    carry: Carry, judge: Judge, destination: Any
) -> None:
    with carry(judge, destination.address, limits=Limits(connect=0.3), keep=True) as running:
        assert gone(running.connect())
        assert running.rejections == ["the connection is no QEMU migration stream"]


@pytest.mark.parametrize("first", [b"", MULTIFD], ids=["silent", "further channels"])
def test_the_longest_silence_gives_up_its_place(
    first: bytes,
    carry: Carry,
    stream: bytes,
    judge: Judge,
    destination: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "_MOST_WAITING", 8)
    with carry(judge, destination.address) as running:
        strangers = [running.connect() for _ in range(8)]
        for stranger in strangers:
            stranger.sendall(first)
        until(lambda: len(running.gateway._arrivals) == 8)
        send(running.connect(), stream)
        assert running.outcome().ending is Ending.COMPLETED
        assert gone(strangers[0])
    assert running.rejections[0] == (
        "8 connections wait for a main channel, and this one the longest"
    )


def test_silent_connections_cost_no_thread(carry: Carry, judge: Judge, destination: Any) -> None:
    with carry(judge, destination.address, keep=True) as running:
        before = threading.active_count()
        for _ in range(100):  # as many as the kernel lets wait
            running.connect()
        until(lambda: len(running.gateway._arrivals) == 100)
        assert threading.active_count() == before


def test_the_loop_rests_while_everybody_is_silent(
    carry: Carry, judge: Judge, destination: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted: with five hundred turns a second and as many connections a core would be gone."""
    turns: list[float] = []
    turn = Gateway._turn

    def counted(gateway: Gateway) -> None:
        turns.append(time.monotonic())
        turn(gateway)

    monkeypatch.setattr(Gateway, "_turn", counted)
    with carry(judge, destination.address, keep=True) as running:
        for _ in range(20):
            running.connect()
        until(lambda: len(running.gateway._arrivals) == 20)
        turns.clear()
        time.sleep(1.0)
        seconds = time.monotonic() - turns[0] if turns else 1.0
        assert len(turns) <= 3 * seconds + 3


class OneBlocks(Dialer):
    """The first connection is not made before `free` is set."""

    def __init__(self, to: str) -> None:
        super().__init__(parse_address(to))
        self.free = threading.Event()
        self.dials = 0

    def dial(self) -> Channel:
        self.dials += 1
        if self.dials == 1 and not self.free.wait(LIMIT):
            raise NetworkFault("nobody took it")
        return super().dial()


def test_destination_that_takes_nobody_holds_up_no_other_move(
    tmp_path: Path, stream: bytes, judge: Judge, destination: Any
) -> None:
    dialer = OneBlocks(destination.address)
    listener = Listener(parse_address(f"unix:{tmp_path}/gateway"))
    gateway = Gateway(listener, dialer, judge, keep=True, log=Log())
    serving = threading.Thread(target=gateway.run, daemon=True)
    serving.start()
    sources = []
    for _ in range(2):
        source = socket.socket(socket.AF_UNIX)
        source.settimeout(LIMIT)
        source.connect(f"{tmp_path}/gateway")
        sources.append(source)
        source.sendall(stream[:100])
        until(lambda: dialer.dials == len(sources))
    send(sources[1], stream[100:])
    assert sources[1].recv(100) == b"\x00\x01\x00\x04\x00\x00\x00\x00"
    # and an operator who has had enough need not wait for the connection either
    gateway.abort("interrupted")
    serving.join(LIMIT)
    assert not serving.is_alive()
    dialer.free.set()
    listener.close()
    for source in sources:
        source.close()


def test_no_thread_for_a_move_ends_that_move_alone(
    carry: Carry, stream: bytes, judge: Judge, destination: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = threading.Thread.start
    refused: list[str] = []

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("move 1 ") and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with carry(judge, destination.address, keep=True) as running:
        first = running.connect()
        first.sendall(stream[:100])
        assert gone(first)
        second = running.connect()
        send(second, stream)
        assert second.recv(100) == b"\x00\x01\x00\x04\x00\x00\x00\x00"
    assert refused


def test_all_moves_together_hold_no_more_than_the_budget(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    budget = Budget(total=10_000)
    with carry(judge, destination.address, keep=True, budget=budget) as running:
        begin = stream.rindex(b"\0\0\0\0\0\0\0\x10\x7e") + 13
        first, second = running.connect(), running.connect()
        first.sendall(stream[: begin + 6_000])
        until(lambda: budget.held > 5_000)
        second.sendall(stream[: begin + 6_000])
        assert gone(second)
        until(lambda: "more than 10000 bytes of device state" in running.log.getvalue())
        assert first.getpeername()  # goes on
        first.close()
        until(lambda: budget.held == 0)


def test_share_of_a_budget_is_given_back() -> None:
    budget = Budget(total=10)
    one, other = budget.share(), budget.share()
    one.hold(6)
    one.hold(3)
    with pytest.raises(OversizedState) as error:
        other.hold(5)
    assert str(error.value) == (
        "all moves together would hold more than 10 bytes of device state; try again when "
        "another one has ended, or raise --state-total"
    )
    one.give_back()
    other.hold(10)
    assert budget.held == 10


CERTIFICATE = {
    "subject": (
        (("countryName", "GB"),),
        (("organizationName", "Example"),),
        (("commonName", "host1"),),
    )
}


def test_a_certificate_is_named_as_qemu_names_it() -> None:
    assert names_of(CERTIFICATE) == ("C=GB,O=Example,CN=host1", "CN=host1,O=Example,C=GB", "host1")
    assert names_of({}) == ("", "")


@pytest.mark.parametrize(("name", "welcome"), [("localhost", True), ("another", False)])
def test_who_may_send_is_named(
    name: str,
    welcome: bool,
    carry: Carry,
    stream: bytes,
    judge: Judge,
    destination: Any,
    credentials: Credentials,
) -> None:
    folder = credentials("one")
    names = frozenset({_common_name(folder)} if welcome else {name})
    options = {"context": listening_context(folder), "authorized": names}
    with carry(judge, destination.address, listen="tcp:127.0.0.1:0", keep=True, **options) as one:
        plain = socket.create_connection(("127.0.0.1", one.listener.address.port), LIMIT)
        # the one who is not welcome may find the connection closed at any of these
        with contextlib.nullcontext() if welcome else contextlib.suppress(OSError):
            client = connecting_context(folder).wrap_socket(plain, server_hostname="localhost")
            client.sendall(stream)
        if welcome:
            until(lambda: [len(came) for came in destination.received] == [len(stream)])
            assert one.rejections == []
            client.close()
        else:
            until(lambda: one.rejections)
            assert one.rejections[0].endswith("is not one of --tls-authorize")
            assert destination.received == []
            plain.close()


def _common_name(folder: Path) -> str:
    context = ssl.create_default_context(cafile=str(folder / "ca-cert.pem"))
    decoded: Any = ssl._ssl._test_decode_cert(str(folder / "client-cert.pem"))  # type: ignore[attr-defined]
    assert context
    return names_of(decoded)[-1]


def test_handshake_that_never_comes(
    carry: Carry, judge: Judge, destination: Any, credentials: Credentials
) -> None:
    options = {"context": listening_context(credentials("one")), "limits": Limits(connect=0.2)}
    with carry(judge, destination.address, keep=True, **options) as running:
        assert gone(running.connect())
        assert running.rejections == ["no TLS handshake in 0.2 s"]


def test_lines_of_moves_that_end_together_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("a", encoding="utf-8") as file:
        log = Log(file)

        def write() -> None:
            for _ in range(200):
                log.write("ended", text="x" * 5_000)

        writers = [threading.Thread(target=write) for _ in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(LIMIT)
    lines = path.read_text().splitlines()
    assert len(lines) == 1_600
    assert all(len(json.loads(line)["text"]) == 5_000 for line in lines)
    assert os.path.getsize(path) > 8_000_000
