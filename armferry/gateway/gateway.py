"""The gateway: where sources connect on one side, one destination on the other.

Knows which connection belongs to which move, and that its move gets them in order: the main
channel first, the others as they were accepted. Refuses to know what is in them (`session`) and
how they are carried (`transfer`).

Rule of this file: one loop serves the listener and everybody who has not said yet what they want,
and nothing in it waits for a peer.
"""

import collections
import contextlib
import itertools
import os
import select
import ssl
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

from armferry.gateway.budget import Budget
from armferry.gateway.channel import Channel, SocketChannel
from armferry.gateway.channel_kind import FIRST_BYTES, ChannelKind, kind_of
from armferry.gateway.endpoint import Dialer, Listener
from armferry.gateway.greeting import Greeting
from armferry.gateway.limits import Limits
from armferry.gateway.log import Log
from armferry.gateway.report import Ending, TransferReport
from armferry.gateway.session import Judging
from armferry.gateway.transfer import Transfer

__all__ = ["Gateway"]

_TICK = 0.05  # seconds between two looks at who waits for a move that is under way
_IDLE = 1.0
_SILENCE = 0.1  # seconds after which a silent channel may be one that stays silent
_ORDERLY = 0.1  # seconds for which a later channel waits for an earlier one to say what it is
_MOST_WAITING = 512  # connections that wait for their move; QEMU opens 257 at most for one
_MOST_MOVES = 128  # at once
_REMEMBERED = 64  # reports of a gateway that goes on and on
_ADVICE = {
    ChannelKind.TLS: (
        "the source speaks TLS, which cannot pass through unread: give the gateway the "
        "destination's credentials (--tls-listen, --tls-connect) or turn tls-creds off"
    ),
    ChannelKind.UNKNOWN: "the connection is no QEMU migration stream",
    ChannelKind.ENDED: "the connection ended before it said anything",
}


class _Arrival:
    """A connection that was accepted; `kind` is None until it has said what it is."""

    def __init__(self, number: int, greeting: Greeting) -> None:
        self.number = number
        self.greeting = greeting
        self.since = time.monotonic()
        self.kind: ChannelKind | None = None

    @property
    def plain(self) -> SocketChannel:
        """The socket it came on."""
        return self.greeting.plain

    @property
    def age(self) -> float:
        """Seconds since it was accepted."""
        return time.monotonic() - self.since


class Gateway:
    """Carries moves from the sources that connect to `listener` to the destination of `dialer`.

    `run` returns when the first move has ended, or, with `keep`, when `stop` was called; a move
    that still runs then is carried to its end. `context` terminates TLS from the sources, of whose
    certificates one of `authorized` must be the name, unless that is None. `budget` is what all
    moves may hold together. `on_report` is called with each outcome, from a thread of the gateway,
    and `on_rejected` with the peer of each connection that was turned away and the reason.
    """

    def __init__(
        self,
        listener: Listener,
        dialer: Dialer,
        judge: Judging,
        *,
        context: ssl.SSLContext | None = None,
        authorized: frozenset[str] | None = None,
        limits: Limits | None = None,
        budget: Budget | None = None,
        keep: bool = False,
        log: Log | None = None,
        on_report: Callable[[TransferReport], None] | None = None,
        on_rejected: Callable[[str, str], None] | None = None,
    ) -> None:
        self._listener = listener
        self._dialer = dialer
        self._judge = judge
        self._context = context
        self._authorized = authorized
        self._limits = limits or Limits()
        self._budget = budget or Budget()
        self._keep = keep
        self._log = log or Log()
        self._on_report = on_report
        self._on_rejected = on_rejected
        self._moves = itertools.count(1)
        self._numbers = itertools.count(1)
        self._arrivals: list[_Arrival] = []
        self._transfers: list[Transfer] = []
        self._stopping = threading.Event()
        self._abort_reason = ""
        self._reports: collections.deque[TransferReport] = collections.deque(maxlen=_REMEMBERED)
        self._wake_reader = self._wake_writer = -1
        self._waking = threading.Lock()
        self.rejected = ""
        """Why the last connection that belonged to no move was turned away."""

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """The moves that have not ended."""
        return tuple(self._transfers)

    def run(self) -> list[TransferReport]:
        """Serves until it is over; the outcomes in order, of many the last. Raises NetworkFault."""
        with self._waking:
            self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if self._listener.given:
                self._accept()
            while not self._over():
                self._turn()
        finally:
            for arrival in tuple(self._arrivals):
                self._reject(arrival, "the gateway ends")
            with self._waking:
                os.close(self._wake_reader)
                os.close(self._wake_writer)
                self._wake_writer = -1
        return list(self._reports)

    def stop(self) -> None:
        """Ends the gateway: no new move; those that run are carried to their end."""
        self._stopping.set()
        self._wake()

    def abort(self, reason: str) -> None:
        """Ends the gateway and every move that runs, at once: both sides are closed."""
        self._abort_reason = reason
        for transfer in self.transfers:
            transfer.fail(Ending.CANCELLED, reason)
        self.stop()

    @property
    def _ending(self) -> bool:
        """Whether no new move may begin; those that run still get their channels."""
        return self._stopping.is_set() or (bool(self._reports) and not self._keep)

    def _over(self) -> bool:
        if self._transfers:
            return False
        return self._ending or (self._listener.given and not self._arrivals)

    def _wake(self) -> None:
        with self._waking, contextlib.suppress(BlockingIOError):  # full: it will wake
            if self._wake_writer >= 0:
                os.write(self._wake_writer, b"x")

    # -- one turn of the loop

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        listening = self._listener.descriptor
        if listening is not None:
            poll.register(listening, select.POLLIN)
        polled: dict[int, _Arrival] = {}
        for arrival in self._arrivals:
            descriptor = arrival.plain.socket.fileno()
            polled[descriptor] = arrival
            # of one that waits for its move only the end is of interest
            known = arrival.kind is not None
            poll.register(descriptor, select.POLLRDHUP if known else arrival.greeting.events)
        for descriptor, _ in poll.poll(self._patience() * 1000):
            if descriptor == self._wake_reader:
                with contextlib.suppress(BlockingIOError):
                    os.read(descriptor, 4096)
            elif descriptor == listening:
                self._accept()
            elif polled[descriptor] in self._arrivals and polled[descriptor].kind is None:
                self._hear(polled[descriptor])
        for arrival in tuple(self._arrivals):
            self._advance(arrival)

    def _patience(self) -> float:
        """Seconds for which nothing needs to be done unless somebody says something."""
        if not self._arrivals:
            return _IDLE
        if self._transfers:
            return _TICK
        return min(_IDLE, max(_TICK, min(self._deadline(one) - one.age for one in self._arrivals)))

    def _deadline(self, arrival: _Arrival) -> float:
        """The age in seconds at which a connection is turned away."""
        if arrival.kind is not None or self._listener.given:
            return self._limits.stall
        return self._limits.connect

    def _accept(self) -> None:
        plain = self._listener.take()
        if plain is None:
            return
        if len(self._arrivals) >= _MOST_WAITING:
            silent = [one for one in self._arrivals if one.kind is None]
            # a client that means it says so at once: the longest silence is the least loss
            self._reject(
                (silent or self._arrivals)[0],
                f"{_MOST_WAITING} connections wait for a main channel, and this one the longest",
            )
        greeting = Greeting(plain, self._context, self._authorized)
        self._arrivals.append(_Arrival(next(self._numbers), greeting))

    def _hear(self, arrival: _Arrival) -> None:
        greeting = arrival.greeting
        try:
            if not greeting.step():
                return
        except OSError as error:
            self._reject(arrival, str(error))
            return
        if len(greeting.first) < FIRST_BYTES:
            self._reject(arrival, _ADVICE[ChannelKind.ENDED])
        else:
            self._note_kind(arrival, kind_of(greeting.first, silent_is_extra=self._silent_is_extra))

    @property
    def _silent_is_extra(self) -> bool:
        return any(transfer.awaits_silent_channel for transfer in self.transfers)

    def _note_kind(self, arrival: _Arrival, kind: ChannelKind) -> None:
        arrival.kind = kind
        if kind in _ADVICE:
            self._reject(arrival, _ADVICE[kind])
        elif kind is not ChannelKind.EXTRA:
            if self._ending:
                self._reject(arrival, "the gateway ends and takes no new move")
            elif len(self._transfers) >= _MOST_MOVES:
                self._reject(arrival, f"{_MOST_MOVES} moves are under way")
            else:
                self._arrivals.remove(arrival)
                self._begin(arrival, kind)

    def _advance(self, arrival: _Arrival) -> None:
        """Does what time, or a move, has brought about."""
        silent = arrival.kind is None and not arrival.greeting.first
        if silent and arrival.greeting.shaken and arrival.age > _SILENCE and self._silent_is_extra:
            self._note_kind(arrival, ChannelKind.EXTRA)
        if arrival.kind is ChannelKind.EXTRA:
            if arrival.plain.peer_ended:
                # left over from an attempt that was given up: the next one must not get it
                self._reject(arrival, "its source has gone")
            elif self._is_next(arrival):
                self._place(arrival)
        elif arrival in self._arrivals and arrival.age > self._deadline(arrival):
            if arrival.greeting.shaken:
                self._reject(arrival, _ADVICE[ChannelKind.UNKNOWN])
            else:
                self._reject(arrival, f"no TLS handshake in {self._limits.connect:g} s")

    # -- to the moves

    def _place(self, arrival: _Arrival) -> None:
        """Gives a further channel to its move, once there is one."""
        transfers = [one for one in self._transfers if one.takes_channels]
        # of several moves, the one whose main channel came from the same process or machine
        own = [one for one in transfers if one.origin == arrival.plain.origin] or transfers
        if own:
            self._arrivals.remove(arrival)
            own[-1].add(arrival.greeting.channel)
        elif arrival.age > self._deadline(arrival):
            self._reject(arrival, "no main channel came for it")

    def _is_next(self, arrival: _Arrival) -> bool:
        return not any(
            other.number < arrival.number and other.kind is None and other.age < _ORDERLY
            for other in self._arrivals
        )

    def _begin(self, arrival: _Arrival, kind: ChannelKind) -> None:
        main = arrival.greeting.channel
        transfer = Transfer(
            next(self._moves),
            main,
            self._dialer.dial,
            self._judge,
            self._limits,
            self._log,
            budget=self._budget,
            recovery=kind is ChannelKind.RECOVERY,
            origin=arrival.plain.origin,
            on_end=lambda report: self._note_end(transfer, report),
        )
        self._log.write("began", move=transfer.number, peer=main.name, greeting=kind.value)
        self._transfers.append(transfer)
        try:
            transfer.start()
        except RuntimeError as error:  # the system gives no thread; what runs goes on
            self._transfers.remove(transfer)
            self._turn_away(main, str(error))
        if self._abort_reason:
            transfer.fail(Ending.CANCELLED, self._abort_reason)

    def _note_end(self, transfer: Transfer, report: TransferReport) -> None:
        """In the move's own thread."""
        self._log.write("ended", **report.document())
        try:
            if self._on_report is not None:
                self._on_report(report)
        except Exception:  # a fault of the callback must not end the gateway
            self._log.write(
                "internal-error", move=transfer.number, traceback=traceback.format_exc()
            )
        finally:
            # a gateway that goes on for years need not know every register of every move
            self._reports.append(replace(report, judgement=None) if self._keep else report)
            self._transfers.remove(transfer)
            self._wake()

    def _reject(self, arrival: _Arrival, reason: str) -> None:
        self._arrivals.remove(arrival)
        self._turn_away(arrival.plain, reason)

    def _turn_away(self, channel: Channel, reason: str) -> None:
        self.rejected = reason
        self._log.write("rejected", peer=channel.name, reason=reason)
        channel.abort()
        channel.close()
        if self._on_rejected is not None:
            self._on_rejected(channel.name, reason)
