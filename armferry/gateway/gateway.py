"""The gateway: where sources connect on one side, one destination on the other.

Knows which connection belongs to which move, and in which order the destination gets them: the
main channel first, the others as they were accepted, never two at the same time. Refuses to know
what is in them (`session`) and how they are carried (`transfer`).
"""

import collections
import contextlib
import itertools
import queue
import ssl
import threading
import time
import traceback
from collections.abc import Callable

from armferry.gateway.channel import Channel, SocketChannel
from armferry.gateway.channel_kind import ChannelKind, classify
from armferry.gateway.endpoint import Dialer, Listener
from armferry.gateway.errors import NetworkFault
from armferry.gateway.log import Log
from armferry.gateway.report import Ending, TransferReport
from armferry.gateway.session import Judging
from armferry.gateway.tls import TlsChannel
from armferry.gateway.transfer import Limits, Transfer

__all__ = ["Gateway"]

_TICK = 0.02
_ORDERLY = 0.1  # seconds for which a later channel waits for an earlier one to say what it is
_MOST_WAITING = 512  # connections that wait for their move; QEMU opens 257 at most for one
_REMEMBERED = 64  # outcomes of a gateway that goes on and on
_ADVICE = {
    ChannelKind.TLS: (
        "the source speaks TLS, which cannot pass through unread: give the gateway the "
        "destination's credentials (--tls-listen, --tls-connect) or turn tls-creds off"
    ),
    ChannelKind.UNKNOWN: "the connection is no QEMU migration stream",
    ChannelKind.ENDED: "the connection ended before it said anything",
}


class _Arrival:
    """A connection that was accepted; `greeting` is None until it has said what it is."""

    def __init__(self, number: int, plain: SocketChannel) -> None:
        self.number = number
        self.plain = plain
        self.since = time.monotonic()
        self.channel: Channel | None = None
        self.greeting: ChannelKind | None = None
        self.fault = ""


class Gateway:
    """Carries moves from whoever connects to `listener` to the destination of `dialer`.

    `run` returns when the first move has ended, or, with `keep`, when `stop` was called; a move
    that still runs then is carried to its end. `context` terminates TLS from the sources.
    `on_report` is called with each outcome, from a thread of the gateway, and `on_rejected` with
    the peer of each connection that was turned away and the reason.
    """

    def __init__(
        self,
        listener: Listener,
        dialer: Dialer,
        judge: Judging,
        *,
        context: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        keep: bool = False,
        log: Log | None = None,
        on_report: Callable[[TransferReport], None] | None = None,
        on_rejected: Callable[[str, str], None] | None = None,
    ) -> None:
        self._listener = listener
        self._dialer = dialer
        self._judge = judge
        self._context = context
        self._limits = limits or Limits()
        self._keep = keep
        self._log = log or Log()
        self._on_report = on_report
        self._on_rejected = on_rejected
        self._numbers = itertools.count(1)
        self._arrivals: list[_Arrival] = []
        self._arrived: queue.SimpleQueue[_Arrival | None] = queue.SimpleQueue()
        self._transfers: list[Transfer] = []
        self._awaiting: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._abort_reason = ""
        self._exhausted = False
        self._reports: collections.deque[TransferReport] = collections.deque(maxlen=_REMEMBERED)
        self._fault: NetworkFault | None = None
        self.rejected = ""
        """Why the last connection that belonged to no move was turned away."""

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """The moves that have not ended."""
        return tuple(self._transfers)

    def run(self) -> list[TransferReport]:
        """Serves until it is over; the outcomes in order, of many the last. Raises NetworkFault."""
        accepting = threading.Thread(target=self._accept, daemon=True)
        accepting.start()
        try:
            while not self._over():
                with contextlib.suppress(queue.Empty):
                    arrival = self._arrived.get(timeout=_TICK if self._arrivals else None)
                    if arrival is not None:
                        self._arrivals.append(arrival)
                self._hand_over()
        finally:
            self._listener.stop()
            accepting.join()
            self._drop_waiting()
            for thread in self._awaiting:
                thread.join()
        if self._fault is not None:
            raise self._fault
        return list(self._reports)

    def stop(self) -> None:
        """Ends the gateway: no new move; those that run are carried to their end."""
        self._stopping.set()
        self._arrived.put(None)

    def abort(self, reason: str) -> None:
        """Ends the gateway and every move that runs, at once: both sides are closed."""
        self._abort_reason = reason
        for transfer in self.transfers:
            transfer.fail(Ending.CANCELLED, reason)
        self.stop()

    @property
    def _ending(self) -> bool:
        """Whether no new move may begin; those that run still get their channels."""
        return (
            self._stopping.is_set()
            or self._fault is not None
            or (bool(self._reports) and not self._keep)
        )

    def _over(self) -> bool:
        if self._transfers:
            return False
        return self._ending or (self._exhausted and self._arrived.empty() and not self._arrivals)

    # -- from the listener

    def _accept(self) -> None:
        try:
            for number in itertools.count(1):
                plain = self._listener.accept()
                if plain is None:
                    break
                if len(self._arrivals) >= _MOST_WAITING:
                    self._turn_away(plain, "too many connections wait for a main channel")
                    plain.close()
                    continue
                arrival = _Arrival(number, plain)
                self._arrived.put(arrival)
                threading.Thread(target=self._greet, args=(arrival, plain), daemon=True).start()
        except NetworkFault as fault:
            self._fault = fault
        self._exhausted = True
        self._arrived.put(None)

    def _greet(self, arrival: _Arrival, plain: SocketChannel) -> None:
        channel: Channel = plain
        arrival.channel = channel
        try:
            if self._context is not None:
                channel = TlsChannel.accept(plain, self._context, self._limits.connect)
                arrival.channel = channel
            arrival.greeting = classify(channel, self._silent_is_extra, self._limits.stall)
        except OSError as error:
            arrival.fault = str(error)
            arrival.greeting = ChannelKind.ENDED
        self._arrived.put(None)

    def _silent_is_extra(self) -> bool:
        return any(transfer.awaits_silent_channel for transfer in self.transfers)

    # -- to the moves

    def _hand_over(self) -> None:
        """Gives every connection that has said what it is to its move, in order."""
        for arrival in tuple(self._arrivals):
            channel, greeting = arrival.channel, arrival.greeting
            if channel is None or greeting is None:
                continue
            if greeting is ChannelKind.EXTRA:
                continue
            self._arrivals.remove(arrival)
            if greeting not in (ChannelKind.MAIN, ChannelKind.RECOVERY):
                self._reject(arrival, arrival.fault or _ADVICE[greeting])
            elif self._ending:
                self._reject(arrival, "the gateway ends and takes no new move")
            else:
                self._begin(arrival.plain.origin, channel, greeting)
        for arrival in tuple(self._arrivals):
            if arrival.greeting is ChannelKind.EXTRA and self._is_next(arrival):
                self._place(arrival)

    def _place(self, arrival: _Arrival) -> None:
        """Gives a further channel to its move, once there is one."""
        transfers = [one for one in self._transfers if one.takes_channels]
        # of several moves, the one whose main channel came from the same process or machine
        own = [one for one in transfers if one.origin == arrival.plain.origin] or transfers
        reason = ""
        if arrival.plain.peer_ended:
            # left over from an attempt that was given up: the next one must not get it
            reason = "its source has gone"
        elif own and arrival.channel is not None:
            self._arrivals.remove(arrival)
            own[-1].add(arrival.channel)
        elif time.monotonic() - arrival.since > self._limits.stall:
            reason = "no main channel came for it"
        if reason:
            self._arrivals.remove(arrival)
            self._reject(arrival, reason)

    def _is_next(self, arrival: _Arrival) -> bool:
        now = time.monotonic()
        return not any(
            other.number < arrival.number
            and other.greeting is None
            and now - other.since < _ORDERLY
            for other in self._arrivals
        )

    def _begin(self, origin: str, main: Channel, greeting: ChannelKind) -> None:
        transfer = Transfer(
            next(self._numbers),
            main,
            self._dialer.dial,
            self._judge,
            self._limits,
            self._log,
            recovery=greeting is ChannelKind.RECOVERY,
            origin=origin,
        )
        self._log.write("began", move=transfer.number, peer=main.name, greeting=greeting.value)
        self._transfers.append(transfer)
        transfer.start()
        if self._abort_reason:
            transfer.fail(Ending.CANCELLED, self._abort_reason)
        awaiting = threading.Thread(target=self._await_end, args=(transfer,), daemon=True)
        self._awaiting = [one for one in self._awaiting if one.is_alive()] + [awaiting]
        awaiting.start()

    def _await_end(self, transfer: Transfer) -> None:
        report = transfer.wait()
        self._log.write("ended", **report.document())
        try:
            if self._on_report is not None:
                self._on_report(report)
        except Exception:  # whoever is told, the gateway must come to its own end
            self._log.write(
                "internal-error", move=transfer.number, traceback=traceback.format_exc()
            )
        finally:
            self._reports.append(report)
            self._transfers.remove(transfer)
            self._arrived.put(None)

    def _drop_waiting(self) -> None:
        for arrival in self._arrivals:
            self._reject(arrival, "the gateway ends")

    def _reject(self, arrival: _Arrival, reason: str) -> None:
        if arrival.channel is not None:
            self._turn_away(arrival.channel, reason)
            if arrival.greeting is not None:  # or a thread still listens to it
                arrival.channel.close()

    def _turn_away(self, channel: Channel, reason: str) -> None:
        self.rejected = reason
        self._log.write("rejected", peer=channel.name, reason=reason)
        channel.abort()
        if self._on_rejected is not None:
            self._on_rejected(channel.name, reason)
