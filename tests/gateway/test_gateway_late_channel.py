"""The end of a move: a channel that comes then is closed, and nothing of the move is kept."""

import gc
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from armferry.gateway import Ending, Judge, Limits, Log
from armferry.gateway.channel import Channel, SocketChannel
from armferry.gateway.judge import Judgement
from armferry.gateway.transfer import Transfer
from armferry.stream.events import DeviceSection, RamBlock

LIMIT = 20.0
Recorded = Callable[[str], bytes]


class Ends:
    """Socket pairs whose other ends the test holds."""

    def __init__(self) -> None:
        self.held: list[socket.socket] = []

    def channel(self) -> SocketChannel:
        ours, theirs = socket.socketpair()
        theirs.settimeout(LIMIT)
        self.held.append(theirs)
        return SocketChannel(ours, f"end {len(self.held)}")


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    for end in made.held:
        end.close()


def closed(end: socket.socket) -> bool:
    try:
        return end.recv(1) == b""
    except ConnectionResetError:
        return True


def move_of(main: Channel, dial: Callable[[], Channel], judge: Judge) -> Transfer:
    return Transfer(1, main, dial, judge, Limits(), Log(io.StringIO()))


def cancel(ends: Ends, move: Transfer) -> None:
    """The source, whose end is the first, ends the migration before anything was decided."""
    ends.held[0].sendall(b"QEVM")
    ends.held[0].close()
    assert move.wait().ending is Ending.CANCELLED


def test_channel_that_comes_after_the_end_is_closed(ends: Ends, judge: Judge) -> None:
    move = move_of(ends.channel(), ends.channel, judge)
    move.start()
    cancel(ends, move)
    move.add(ends.channel())
    _, destination, extra = ends.held  # nothing is connected for it
    assert closed(extra)
    assert closed(destination)


@pytest.mark.parametrize("left", [True, False], ids=["after the source", "by itself"])
def test_destination_that_ends_because_the_source_closed_a_channel_is_cancelled(
    left: bool, ends: Ends, judge: Judge, recorded: Recorded
) -> None:
    """QEMU closes multifd's channels before the main one when it cancels."""
    move, channel = move_of(ends.channel(), ends.channel, judge), ends.channel()
    move.start()
    move.add(channel)
    source, extra = ends.held[0], ends.held[1]
    while len(ends.held) < 4:
        time.sleep(0.001)
    main, there = ends.held[2:]
    extra.sendall(b"x")
    source.sendall(recorded("tcg_10.0.2_virt-10.0_cortex-a57_1")[:2000])
    assert there.recv(1) == b"x"
    if left:
        extra.close()
        assert closed(there)
    # what waits there unread makes this a reset
    assert main.recv(1, socket.MSG_PEEK)
    main.close()
    report = move.wait()
    assert report.ending is (Ending.CANCELLED if left else Ending.FAILED)
    assert report.before_state


def test_channel_that_is_connected_when_the_move_has_ended_is_closed(
    ends: Ends, judge: Judge
) -> None:
    dialling, ended = threading.Event(), threading.Event()

    def dial() -> Channel:
        if dialling.is_set():  # the extra channel's; the first call was the main one's
            assert ended.wait(LIMIT)
        dialling.set()
        return ends.channel()

    move = move_of(ends.channel(), dial, judge)
    move.start()
    move.add(ends.channel())
    assert dialling.wait(LIMIT)
    cancel(ends, move)
    ended.set()
    deadline = time.monotonic() + LIMIT
    while len(ends.held) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert all(closed(end) for end in ends.held[1:])


def test_channel_whose_threads_start_late_is_waited_for(
    ends: Ends, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main channel ends just before the threads of the extra one begin."""
    move = move_of(ends.channel(), ends.channel, judge)
    move.start()
    begin = threading.Thread.start

    def late(thread: threading.Thread) -> None:
        if thread.name.startswith("move 1 channel"):
            ends.held[0].close()
            move._supervisor.join(0.3)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", late)
    move.add(ends.channel())
    assert move.wait().ending is Ending.CANCELLED
    assert all(closed(end) for end in ends.held[2:])


class Prepares:
    """Tells when what can be done before the device state has been done."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.waits, self.may_end = threading.Event(), threading.Event()

    def begin(self, machine: str, blocks: tuple[RamBlock, ...]) -> None:
        self._judge.begin(machine, blocks)

    def prepare(self, machine: str) -> None:
        self._judge.prepare(machine)
        self.waits.set()
        assert self.may_end.wait(LIMIT)

    def __call__(self, machine: str, sections: Sequence[DeviceSection]) -> Judgement:
        return self._judge(machine, sections)


@pytest.mark.parametrize("late", [False, True], ids=["prepared before", "prepared after"])
def test_finished_move_is_given_back(
    late: bool, ends: Ends, judge: Judge, recorded: Recorded
) -> None:
    prepares = Prepares(judge)
    move = Transfer(1, ends.channel(), ends.channel, prepares, Limits(), Log(io.StringIO()))
    move.start()
    ends.held[0].sendall(recorded("switchover-ack")[:1_000])
    assert prepares.waits.wait(LIMIT)
    preparation = next(one for one in threading.enumerate() if one.name.endswith("preparation"))
    if not late:
        prepares.may_end.set()
        preparation.join(LIMIT)
        assert gc.get_freeze_count() > 0
    ends.held[0].close()
    assert move.wait().ending is Ending.CANCELLED
    prepares.may_end.set()
    preparation.join(LIMIT)
    assert gc.get_freeze_count() == 0
