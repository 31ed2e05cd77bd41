"""The gateway with sources and destinations played by the test: order, faults, endings."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armferry.gateway import (
    Ending,
    Judge,
    Limits,
)
from armferry.stream import StreamParser
from armferry.stream.events import RamRecord

Recorded = Callable[[str], bytes]
Carry = Callable[..., Any]
MULTIFD = b"\x11\x22\x33\x44"
LOADED = b"\x00\x01\x00\x04\x00\x00\x00\x00"
LIMIT = 20.0


def send(source: socket.socket, data: bytes) -> None:
    source.sendall(data)
    source.shutdown(socket.SHUT_WR)


def test_move_arrives_and_is_acknowledged(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    with carry(judge, destination.address) as running:
        source = running.connect()
        send(source, stream)
        assert source.recv(100) == LOADED
        assert source.recv(100) == b""
        outcome = running.outcome()
    assert bytes(destination.received[0]) == stream
    assert (outcome.ending, outcome.mode, outcome.machine) == (
        Ending.COMPLETED,
        "precopy",
        "virt-10.0",
    )
    assert outcome.bytes_forward == len(stream)
    assert outcome.bytes_back == len(LOADED)


def test_main_channel_goes_first_though_it_came_last(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    with carry(judge, destination.address) as running:
        others = []
        for number in range(4):
            others.append(running.connect())
            others[-1].sendall(MULTIFD + b"channel %d" % number)
        time.sleep(0.2)
        assert destination.received == []
        main = running.connect()
        main.sendall(stream[:1_000])
        destination.wait_for_connections(5)
        for other in others:
            other.shutdown(socket.SHUT_WR)
        send(main, stream[1_000:])
        assert running.outcome().channels == 5
    destination.wait()
    assert [bytes(one) for one in destination.received] == [
        stream,
        *(MULTIFD + b"channel %d" % number for number in range(4)),
    ]


def test_silent_channel_is_held_back_until_postcopy_is_announced(
    carry: Carry, judge: Judge, destination: Any, recorded: Recorded
) -> None:
    stream = recorded("postcopy")
    advised = stream.index(b"\x08\x00\x03\x00\x10") + 21
    with carry(judge, destination.address, keep=True) as running:
        main = running.connect()
        main.sendall(stream[: advised - 30])
        running.wait_for("began")
        destination.wait_for_connections(1)
        silent = running.connect()
        time.sleep(0.25)
        assert len(destination.connections) == 1
        main.sendall(stream[advised - 30 : advised + 200])
        running.wait_for("channel")
        silent.sendall(b"an urgent page")
        deadline = time.monotonic() + LIMIT
        while len(destination.received) < 2 or bytes(destination.received[1]) != b"an urgent page":
            assert time.monotonic() < deadline
            time.sleep(0.005)


TLS_ADVICE = (
    "the source speaks TLS, which cannot pass through unread: give the gateway the "
    "destination's credentials (--tls-listen, --tls-connect) or turn tls-creds off"
)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (
            b"\x16\x03\x01\x02\x00\x01",
            TLS_ADVICE,
        ),
        (b"GET / HTTP/1.1", "the connection is no QEMU migration stream"),
        (b"QE", "the connection ended before it said anything"),
    ],
)
def test_what_is_no_migration_never_reaches_the_destination(
    carry: Carry,
    first: bytes,
    reason: str,
    stream: bytes,
    judge: Judge,
    destination: Any,
) -> None:
    with carry(judge, destination.address) as running:
        stranger = running.connect()
        send(stranger, first)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(10) == b""
        assert running.rejections == [reason]
        assert destination.received == []
        # and the real source is served all the same
        send(running.connect(), stream)
        assert running.outcome().moved


def test_recovery_passes_unread(carry: Carry, judge: Judge, destination: Any) -> None:
    words = b"\x08\x00\x0a\x00\x09\x08mach-ram" + bytes(range(256)) * 10
    with carry(judge, destination.address) as running:
        send(running.connect(), words)
        outcome = running.outcome()
    assert outcome.mode == "recovery"
    assert bytes(destination.received[0]) == words


def test_refused_connection_ends_the_move_by_name(
    carry: Carry, stream: bytes, judge: Judge, tmp_path: Path
) -> None:
    with carry(judge, f"unix:{tmp_path}/nobody") as running:
        source = running.connect()
        source.sendall(stream[:8])
        with contextlib.suppress(ConnectionResetError):
            assert source.recv(1) == b""
        outcome = running.outcome()
    assert outcome.ending is Ending.FAILED
    assert outcome.reason == f"unix:{tmp_path}/nobody: cannot connect: No such file or directory"
    assert outcome.before_state


def test_source_that_goes_away_cancels(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    half = len(stream) // 2
    with carry(judge, destination.address) as running:
        source = running.connect()
        source.sendall(stream[:half])
        source.close()
        outcome = running.outcome()
    destination.wait()
    assert outcome.ending is Ending.CANCELLED
    assert outcome.before_state
    assert stream.startswith(bytes(destination.received[0]))


def test_destination_that_goes_away_fails_the_move(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    with carry(judge, destination.address) as running:
        source = running.connect()
        source.sendall(stream[:100])
        running.wait_for("began")
        destination.wait_for_connections(1)
        destination.connections[0].shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            source.sendall(stream[100:])
            while source.recv(100):
                pass
        outcome = running.outcome()
    assert outcome.ending is Ending.FAILED
    assert "the destination closed the connection" in outcome.reason


@pytest.mark.parametrize("answer", [b"", b"\x00\x01\x00\x04\x00\x00\x00\x01"])
def test_state_that_is_not_acknowledged_is_no_success(
    carry: Carry, answering: Carry, answer: bytes, stream: bytes, judge: Judge
) -> None:
    destination = answering(answer)
    with carry(judge, destination.address) as running:
        send(running.connect(), stream)
        outcome = running.outcome()
    destination.close()
    assert outcome.ending is Ending.FAILED
    assert outcome.reason == (
        "the destination said that it could not load the guest"
        if answer
        else "the destination closed the connection and never said that it loaded the guest; "
        "its own log tells why"
    )


def test_black_hole_ends_the_move(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    limits = Limits(stall=0.5)
    with carry(judge, destination.address, limits=limits) as running:
        source = running.connect()
        source.sendall(stream[:1_000])
        outcome = running.outcome()
    assert (outcome.ending, outcome.reason) == (Ending.FAILED, "no byte has moved for 0.5 s")


def test_single_bytes_make_no_difference(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    with carry(judge, destination.address) as running:
        source = running.connect()
        for at in range(2_000):
            source.sendall(stream[at : at + 1])
        source.sendall(stream[2_000:-3_000])
        for at in range(len(stream) - 3_000, len(stream)):
            source.sendall(stream[at : at + 1])
        source.shutdown(socket.SHUT_WR)
        assert running.outcome().ending is Ending.COMPLETED
    assert bytes(destination.received[0]) == stream


def test_slow_destination_slows_the_source(
    carry: Carry, stream: bytes, judge: Judge, tmp_path: Path
) -> None:
    """Nothing is stored on the way: the source gets no further than the sockets' buffers."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "destination"))
    server.listen()
    with carry(judge, f"unix:{tmp_path}/destination", keep=True) as running:
        source = running.connect()
        source.sendall(stream[: first_page(stream)])
        accepted, _ = server.accept()
        # pages of the first block without end
        pages = b"\0\0\0\0\0\0\x10\x22\0" * 10_000
        source.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            if select.select([], [source], [], 0.1)[1]:
                with contextlib.suppress(BlockingIOError):
                    sent += source.send(pages)
        assert sent < 8 << 20
        accepted.close()
    server.close()


def first_page(stream: bytes) -> int:
    parser = StreamParser(ram_records=True)
    events = parser.feed(stream)
    return next(e.offset + e.length for e in events if isinstance(e, RamRecord) and e.block)


def test_several_moves_at_once(carry: Carry, stream: bytes, judge: Judge, destination: Any) -> None:
    with carry(judge, destination.address, keep=True) as running:
        sources = [running.connect() for _ in range(3)]
        for source in sources:
            source.sendall(stream[:1_000])
        for source in sources:
            send(source, stream[1_000:])
        for source in sources:
            while source.recv(100):
                pass
        running.gateway.stop()
        running.outcome()
        assert len(running.outcomes) == 3
    destination.wait()
    assert [bytes(one) == stream for one in destination.received] == [True] * 3


def test_stop_lets_a_move_end_and_abort_does_not(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    with carry(judge, destination.address, keep=True) as running:
        source = running.connect()
        source.sendall(stream[:1_000])
        running.wait_for("began")
        running.gateway.stop()
        time.sleep(0.1)
        send(source, stream[1_000:])
        assert running.outcome().ending is Ending.COMPLETED
    with carry(judge, destination.address, keep=True) as running:
        source = running.connect()
        source.sendall(stream[:1_000])
        running.wait_for("began")
        running.gateway.abort("interrupted")
        outcome = running.outcome()
    assert (outcome.ending, outcome.reason) == (Ending.CANCELLED, "interrupted")


def test_commands_at_both_ends(carry: Carry, stream: bytes, judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(stream)
    listen = f"exec:cat {tmp_path}/in"
    with carry(judge, f"exec:cat > {tmp_path}/out", listen=listen) as running:
        outcome = running.outcome()
    # the stream says that there is a return path, and a file never answers on it
    assert outcome.ending is Ending.FAILED
    assert (tmp_path / "out").read_bytes() == stream


def test_inherited_sockets_at_both_ends(carry: Carry, stream: bytes, judge: Judge) -> None:
    source, inward = socket.socketpair()
    outward, sink = socket.socketpair()
    listen = f"fd:{inward.detach()}"
    with carry(judge, f"fd:{outward.detach()}", listen=listen) as running:
        received = bytearray()
        reader = threading.Thread(target=lambda: received.extend(drain(sink)), daemon=True)
        reader.start()
        send(source, stream)
        assert source.recv(100) == LOADED
        assert running.outcome().ending is Ending.COMPLETED
        reader.join(LIMIT)
    assert bytes(received) == stream


def drain(connection: socket.socket) -> bytes:
    data = b"".join(iter(lambda: connection.recv(65_536), b""))
    connection.sendall(LOADED)
    connection.close()
    return data
