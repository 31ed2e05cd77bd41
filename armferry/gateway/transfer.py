"""One move: its channels, the threads that carry them, and how it ended.

Rules that hold here: one thread for each direction of each channel, so that a direction that
waits never keeps another one waiting, and one that opens the destination's connections, one after
the other and the main channel's first, so that a destination that takes none holds up nobody else;
the first failure decides the ending, and from then on every channel is aborted.
"""

import contextlib
import gc
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace

from armferry.errors import ArmferryError
from armferry.gateway.budget import Budget
from armferry.gateway.channel import Buffer, Channel
from armferry.gateway.endpoint import ExecChannel
from armferry.gateway.errors import Refused
from armferry.gateway.limits import Limits
from armferry.gateway.log import Log
from armferry.gateway.relay_bytes import BUFFER_SIZE, SinkFault, copy_all
from armferry.gateway.report import Ending, TransferReport
from armferry.gateway.return_path import ReturnPath
from armferry.gateway.session import Judging, Session
from armferry.stream import StreamError

__all__ = ["Transfer"]

_TICK = 1.0  # seconds between two looks at whether bytes move; the end of a thread is seen at once
_QUIET = 0.05  # seconds of silence after which device state without a description may be whole
_LINGERING = 5.0  # seconds that extra channels may outlast the main one
_RETURN_BUFFER = 64 << 10


class _Flow:
    """Bytes of one direction; written by one thread."""

    def __init__(self) -> None:
        self.bytes = 0

    def moved(self, count: int) -> None:
        """Counts `count` more."""
        self.bytes += count


class Transfer:
    """One move from the first byte on its main channel. `start` it, `add` channels, `wait`.

    With `recovery` the main channel is that of a postcopy migration that goes on after its
    network failed: the device state is long loaded, and everything is passed on unread.
    """

    def __init__(
        self,
        number: int,
        main: Channel,
        dial: Callable[[], Channel],
        judge: Judging,
        limits: Limits,
        log: Log,
        *,
        budget: Budget | None = None,
        recovery: bool = False,
        origin: str = "",
        on_end: Callable[[TransferReport], None] | None = None,
    ) -> None:
        self.number = number
        self._on_end = on_end
        self.origin = origin
        self._dial = dial
        self._judge = judge
        self._limits = limits
        self._log = log
        self._budget = budget or Budget()
        self._session = (
            None if recovery else Session(judge, state_limit=limits.state, budget=self._budget)
        )
        self._source = main
        self._return_path = ReturnPath()
        self._began = time.monotonic()
        self._held_since = 0.0
        self._held_seconds = 0.0
        self._decision_seconds = 0.0
        self._state_sent = False
        self._source_left = False  # whether it has closed one of its connections
        self._lock = threading.Lock()
        self._failure: tuple[Ending, str] | None = None
        self._channels: list[Channel] = [main]
        self._forward: list[_Flow] = []
        self._back: list[_Flow] = []
        self._added: queue.SimpleQueue[Channel | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._connected = False  # whether the main channel is
        self._main_running = 1  # threads of it: the one that connects it, then two
        self._extra_running = 0
        self._over = False  # nothing joins the move from here on
        self._changed = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._report: TransferReport | None = None

    @property
    def awaits_silent_channel(self) -> bool:
        """Whether a channel that says nothing at first may belong here: postcopy-preempt's."""
        return self.takes_channels and (self._session is None or self._session.postcopy)

    @property
    def takes_channels(self) -> bool:
        """Whether the move still runs on its main channel."""
        return self._failure is None and self._connected and self._main_running > 0

    @property
    def bytes_moved(self) -> int:
        """Bytes of all channels, both directions, so far."""
        return sum(flow.bytes for flow in (*self._forward, *self._back))

    def start(self) -> None:
        """Connects to the destination and lets the bytes flow; returns at once.

        Raises RuntimeError when the system gives no thread for it.
        """
        self._supervisor.start()
        opener = threading.Thread(target=self._open, name=f"move {self.number} opener", daemon=True)
        try:
            opener.start()
        except RuntimeError as error:
            self._main_running = 0
            self.fail(Ending.FAILED, str(error))

    def add(self, channel: Channel) -> None:
        """Connects one more channel of the source and lets its bytes flow; returns at once."""
        with self._lock:
            if not self._over:
                self._channels.append(channel)
                self._extra_running += 1
                self._added.put(channel)
                return
        channel.abort()
        channel.close()

    def _open(self) -> None:
        """Opens the destination's connections in order, until the move is over."""
        with self._failures():
            destination = self._connect()
            if destination is not None:
                self._begin_main(destination)
        with self._lock:
            if not self._connected:
                self._main_running = 0
        self._changed.set()
        while (channel := self._added.get()) is not None:
            with self._failures():
                destination = None if self._over else self._connect()
                if destination is not None:
                    self._begin_extra(channel, destination)
            self._ended(main=False)

    def _begin_main(self, destination: Channel) -> None:
        self._destination = destination
        with self._lock:
            if self._over:
                return
            forward, back = self._flows()
            self._start("main forward", lambda: self._carry(forward), main=True)
            self._start("main back", lambda: self._answer(back), main=True)
            self._main_running -= 1  # what connected it is done
            self._connected = True

    def _begin_extra(self, channel: Channel, destination: Channel) -> None:
        with self._lock:
            if self._over:
                return
            forward, back = self._flows()
            name = f"channel {len(self._forward)}"
            for direction, work in (
                ("forward", lambda: self._splice(channel, destination, forward, onward=True)),
                ("back", lambda: self._splice(destination, channel, back, onward=False)),
            ):
                self._start(f"{name} {direction}", work)
        self._log.write("channel", move=self.number, channels=len(self._forward))

    def fail(self, ending: Ending, reason: str) -> None:
        """Ends the move for this reason unless it has failed before; aborts every channel."""
        with self._lock:
            if self._failure is None:
                self._failure = (ending, reason)
            channels = tuple(self._channels)
        for channel in channels:
            channel.abort()
        self._changed.set()

    def wait(self) -> TransferReport:
        """How it ended, once it has."""
        self._supervisor.join()
        assert self._report is not None
        return self._report

    # -- connections and threads

    def _connect(self) -> Channel | None:
        """A new connection to the destination; None when there is none, which fails the move."""
        try:
            destination = self._dial()
        except ArmferryError as error:
            self.fail(Ending.FAILED, str(error))
            return None
        with self._lock:
            over, failed = self._over, self._failure is not None
            if not over:
                self._channels.append(destination)
        if failed or over:
            destination.abort()
        if over:  # the move ended while this was being connected
            destination.close()
            return None
        return destination

    def _flows(self) -> tuple[_Flow, _Flow]:
        forward, back = _Flow(), _Flow()
        self._forward.append(forward)
        self._back.append(back)
        return forward, back

    def _start(self, name: str, work: Callable[[], None], *, main: bool = False) -> None:
        """Runs `work` in a thread that is waited for; the caller has the lock."""

        def run() -> None:
            with self._failures():
                work()
            self._ended(main=main)

        thread = threading.Thread(target=run, name=f"move {self.number} {name}", daemon=True)
        thread.start()
        if main:
            self._main_running += 1
        else:
            self._extra_running += 1
        self._threads.append(thread)  # a thread that is found here may be joined

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """What is raised in the block ends the move."""
        try:
            yield
        except Refused as refusal:
            self.fail(Ending.REFUSED, str(refusal))
        except ArmferryError as error:
            self.fail(Ending.FAILED, str(error))
        except Exception as error:  # whatever it is, the destination must get no more
            self._log.write("internal-error", move=self.number, traceback=traceback.format_exc())
            self.fail(Ending.FAILED, f"armferry itself failed: {error!r}; please report it")

    def _ended(self, *, main: bool) -> None:
        with self._lock:
            if main:
                self._main_running -= 1
            else:
                self._extra_running -= 1
        self._changed.set()

    # -- the main channel

    def _carry(self, flow: _Flow) -> None:
        """Source to destination, through the session for as long as it wants to look."""
        session = self._session
        if session is not None and not self._walk(session, flow):
            return
        self._splice(self._source, self._destination, flow, onward=True)

    def _walk(self, session: Session, flow: _Flow) -> bool:
        """Whether everything that follows may be passed on unread; False at the end."""
        buffer = memoryview(bytearray(BUFFER_SIZE))
        prepared = settled = False
        while not session.passing:
            try:
                # once is enough: what could not be all of it then cannot be without another byte
                silent = session.holding and not settled and not self._source.wait(_QUIET)
                count = 0 if silent else self._source.receive_into(buffer)
            except OSError as error:
                self.fail(self._source_ending(), f"the source's connection failed: {error}")
                return False
            if silent:
                self._pass_on(session, session.settle, flow)
                settled = True
                continue
            settled = False
            if not count:
                try:
                    self._pass_on(session, session.close, flow)
                except StreamError as error:
                    self.fail(self._source_ending(), f"the source ended the migration: {error}")
                    return False
                self._destination.finish()
                return False
            data = buffer[:count]
            self._pass_on(session, lambda: session.receive(data), flow)  # noqa: B023
            if session.machine and not prepared:
                self._begin_preparation(session.machine)
                prepared = True
        return True

    def _begin_preparation(self, machine: str) -> None:
        def prepare() -> None:
            with self._failures():
                self._prepare(machine)

        # not waited for: a move may end before it does
        name = f"move {self.number} preparation"
        threading.Thread(target=prepare, name=name, daemon=True).start()

    def _prepare(self, machine: str) -> None:
        self._judge.prepare(machine)
        # looking through what was read for garbage would lengthen the guest's pause
        gc.collect()
        with self._lock:
            if not self._over:
                gc.freeze()

    def _pass_on(
        self, session: Session, step: Callable[[], tuple[Buffer, ...]], flow: _Flow
    ) -> None:
        came = time.monotonic()
        with self._budget.turn if session.collecting else contextlib.nullcontext():
            parts = step()
        if session.holding and not self._held_since:
            self._held_since = came
        decided = session.judgement is not None and not self._state_sent
        if decided:
            self._decision_seconds = time.monotonic() - came
            if session.return_path and self._source.gone:
                # it has cancelled, and runs the guest on: nobody else may get it
                self.fail(Ending.CANCELLED, "the source went away before its state was sent on")
                return
        if parts:
            try:
                self._state_sent = self._state_sent or decided
                self._destination.send(parts)
            except OSError as error:
                self.fail(self._peer_ending(), f"the destination closed the connection: {error}")
                return
            flow.moved(sum(map(len, parts)))
        if decided:
            self._held_seconds = time.monotonic() - (self._held_since or came)
            self._log.write(
                "decided",
                move=self.number,
                changed=session.judgement is not None and session.judgement.verdict.changed,
                state_bytes=session.state_bytes,
                seconds=round(self._decision_seconds, 6),
            )

    def _source_ending(self) -> Ending:
        """What it is when the source goes away: its own will until the state has been sent."""
        early = self._session is not None and not self._session.delivered
        return Ending.CANCELLED if early else Ending.FAILED

    def _peer_ending(self) -> Ending:
        """What it is when a connection of the destination fails.

        A source that cancels may close its channels one by one; a destination that ends because
        of the first of them has only followed.
        """
        return self._source_ending() if self._source_left else Ending.FAILED

    def _answer(self, flow: _Flow) -> None:
        """Destination to source: the return path."""
        buffer = memoryview(bytearray(_RETURN_BUFFER))
        while True:
            try:
                count = self._destination.receive_into(buffer)
            except OSError as error:
                if self._return_path.result is None:
                    reason = f"the destination's connection failed: {error}"
                    self.fail(self._peer_ending(), reason)
                break
            if not count:
                break
            self._return_path.watch(buffer[:count])
            try:
                self._source.send((buffer[:count],))
            except OSError:
                break  # the other direction learns the same and says what it means
            flow.moved(count)
        self._source.finish()

    # -- every other channel

    def _splice(self, source: Channel, sink: Channel, flow: _Flow, *, onward: bool) -> None:
        """Copies until `source` ends; `onward` says that it is one of the source's connections."""
        ending = self._source_ending if onward else self._peer_ending
        try:
            copy_all(source, sink, flow.moved)
        except SinkFault as error:
            ending = self._peer_ending if onward else self._source_ending
            self.fail(ending(), f"{sink.name} closed the connection: {error}")
        except OSError as error:
            self.fail(ending(), f"the connection of {source.name} failed: {error}")
        else:
            self._source_left = self._source_left or onward
        sink.finish()

    # -- the end

    def _supervise(self) -> None:
        moved, changed_at = 0, time.monotonic()
        main_ended: float | None = None
        while True:
            self._changed.wait(min(_TICK, self._limits.stall / 4))
            self._changed.clear()
            now = time.monotonic()
            # a destination that is still being connected is not waited for once the move has failed
            if not self._main_running or (self._failure is not None and not self._connected):
                main_ended = main_ended or now
                if not self._extra_running or now - main_ended > _LINGERING:
                    break
            if self.bytes_moved != moved:
                moved, changed_at = self.bytes_moved, now
            elif now - changed_at > self._limits.stall:
                self.fail(Ending.FAILED, f"no byte has moved for {self._limits.stall:g} s")
        with self._lock:
            self._over = True
            channels, threads = tuple(self._channels), tuple(self._threads)
        self._added.put(None)
        if self._extra_running:
            for channel in channels:
                channel.abort()
        for thread in threads:
            thread.join()
        for channel in channels:
            channel.close()
        gc.unfreeze()  # else nothing of this move would ever be given back
        self._report = self._result()
        if self._session is not None:
            self._session.release()
        if self._on_end is not None:
            self._on_end(self._report)

    def _result(self) -> TransferReport:
        session = self._session
        judgement = session.judgement if session else None
        ending, reason = self._failure or self._success()
        if self._return_path.result == 0:
            # nothing that happens to a connection after the last word takes it back
            ending, reason = Ending.COMPLETED, ""
        return TransferReport(
            number=self.number,
            ending=ending,
            reason=reason,
            machine=session.machine if session else "",
            mode="recovery" if session is None else "postcopy" if session.packaged else "precopy",
            channels=len(self._forward),
            bytes_forward=sum(flow.bytes for flow in self._forward),
            bytes_back=sum(flow.bytes for flow in self._back),
            pages=session.pages if session else 0,
            zero_pages=session.zero_pages if session else 0,
            state_bytes=session.state_bytes if session else 0,
            held_seconds=self._held_seconds,
            decision_seconds=self._decision_seconds,
            seconds=time.monotonic() - self._began,
            before_state=session is not None and not self._state_sent,
            return_path=session is not None and session.return_path,
            judgement=judgement and replace(judgement, sections=(), cpus=()),
        )

    def _success(self) -> tuple[Ending, str]:
        """The ending when no channel failed."""
        for channel in self._channels:
            if isinstance(channel, ExecChannel) and channel.exit_status:
                return Ending.FAILED, f"{channel.name} ended with status {channel.exit_status}"
        if self._session is None or not self._session.return_path:
            return Ending.DELIVERED, ""
        if self._return_path.result == 0:
            return Ending.COMPLETED, ""
        if self._return_path.result is None:
            reason = "the destination closed the connection and never said that it loaded the guest"
            return Ending.FAILED, f"{reason}; its own log tells why"
        return Ending.FAILED, "the destination said that it could not load the guest"
