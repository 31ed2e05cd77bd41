"""A whole live migration, driven over QMP: decided first, carried by a gateway, verified.

Knows what QEMU must be told and in which order (qapi/migration.json); refuses to know how the
bytes are carried (`gateway`) and how progress is shown. Until the destination has everything,
every way out leaves the guest on the source.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from armferry.errors import ArmferryError
from armferry.ferry.gateway import (
    Dialer,
    Ending,
    Gateway,
    Judge,
    Listener,
    Log,
    Outcome,
    Refused,
)
from armferry.hosts.fingerprint import Fingerprint
from armferry.hosts.machine import MachineSpec
from armferry.hosts.monitor import Monitor, MonitorFault

__all__ = ["Migration", "MigrationFault", "Options", "Progress", "spec_of"]

_POLL = 0.1
_VERIFY_LIMIT = 20.0
_FINAL = ("completed", "failed", "cancelled")
_IMPOSSIBLE = {
    "rdma-pin-all": "RDMA writes guest memory past any gateway",
    "x-colo": "COLO keeps both sides in step for ever",
    "mapped-ram": "mapped-ram is for files",
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
class Progress:
    """Bytes, bytes per second, dirty pages per second, and downtime in milliseconds."""

    status: str
    transferred: int
    remaining: int
    total: int
    rate: float
    dirty_rate: int
    expected_downtime: int


def spec_of(monitor: Monitor) -> MachineSpec:
    """The machine, CPU, accelerator and vCPUs of a running QEMU, to probe another like it."""

    def of(path: str, name: str) -> str:
        return str(monitor.execute("qom-get", {"path": path, "property": name}))

    cpus = monitor.execute("query-cpus-fast")
    accelerated = monitor.execute("query-kvm")["enabled"]
    machine = of("/machine", "type").removesuffix("-machine")
    return MachineSpec(
        machine=f"{machine},gic-version={of('/machine', 'gic-version')}",
        cpu=of(cpus[0]["qom-path"], "type").removesuffix("-arm-cpu"),
        accel="kvm" if accelerated else "tcg",
        smp=len(cpus),
    )


class Migration:
    """One move from `source` to `destination`, whose QEMU waits with `-incoming defer`.

    `listener` is where the source is sent, `dialer` where the destination is told to listen.
    `known_source` is a fingerprint of the source: with it the move is decided before it begins.
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
        known_source: Fingerprint | None = None,
        log: Log | None = None,
    ) -> None:
        self._source = source
        self._destination = destination
        self._listener = listener
        self._dialer = dialer
        self._judge = judge
        self._options = options
        self._known_source = known_source
        self._gateway = Gateway(listener, dialer, judge, log=log)

    def run(self, show: Callable[[Progress], None]) -> Outcome:
        """Makes the move; `show` is called some times a second.

        Raises Refused, MigrationFault, MonitorFault; KeyboardInterrupt once it was cancelled.
        """
        before = self._check()
        self._decide()
        self._prepare()
        outcomes: list[Outcome] = []
        carrying = threading.Thread(target=lambda: outcomes.extend(self._gateway.run()))
        carrying.start()
        try:
            self._destination.execute("migrate-incoming", {"uri": str(self._dialer.address)})
            self._source.execute("migrate", {"uri": str(self._listener.address)})
            status = self._follow(show)
        except BaseException:
            self._cancel()
            raise
        finally:
            self._stop(carrying)
        outcome = outcomes[0] if outcomes else None
        if status != "completed" or outcome is None or not outcome.moved:
            reason = outcome.reason if outcome else "the source never connected"
            if outcome is not None and outcome.ending is Ending.REFUSED:
                raise Refused(f"{reason}; {self._where()}")
            raise MigrationFault(f"the move {status}: {reason}; {self._where()}")
        self._verify(before)
        return outcome

    def _check(self) -> str:
        """The source's run state; raises MigrationFault for what cannot work."""
        waiting = self._destination.execute("query-status")["status"]
        if waiting != "inmigrate":
            raise MigrationFault(
                f"{self._destination.address}: this QEMU does not wait for a guest (it is "
                f"{waiting}); start it with -incoming defer"
            )
        for monitor in (self._source, self._destination):
            for one in monitor.execute("query-migrate-capabilities"):
                if one["state"] and one["capability"] in _IMPOSSIBLE:
                    raise MigrationFault(
                        f"{monitor.address}: the capability {one['capability']} is on: "
                        f"{_IMPOSSIBLE[one['capability']]}; turn it off"
                    )
        state: str = self._source.execute("query-status")["status"]
        return state

    def _decide(self) -> None:
        if self._known_source is None:
            return
        judgement = self._judge.foresee(self._known_source)
        if not judgement.accepted:
            raise Refused(f"the move is refused: {judgement.reason}; nothing was begun")

    def _prepare(self) -> None:
        wanted = ("return-path", *self._options.capabilities)
        on = [{"capability": name, "state": True} for name in dict.fromkeys(wanted)]
        for monitor in (self._source, self._destination):
            monitor.execute("migrate-set-capabilities", {"capabilities": on})
            if self._options.parameters:
                monitor.execute("migrate-set-parameters", self._options.parameters)

    def _follow(self, show: Callable[[Progress], None]) -> str:
        began = time.monotonic()
        switched = self._options.postcopy_after is None
        while True:
            state = self._source.execute("query-migrate")
            status: str = state.get("status", "none")
            show(_progress(status, state))
            if status in _FINAL:
                return status
            if not switched and time.monotonic() - began > (self._options.postcopy_after or 0):
                self._source.execute("migrate-start-postcopy")
                switched = True
            time.sleep(_POLL)

    def _cancel(self) -> None:
        """Ends the move at the source, which then runs on; the gateway closes both sides."""
        try:
            self._source.execute("migrate_cancel")
            deadline = time.monotonic() + _VERIFY_LIMIT
            while time.monotonic() < deadline:
                if self._source.execute("query-migrate").get("status", "none") in (*_FINAL, "none"):
                    return
                time.sleep(_POLL)
        except MonitorFault:
            return  # the source itself is gone: nothing is left to cancel
        finally:
            self._gateway.abort("cancelled")

    def _stop(self, carrying: threading.Thread) -> None:
        # the gateway ends with its move; one that never began is ended here
        if not self._gateway.moves:
            self._gateway.stop()
        carrying.join()

    def _where(self) -> str:
        state = self._source.execute("query-status")["status"]
        return f"the guest is on the source ({state})"

    def _verify(self, before: str) -> None:
        """Raises MigrationFault unless the guest is on the destination as it was on the source."""
        wanted = ("running",) if before == "running" else ("paused", "prelaunch", before)
        deadline = time.monotonic() + _VERIFY_LIMIT
        while True:
            state = self._destination.execute("query-status")["status"]
            if state in wanted or (before == "running" and state == "paused"):
                return  # paused: it was started with -S, for whoever is to say `cont`
            if time.monotonic() > deadline:
                raise MigrationFault(
                    f"the destination has the guest but is {state}; it was {before} before"
                )
            time.sleep(_POLL)


def _progress(status: str, state: Mapping[str, Any]) -> Progress:
    memory = state.get("ram", {})
    return Progress(
        status=status,
        transferred=memory.get("transferred", 0),
        remaining=memory.get("remaining", 0),
        total=memory.get("total", 0),
        rate=memory.get("mbps", 0.0) * 1e6 / 8,
        dirty_rate=memory.get("dirty-pages-rate", 0),
        expected_downtime=state.get("expected-downtime", 0),
    )
