"""The promises of a channel, certified for every kind: half-close, backpressure, abort."""

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from armferry.gateway import connecting_context, listening_context
from armferry.gateway.channel import Channel, SocketChannel
from armferry.gateway.endpoint import ExecChannel
from armferry.gateway.greeting import Greeting
from armferry.gateway.relay_bytes import SinkFault, copy_all
from armferry.gateway.tls import TlsChannel

Credentials = Callable[[str], Path]
Pair = tuple[Channel, Channel]
KINDS = ("unix", "tcp", "tcp6", "tls1.2", "tls1.3")
LIMIT = 20.0
BLOCK = bytes(range(256)) * 4096  # 1 MiB


@contextlib.contextmanager
def running(work: Callable[[], None]) -> Iterator[threading.Thread]:
    """`work` in a thread, which must have ended when the block does; its error is ours."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    yield thread
    thread.join(LIMIT)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def plain_pair(kind: str) -> tuple[SocketChannel, SocketChannel]:
    if kind == "unix":
        ours, theirs = socket.socketpair()
    else:
        family, host = (socket.AF_INET6, "::1") if kind == "tcp6" else (socket.AF_INET, "127.0.0.1")
        with socket.create_server((host, 0), family=family) as server:
            ours = socket.create_connection(server.getsockname()[:2])
            theirs, _ = server.accept()
    return SocketChannel(ours, "ours"), SocketChannel(theirs, "theirs")


def accepted_tls(plain: SocketChannel, context: ssl.SSLContext) -> Channel:
    """The server's end, as the gateway's loop makes it."""
    greeting = Greeting(plain, context)
    deadline = time.monotonic() + LIMIT
    while not greeting.shaken:
        poll = select.poll()
        poll.register(plain.socket, greeting.events)
        assert poll.poll(LIMIT * 1000)
        assert time.monotonic() < deadline
        greeting.step()
    return greeting.channel


def tls_pair(version: str, folder: Path) -> Pair:
    ours, theirs = plain_pair("tcp")
    server, client = listening_context(folder), connecting_context(folder)
    wanted = {"tls1.2": ssl.TLSVersion.TLSv1_2, "tls1.3": ssl.TLSVersion.TLSv1_3}[version]
    server.maximum_version = client.minimum_version = client.maximum_version = wanted
    accepted: list[Any] = []
    with running(lambda: accepted.append(accepted_tls(theirs, server))):
        connected = TlsChannel.connect(ours, client, "localhost", LIMIT)
    assert connected.version == accepted[0].version == version.replace("tls", "TLSv")
    return connected, accepted[0]


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, credentials: Credentials) -> Iterator[Pair]:
    kind: str = request.param
    both = tls_pair(kind, credentials("one")) if kind.startswith("tls") else plain_pair(kind)
    yield both
    for channel in both:
        channel.close()


def receive(channel: Channel, count: int) -> bytes:
    """`count` bytes, fewer only at the end."""
    data = bytearray()
    buffer = memoryview(bytearray(64 << 10))
    while len(data) < count:
        got = channel.receive_into(buffer[: count - len(data)])
        if not got:
            break
        data += buffer[:got]
    return bytes(data)


def test_both_directions_carry_bytes_at_the_same_time(pair: Pair) -> None:
    ours, theirs = pair
    back = BLOCK[::-1]
    received: list[bytes] = []
    with (
        running(lambda: ours.send((BLOCK[:5], BLOCK[5:70_000], b"", BLOCK[70_000:]))),
        running(lambda: theirs.send((back,))),
        running(lambda: received.append(receive(ours, len(back)))),
    ):
        assert receive(theirs, len(BLOCK)) == BLOCK
    assert received == [back]


def test_half_close_ends_one_direction_only(pair: Pair) -> None:
    ours, theirs = pair
    ours.send((b"last words",))
    ours.finish()
    assert receive(theirs, 100) == b"last words"
    assert receive(theirs, 1) == b""
    theirs.send((b"and an answer",))
    theirs.finish()
    assert receive(ours, 100) == b"and an answer"
    assert receive(ours, 1) == b""


def mebibytes_in_buffers() -> int:
    """The most that the kernel lets the two ends of one TCP connection hold, in MiB."""
    most = 0
    for end in ("tcp_rmem", "tcp_wmem"):
        most += int(Path("/proc/sys/net/ipv4", end).read_text().split()[2])
    return most // len(BLOCK)


def test_sender_waits_for_a_peer_that_does_not_read(pair: Pair) -> None:
    ours, theirs = pair
    many = mebibytes_in_buffers() + 12
    sent = [0]

    def work() -> None:
        for _ in range(many):
            ours.send((BLOCK,))
            sent[0] += 1

    with running(work):
        stuck = -1
        while stuck != sent[0]:  # on a busy machine the buffers take a while to fill
            stuck = sent[0]
            time.sleep(1)
        assert stuck < many
        # the other direction does not wait
        theirs.send((b"go on",))
        assert receive(ours, 5) == b"go on"
        # a kernel may still grow a buffer, but nobody sends more than buffers hold
        assert sent[0] < many
        for _ in range(many):
            assert receive(theirs, len(BLOCK)) == BLOCK


def test_abort_wakes_a_receiver(pair: Pair) -> None:
    ours, _ = pair
    with running(lambda: ended(ours)):
        time.sleep(0.1)
        ours.abort()


def test_abort_wakes_a_sender(pair: Pair) -> None:
    ours, _ = pair

    def work() -> None:
        with pytest.raises(OSError, match=r"."):
            ours.send((BLOCK,) * 100)

    with running(work):
        time.sleep(0.3)
        ours.abort()


def test_abort_is_seen_by_the_peer(pair: Pair) -> None:
    ours, theirs = pair
    with running(lambda: ended(theirs)):
        time.sleep(0.1)
        ours.abort()
        ours.close()


def ended(channel: Channel) -> None:
    """Waits for an end or an error of the channel."""
    with contextlib.suppress(OSError):
        assert receive(channel, 1) == b""


def test_what_was_pushed_back_comes_first(pair: Pair) -> None:
    ours, theirs = pair
    theirs.send((b"hello world",))
    assert receive(ours, 5) == b"hello"
    ours.push_back(b"hello")
    assert ours.wait(0)
    assert receive(ours, 11) == b"hello world"
    ours.push_back(b"abc")
    assert ours.take_pushed_back() == b"abc"
    assert ours.take_pushed_back() == b""


def test_wait_tells_bytes_and_ends_from_silence(pair: Pair) -> None:
    ours, theirs = pair
    began = time.monotonic()
    assert not ours.wait(0.05)
    assert time.monotonic() - began > 0.04
    theirs.send((b"xy",))
    assert ours.wait(LIMIT)
    assert receive(ours, 1) == b"x"
    assert ours.wait(0)
    assert receive(ours, 1) == b"y"
    theirs.finish()
    assert ours.wait(LIMIT)
    assert receive(ours, 1) == b""


@pytest.fixture(params=KINDS)
def second_pair(request: pytest.FixtureRequest, credentials: Credentials) -> Iterator[Pair]:
    kind: str = request.param
    both = tls_pair(kind, credentials("one")) if kind.startswith("tls") else plain_pair(kind)
    yield both
    for channel in both:
        channel.close()


def test_copy_moves_everything_between_any_two_kinds(pair: Pair, second_pair: Pair) -> None:
    (source, inlet), (outlet, sink) = pair, second_pair
    moved: list[int] = []

    def copy() -> None:
        copy_all(inlet, outlet, moved.append)
        outlet.finish()

    def feed() -> None:
        source.send((BLOCK,) * 5)
        source.finish()

    inlet.push_back(b"early ")
    with running(copy), running(feed):
        assert receive(sink, 5 * len(BLOCK) + 100) == b"early " + BLOCK * 5
    assert sum(moved) == 5 * len(BLOCK) + 6


def test_copy_tells_a_failing_sink_from_a_failing_source(pair: Pair) -> None:
    source, inlet = pair
    outlet, sink = plain_pair("unix")
    sink.close()
    source.send((b"x",))
    with pytest.raises(SinkFault):
        copy_all(inlet, outlet, lambda _: None)
    outlet.close()


def test_copy_waits_with_a_slow_sink(pair: Pair) -> None:
    source, inlet = pair
    outlet, sink = plain_pair("unix")
    many = mebibytes_in_buffers() + 12
    sent = [0]

    def feed() -> None:
        for _ in range(many):
            source.send((BLOCK,))
            sent[0] += 1
        source.finish()

    with running(lambda: copy_all(inlet, outlet, lambda _: None)), running(feed):
        time.sleep(0.4)
        assert sent[0] < many
        for _ in range(many):
            assert receive(sink, len(BLOCK)) == BLOCK
    outlet.close()
    sink.close()


def test_command_is_a_channel_with_two_directions() -> None:
    channel = ExecChannel("tr a-z A-Z")
    channel.send((b"made loud",))
    channel.finish()
    assert receive(channel, 100) == b"MADE LOUD"
    channel.close()
    assert channel.exit_status == 0


def test_command_that_fails_is_told() -> None:
    channel = ExecChannel("exit 3")
    assert receive(channel, 1) == b""
    channel.close()
    assert channel.exit_status == 3


@pytest.mark.parametrize(
    ("server", "client", "host"),
    [("one", "two", "localhost"), ("one", "one", "elsewhere.example")],
    ids=["another authority", "another name"],
)
def test_certificate_that_does_not_fit_is_refused(
    server: str, client: str, host: str, credentials: Credentials
) -> None:
    ours, theirs = plain_pair("tcp")
    answering = listening_context(credentials(server))

    def answer() -> None:
        with pytest.raises(OSError, match=r"."):
            accepted_tls(theirs, answering)

    with running(answer), pytest.raises(ssl.SSLCertVerificationError):
        TlsChannel.connect(ours, connecting_context(credentials(client)), host, LIMIT)
    ours.close()
    theirs.close()


def test_client_without_a_certificate_is_refused(credentials: Credentials) -> None:
    ours, theirs = plain_pair("tcp")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(credentials("one") / "ca-cert.pem")

    def answer() -> None:
        with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            accepted_tls(theirs, listening_context(credentials("one")))
        theirs.close()

    def greet() -> None:
        # with TLS 1.3 the client has done its part before the server has looked at it
        with contextlib.suppress(OSError):
            assert receive(TlsChannel.connect(ours, context, "localhost", LIMIT), 1) == b""

    with running(answer), running(greet):
        pass
    ours.close()
    theirs.close()


def test_nothing_below_tls_1_2(credentials: Credentials) -> None:
    for context in (listening_context(credentials("one")), connecting_context(credentials("one"))):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED
