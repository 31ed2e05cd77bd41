"""The reports of the library in one QEMU, read while it runs and printed on standard error.

Reports that come together are printed together, one line for each thing that was done. A QEMU that
does not make its VM under the library within two minutes is ended: it would run without what was
asked.
"""

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable

from armferry.boundary import Event, EventKind, events_of, lines_of

__all__ = ["BoundaryReports"]

_QUIET = 200  # milliseconds without a report that end a group of them
_PATIENCE = 120.0  # seconds until a VM is made
_CHUNK = 1 << 16
_UNPRINTED = (EventKind.STARTED, EventKind.MET)


class BoundaryReports:
    """Reads `reports` until QEMU, process `qemu`, has gone; `notify` is called with each line."""

    def __init__(self, reports: socket.socket, qemu: int, notify: Callable[[str], None]) -> None:
        self._reports = reports
        self._qemu = qemu
        self._notify = notify
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def finish(self, limit: float) -> None:
        """Waits until everything is printed, no longer than `limit` seconds."""
        self._thread.join(limit)

    def _run(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self._qemu)
            try:
                self._read(descriptor)
            finally:
                os.close(descriptor)

    def _read(self, qemu: int) -> None:
        poll = select.poll()
        poll.register(self._reports.fileno(), select.POLLIN)
        deadline = time.monotonic() + _PATIENCE
        met = False
        group: list[Event] = []
        while True:
            left = None if met else max(0, int(1000 * (deadline - time.monotonic())))
            if not poll.poll(_QUIET if group else left):
                if group:
                    self._print(group)
                    group = []
                    continue
                self._notify("the KVM boundary is not in this QEMU, which is ended")
                signal.pidfd_send_signal(qemu, signal.SIGKILL)
                return
            message = self._reports.recv(_CHUNK)
            if not message:
                self._print(group)
                return
            found = list(events_of(message))
            met = met or any(one.kind is EventKind.MET for one in found)
            group += [one for one in found if one.kind not in _UNPRINTED]

    def _print(self, group: list[Event]) -> None:
        for line in lines_of(group):
            self._notify(f"KVM boundary: {line}")
