"""A whole live migration, driven over QMP: decided first, carried by a gateway, verified.

Knows which commands QEMU needs and in which order (qapi/migration.json); refuses to know how the
bytes are carried (`gateway`) and how progress is shown. Until the destination has everything,
every way out leaves the guest on the source, and both QEMUs set as they were. Once a move has
switched to postcopy the guest is on both sides and nothing may end it any more.
"""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from armferry.ends import End
from armferry.errors import ArmferryError
from armferry.gateway import (
    Dialer,
    Ending,
    Gateway,
    GatewayError,
    Judge,
    Listener,
    Log,
    Refused,
    TransferReport,
)
from armferry.gateway.settings import Settings
from armferry.hosts.qmp.around import around
from armferry.hosts.qmp.client import CommandRefused, Monitor, MonitorFault

__all__ = ["Migration", "MigrationFault", "MigrationProgress", "Options"]

_POLL = 0.1
_VERIFY_LIMIT = 20.0
_LEAVING_LIMIT = 5.0
_FINAL = ("completed", "failed", "cancelled")
_PAUSED = "postcopy-paused"
_WAITS = "inmigrate"
_IMPOSSIBLE = {
    "rdma-pin-all": "RDMA writes guest memory past any gateway",
    "x-colo": "COLO keeps both sides in step for ever",
    "mapped-ram": "mapped-ram is for files",
    "background-snapshot": "a snapshot leaves the guest on the source",
    "dirty-bitmaps": "bitmaps of disks travel in sections that cannot be delimited",
    "block": "disks travel in sections that cannot be delimited",
}


class MigrationFault(ArmferryError):
    """A move that was not made; the message says where the guest is now."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Options:
    """`capabilities` are turned on at both ends beside return-path; `parameters` are set at both.

    After `postcopy_after` seconds the move is switched to postcopy; None never does.
    """

    capabilities: tuple[str, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    postcopy_after: float | None = None


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """Bytes, bytes per second, dirty pages per second, and downtime in milliseconds."""

    status: str
    transferred: int
    remaining: int
    total: int
    rate: float
    dirty_rate: int
    expected_downtime: int


class _Carrying:
    """A gateway in a thread of its own."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._reports: list[TransferReport] = []
        self._fault: ArmferryError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> TransferReport | None:
        """How the move ended, once it has; None for one that never began. Raises NetworkFault."""
        if not self._gateway.transfers:
            self._gateway.stop()
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        return self._reports[0] if self._reports else None

    def _run(self) -> None:
        try:
            self._reports = self._gateway.run()
        except ArmferryError as fault:
            self._fault = fault


class Migration:
    """One move from `source` to `destination`, whose QEMU waits with `-incoming defer`.

    `listener` is where the source is sent, `dialer` where the destination is to listen.
    `known_source` is a fingerprint of the source: with it the move is decided before it begins.
    `context` terminates TLS from the source, whose certificate names one of `authorized` unless
    that is None. `tell` is called with what a person should know.
    """

    def __init__(
        self,
        source: Monitor,
        destination: Monitor,
        listener: Listener,
        dialer: Dialer,
        judge: Judge,
        options: Options,
        *,
        known_source: End | None = None,
        context: ssl.SSLContext | None = None,
        authorized: frozenset[str] | None = None,
        log: Log | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._destination = destination
        self._listener = listener
        self._dialer = dialer
        self._judge = judge
        self._options = options
        self._known_source = known_source
        self._encrypted = context is not None
        self._tell = tell
        self._gateway = Gateway(
            listener, dialer, judge, context=context, authorized=authorized, log=log
        )
        self.report: TransferReport | None = None
        """What the gateway has to say, once it has; also of a move that failed."""
        self.downtime: int | None = None
        """Milliseconds that the guest stood still, as the source counts them."""
        self.waits = False
        """Whether the guest has arrived and waits for somebody to say `cont`."""

    def run(self, show: Callable[[MigrationProgress], None]) -> TransferReport:
        """Makes the move; `show` is called some times a second.

        Raises Refused, MigrationFault, MonitorFault, GatewayError; KeyboardInterrupt once it was
        cancelled.
        """
        before, settings = self._check()
        self._compare()
        self._decide()
        with _changed(settings, ("return-path", *self._options.capabilities), self._options):
            status, reason = self._carry(show)
            report = self.report
            if status != "completed" or report is None or not report.moved:
                self._explain(status, reason)
        self._verify(before)
        return report

    def _check(self) -> tuple[str, tuple[Settings, Settings]]:
        """The source's run state, and how both are set. Raises what cannot work."""
        waiting = self._destination.execute("query-status")["status"]
        if waiting != _WAITS:
            raise MigrationFault(
                f"{self._destination.address}: this QEMU does not wait for a guest (it is "
                f"{waiting}); start it with -incoming defer"
            )
        settings = Settings(self._source), Settings(self._destination)
        for name in self._options.capabilities:
            if name in _IMPOSSIBLE:
                raise GatewayError(
                    f"--capability {name} cannot be honoured: {_IMPOSSIBLE[name]}; leave it out"
                )
        for one, encrypted, option in zip(
            settings,
            (self._encrypted, self._dialer.encrypted),
            ("--tls-listen", "--tls-connect"),
            strict=True,
        ):
            for name in sorted(one.capabilities & _IMPOSSIBLE.keys()):
                raise MigrationFault(
                    f"{one.address}: the capability {name} is on: {_IMPOSSIBLE[name]}; turn it off"
                )
            if one.credentials and not encrypted:
                raise MigrationFault(
                    f"{one.address}: its migrations use TLS (tls-creds is {one.credentials}), "
                    f"which cannot pass through unread: give credentials with {option}, or set "
                    "tls-creds to an empty text"
                )
            if encrypted and not one.credentials:
                raise MigrationFault(
                    f"{one.address}: {option} is given, but its migrations use no TLS: add a "
                    "tls-creds-x509 object there and set the parameter tls-creds to its id"
                )
        state: str = self._source.execute("query-status")["status"]
        return state, settings

    def _compare(self) -> None:
        """Raises Refused for what no load gets past: both QEMUs run and say what they have."""
        here, there = (
            around(one.execute, CommandRefused) for one in (self._source, self._destination)
        )
        refused = [*self._judge.apart(here, there), *there.lacks(here)]
        if refused:
            raise Refused(f"the move is refused: {'; '.join(refused)}; nothing was begun")

    def _decide(self) -> None:
        if self._known_source is None:
            if self._options.postcopy_after is not None:
                raise GatewayError(
                    "after the switch to postcopy a source cannot go on by itself, so such a move "
                    "must be decided before it begins: give --source-qemu or --source-fingerprint"
                )
            self._tell(
                "the source's registers are not known before it sends them, so it is decided on "
                "the way; --source-qemu or --source-fingerprint decides before the move begins"
            )
            return
        judgement = self._judge.foresee(self._known_source)
        if not judgement.accepted:
            raise Refused(f"the move is refused: {judgement.reason}; nothing was begun")

    # -- under way

    def _carry(self, show: Callable[[MigrationProgress], None]) -> tuple[str, str]:
        """The source's last word and its reason; `report` is set."""
        carrying = _Carrying(self._gateway)
        try:
            self._destination.execute("migrate-incoming", {"uri": str(self._dialer.address)})
            self._source.execute("migrate", {"uri": str(self._listener.address)})
            state = self._follow(show)
            if state.get("status") == _PAUSED:
                self._gateway.abort("the network failed")
        except KeyboardInterrupt:
            self._end_early()
            state = self._source.execute("query-migrate")
            if state.get("status") != "completed":
                raise
            self._tell("it was too late to cancel: the move was complete")
        except BaseException:
            self._end_early()
            raise
        finally:
            self.report = carrying.finish()
            if self.report is None or not self.report.moved:
                self._leave_clean()
        self.downtime = state.get("downtime")
        return str(state.get("status", "none")), str(state.get("error-desc", ""))

    def _follow(self, show: Callable[[MigrationProgress], None]) -> Mapping[str, Any]:
        began = time.monotonic()
        switched = self._options.postcopy_after is None
        told = False
        while True:
            try:
                state: Mapping[str, Any] = self._source.execute("query-migrate")
                status = str(state.get("status", "none"))
                show(_progress(status, state))
                if status in (*_FINAL, _PAUSED):
                    return state
                if status == "pre-switchover":
                    # nobody else drives this move, so nobody else would let it go on
                    with contextlib.suppress(CommandRefused):
                        self._source.execute("migrate-continue", {"state": status})
                late = time.monotonic() - began > (self._options.postcopy_after or 0)
                if late and not switched and status == "active":
                    self._source.execute("migrate-start-postcopy")
                    switched = True
                time.sleep(_POLL)
            except KeyboardInterrupt:
                if not self._in_postcopy():
                    raise
                if not told:
                    self._tell(
                        "too late to cancel: the guest runs on the destination and the rest of "
                        "its memory must follow; waiting for it"
                    )
                told = True

    def _in_postcopy(self) -> bool:
        """Whether the guest is on the destination already and some of its memory is not."""
        status: str = self._source.execute("query-migrate").get("status", "none")
        return status.startswith("postcopy")

    def _end_early(self) -> None:
        """Ends the move at the source, which then runs on; the gateway closes both sides."""
        try:
            if self._in_postcopy():
                return  # both sides would lose the guest; the gateway carries what there is
            self._source.execute("migrate_cancel")
            deadline = time.monotonic() + _VERIFY_LIMIT
            while time.monotonic() < deadline:
                if self._source.execute("query-migrate").get("status", "none") in (*_FINAL, "none"):
                    break
                time.sleep(_POLL)
        except MonitorFault:
            return  # the source is gone, which ends the move, or it is stuck and goes on by itself
        self._gateway.abort("cancelled")

    # -- the end

    def _explain(self, status: str, reason: str) -> NoReturn:
        """Raises what became of a move that did not arrive."""
        report = self.report
        if report is not None and report.ending is Ending.REFUSED:
            raise Refused(f"{report.reason}; {self._where()}")
        if status == _PAUSED:
            raise MigrationFault(
                "the network failed after the switch to postcopy: the guest waits on the "
                "destination for the rest of its memory, and nothing is lost while both QEMUs "
                "live. Start `armferry gateway` between them, then: migrate-recover on the "
                "destination, and migrate with resume=true on the source"
            )
        why = [reason, report.reason if report else "the source never got through"]
        if report is None and self._gateway.rejected:
            why.append(self._gateway.rejected)
        raise MigrationFault(f"the move {status}: {': '.join(filter(None, why))}; {self._where()}")

    def _where(self) -> str:
        state = self._source.execute("query-status")["status"]
        return f"the guest is on the source ({state})"

    def _leave_clean(self) -> None:
        """Ends a destination that can take no guest any more, as QEMU itself does mostly.

        Once it listens it can neither listen elsewhere nor go back.
        """
        deadline = time.monotonic() + _LEAVING_LIMIT
        with contextlib.suppress(MonitorFault):
            if self._in_postcopy():
                return
            while self._destination.execute("query-status")["status"] == _WAITS:
                if time.monotonic() > deadline:
                    self._destination.execute("quit")
                    return
                time.sleep(_POLL)

    def _verify(self, before: str) -> None:
        """Raises MigrationFault unless the guest is on the destination as it was on the source."""
        wanted = ("running",) if before == "running" else ("paused", "prelaunch", before)
        deadline = time.monotonic() + _VERIFY_LIMIT
        while True:
            state = self._destination.execute("query-status")["status"]
            # it was started with -S, for somebody else to say `cont`
            self.waits = before == "running" and state == "paused"
            if state in wanted or self.waits:
                return
            if time.monotonic() > deadline:
                raise MigrationFault(
                    f"the destination has the guest but is {state}; it was {before} before"
                )
            time.sleep(_POLL)


@contextlib.contextmanager
def _changed(
    settings: tuple[Settings, ...], capabilities: tuple[str, ...], options: Options
) -> Iterator[None]:
    """Both QEMUs set for the move, and as they were before once it is over."""
    try:
        for one in settings:
            one.change(capabilities, options.parameters)
        yield
    finally:
        for one in settings:
            one.put_back()


def _progress(status: str, state: Mapping[str, Any]) -> MigrationProgress:
    memory = state.get("ram", {})
    return MigrationProgress(
        status=status,
        transferred=memory.get("transferred", 0),
        remaining=memory.get("remaining", 0),
        total=memory.get("total", 0),
        rate=memory.get("mbps", 0.0) * 1e6 / 8,
        dirty_rate=memory.get("dirty-pages-rate", 0),
        expected_downtime=state.get("expected-downtime", 0),
    )
