"""A gateway that goes on: retries, several moves, signals, faults of those who listen to it."""

import contextlib
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from armferry.gateway import Ending, Judge, Limits, Listener, Log, TransferReport
from armferry.gateway.address import TcpAddress, UnixAddress
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import Fingerprint, dump
from armferry.policy import aggregate

Carry = Callable[..., Any]
Recorded = Callable[[str], bytes]
MULTIFD = b"\x11\x22\x33\x44"
RELEASES = ("10.0.2", "11.1.3")
LIMIT = 20.0


def send(source: socket.socket, data: bytes) -> None:
    source.sendall(data)
    source.shutdown(socket.SHUT_WR)


def until(reached: Callable[[], bool], log: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + LIMIT
    while not reached():
        assert time.monotonic() < deadline, log()
        time.sleep(0.005)


def ended_more_than(running: Any, count: int) -> bool:
    return bool(running.log.getvalue().count('"ended"') > count)


def test_channel_of_an_attempt_that_was_given_up_never_joins_the_next(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    """The source's main channel never came; its multifd channel waits with its first packet."""
    with carry(judge, destination.address) as running:
        left_over = running.connect()
        left_over.sendall(MULTIFD + b"first packet")
        time.sleep(0.2)
        left_over.close()
        until(lambda: running.rejections == ["its source has gone"], running.log.getvalue)
        send(running.connect(), stream)
        assert running.outcome().channels == 1
    destination.wait()
    assert [bytes(one) for one in destination.received] == [stream]


def test_channels_of_two_moves_go_where_their_main_channels_went(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    """Two machines move a guest at once; the later main channel does not take all that follow."""
    with carry(judge, destination.address, keep=True, listen="tcp:127.0.0.1:0") as running:
        port = running.listener.address.port

        def connect(host: str) -> socket.socket:
            source = socket.create_connection(("127.0.0.1", port), LIMIT, (host, 0))
            source.settimeout(LIMIT)
            return source

        mains = []
        for host in ("127.0.0.2", "127.0.0.3"):
            mains.append(connect(host))
            mains[-1].sendall(stream[:1_000])
            destination.wait_for_connections(len(mains))
        extra = connect("127.0.0.2")
        extra.sendall(MULTIFD + b"of the first")
        destination.wait_for_connections(3)
        extra.shutdown(socket.SHUT_WR)
        for main in mains:
            send(main, stream[1_000:])
        until(lambda: len(running.gateway.transfers) == 0)
        running.gateway.stop()
        running.outcome()
    channels = {one.number: one.channels for one in running.outcomes}
    assert channels == {1: 2, 2: 1}


def test_connections_that_wait_for_nothing_are_bounded(
    carry: Carry, stream: bytes, judge: Judge, destination: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that never opens its main channel cannot fill this machine, nor stop another."""
    monkeypatch.setattr("armferry.gateway.gateway._MOST_WAITING", 8)
    with carry(judge, destination.address) as running:
        waiting = []
        for _ in range(12):
            waiting.append(running.connect())
            with contextlib.suppress(BrokenPipeError):  # turned away before it said anything
                waiting[-1].sendall(MULTIFD)
            time.sleep(0.05)
        until(lambda: len(running.rejections) == 4, running.log.getvalue)
        assert set(running.rejections) == {
            "8 connections wait for a main channel, and this one the longest"
        }
        for one in waiting:
            one.close()
        until(lambda: len(running.rejections) == 12, running.log.getvalue)
        send(running.connect(), stream)
        assert running.outcome().ending is Ending.COMPLETED


def test_stop_still_takes_the_channels_of_a_move_that_runs(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    with carry(judge, destination.address, keep=True) as running:
        main = running.connect()
        main.sendall(stream[:1_000])
        running.wait_for("began")
        running.gateway.stop()
        stranger = running.connect()
        stranger.sendall(stream[:1_000])
        until(lambda: running.rejections != [], running.log.getvalue)
        assert running.rejections == ["the gateway ends and takes no new move"]
        late = running.connect()
        late.sendall(MULTIFD + b"late")
        running.wait_for("channel")
        late.shutdown(socket.SHUT_WR)
        send(main, stream[1_000:])
        outcome = running.outcome()
    assert (outcome.ending, outcome.channels) == (Ending.COMPLETED, 2)


def test_recovery_is_not_taken_for_a_channel_of_the_move_it_recovers(
    carry: Carry, judge: Judge, destination: Any, recorded: Recorded
) -> None:
    """The network failed and this end has not noticed: the broken move still seems to run."""
    stream = recorded("postcopy")
    words = b"\x08\x00\x0a\x00\x09\x08mach-ram" + bytes(range(256)) * 10
    with carry(judge, destination.address, keep=True) as running:
        broken = running.connect()
        broken.sendall(stream[: stream.index(b"\x08\x00\x03\x00\x10") + 200])
        running.wait_for("began")
        until(
            lambda: (
                bool(running.gateway.transfers)
                and running.gateway.transfers[0].awaits_silent_channel
            )
        )
        send(running.connect(), words)
        until(lambda: '"mode": "recovery"' in running.log.getvalue(), running.log.getvalue)
    recovered = next(one for one in running.outcomes if one.mode == "recovery")
    assert recovered.bytes_forward == len(words)


def test_listener_that_fails_does_not_hang_the_gateway(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    def told(_: TransferReport) -> None:
        raise BrokenPipeError("the reader has gone")

    with carry(judge, destination.address, on_report=told) as running:
        send(running.connect(), stream)
        assert running.outcome().ending is Ending.COMPLETED
    assert '"event": "internal-error"' in running.log.getvalue()


def test_log_that_cannot_be_written_ends_no_move(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    with (
        contextlib.suppress(OSError),  # when it is closed at last
        open("/dev/full", "w", encoding="utf-8") as full,
        carry(judge, destination.address, log=Log(full)) as running,
    ):
        send(running.connect(), stream)
        assert running.outcome().ending is Ending.COMPLETED


def test_what_is_remembered_of_moves_is_bounded(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    with carry(judge, destination.address, keep=True) as running:
        for number in range(70):
            with running.connect() as source:
                source.sendall(stream[:100])
            until(partial(ended_more_than, running, number))
        running.gateway.stop()
        running.outcome()
    assert [running.outcomes[0].number, running.outcomes[-1].number] == [7, 70]


def test_source_that_ends_at_a_further_channel_first_has_cancelled(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    """QEMU closes its channels in no order when a move is cancelled."""
    with carry(judge, destination.address, listen="tcp:127.0.0.1:0") as running:
        port = running.listener.address.port
        main = socket.create_connection(("127.0.0.1", port), LIMIT)
        main.sendall(stream[:1_000])
        destination.wait_for_connections(1)
        extra = socket.create_connection(("127.0.0.1", port), LIMIT)
        extra.sendall(MULTIFD + bytes(100))
        destination.wait_for_connections(2)
        extra.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        extra.close()
        outcome = running.outcome()
        main.close()
    assert outcome.ending is Ending.CANCELLED


def rests(listener: Listener) -> bool:
    return listener.descriptor is None


def test_no_more_descriptors_is_waited_out(tmp_path: Path) -> None:
    """A flood of connections, or too small a limit, must not end a service."""
    listener = Listener(UnixAddress(f"{tmp_path}/one"))
    waiting = select.poll()
    assert listener.descriptor is not None
    waiting.register(listener.descriptor, select.POLLIN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as client:
        # the standard streams are open, and whatever else is given back has a higher number
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            client.connect(f"{tmp_path}/one")
            assert waiting.poll(LIMIT * 1000)
            assert listener.take() is None
            assert rests(listener)  # nothing is to be polled for, for a while
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        deadline = time.monotonic() + LIMIT
        while rests(listener):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        taken = listener.take()
    assert taken is not None
    taken.close()
    listener.close()


def test_names_that_no_host_can_have_are_told(tmp_path: Path, carry: Carry, judge: Judge) -> None:
    name = "a" * 70
    with pytest.raises(Exception, match="no host can have this name") as error:
        Listener(TcpAddress(name, 0), plain_allowed=True)
    assert str(error.value) == f"tcp:{name}:0: no host can have this name"
    with carry(judge, f"tcp:{name}:1") as running, running.connect() as source:
        source.sendall(b"QEVM")
        outcome = running.outcome()
    assert outcome.reason == f"tcp:{name}:1: no host can have this name"


def test_known_source_is_refused_before_the_guest_is_paused(
    carry: Carry, recorded: Recorded, host_of: Callable[[bytes], Fingerprint], destination: Any
) -> None:
    """After the switch to postcopy it would be too late: QEMU could not take the guest back."""
    old, new = (end_of(host_of(recorded(f"tcg_{one}_virt-10.0_cortex-a57_1"))) for one in RELEASES)
    judge = Judge(new, lambda machine, accelerator: aggregate(machine, accelerator), old)
    stream = recorded("postcopy")
    with carry(judge, destination.address) as running:
        source = running.connect()
        source.sendall(stream[:1_000])
        outcome = running.outcome()
    assert (outcome.ending, outcome.before_state) == (Ending.REFUSED, True)
    assert outcome.reason == (
        "the move is refused: ID_AA64ISAR0_EL1: the destination does not know it and no rule "
        "allows dropping it; the guest sees 0x11120 now; on the destination the register does not "
        "exist (vCPU 0); decided on the source's fingerprint; nothing was sent to the destination"
    )


def test_source_that_goes_away_while_its_state_is_decided_on_keeps_the_guest(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    deciding, cancelled = threading.Event(), threading.Event()

    class Thoughtful:
        def begin(self, machine: str, blocks: Any) -> None:
            judge.begin(machine, blocks)

        def prepare(self, machine: str) -> None:
            judge.prepare(machine)

        def __call__(self, machine: str, sections: Any) -> Any:
            deciding.set()
            assert cancelled.wait(LIMIT)
            return judge(machine, sections)

    with carry(Thoughtful(), destination.address) as running:
        source = running.connect()
        source.sendall(stream)
        assert deciding.wait(LIMIT)
        source.close()
        cancelled.set()
        outcome = running.outcome()
    destination.wait()
    assert (outcome.ending, outcome.before_state) == (Ending.CANCELLED, True)
    assert outcome.reason == "the source went away before its state was sent on"
    assert stream.startswith(bytes(destination.received[0]))
    assert len(destination.received[0]) < len(stream) - 20_000


def test_silence_of_a_source_ends_its_move_only(
    carry: Carry, stream: bytes, judge: Judge, destination: Any
) -> None:
    limits = Limits(stall=0.5)
    with carry(judge, destination.address, keep=True, limits=limits) as running:
        silent = running.connect()
        silent.sendall(stream[:1_000])
        until(lambda: '"no byte has moved for 0.5 s"' in running.log.getvalue())
        send(running.connect(), stream)
        until(lambda: '"outcome": "completed"' in running.log.getvalue(), running.log.getvalue)


@pytest.fixture
def service(
    tmp_path: Path, stream: bytes, host_of: Callable[[bytes], Fingerprint], destination: Any
) -> Callable[..., Any]:
    """A function from further options to `armferry gateway --keep` as a process, listening."""
    (tmp_path / "host.json").write_text(dump(host_of(stream)))

    @contextlib.contextmanager
    def started(*words: str, **options: Any) -> Any:
        command = [sys.executable, "-m", "armferry", "gateway", "--keep", "--no-builtin"]
        command += ["--listen", f"unix:{tmp_path}/in", "--connect", destination.address]
        command += ["--to", f"{tmp_path}/host.json", *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options) as process:
            try:
                assert process.stderr is not None
                assert process.stderr.readline().startswith("listening on ")
                yield process
            finally:
                process.kill()

    return started


def test_reader_of_its_output_that_goes_away_does_not_end_it(
    service: Callable[..., Any], stream: bytes, tmp_path: Path, destination: Any
) -> None:
    with service("--json", stdout=subprocess.PIPE) as process:
        process.stdout.close()
        for count in (1, 2, 3):
            with socket.socket(socket.AF_UNIX) as source:
                source.settimeout(LIMIT)
                source.connect(f"{tmp_path}/in")
                send(source, stream)
                while source.recv(100):
                    pass
            destination.wait_for_connections(count)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) in (0, 4, 128 + signal.SIGPIPE)
        assert "Traceback" not in process.stderr.read()


def test_terminated_service_carries_what_runs_and_interrupted_one_does_not(
    service: Callable[..., Any], stream: bytes, tmp_path: Path, destination: Any
) -> None:
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 4)):
        with service(stdout=subprocess.PIPE) as process, socket.socket(socket.AF_UNIX) as source:
            source.settimeout(LIMIT)
            source.connect(f"{tmp_path}/in")
            source.sendall(stream[:1_000])
            destination.wait_for_connections(1 if number == signal.SIGTERM else 2)
            process.send_signal(number)
            if number == signal.SIGTERM:
                time.sleep(0.2)
                assert process.poll() is None
                send(source, stream[1_000:])
            assert process.wait(LIMIT) == code, process.stderr.read()
