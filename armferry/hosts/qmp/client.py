"""The QMP monitor of a QEMU that somebody else started.

Synchronous outside; inside, a thread of its own runs qemu.qmp's asyncio client, so that events
are taken in at all times. Knows how to ask, not what.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from qemu.qmp import QMPClient, QMPError
from qemu.qmp.qmp_client import ExecuteError

from armferry.errors import ArmferryError, EnvironmentFault

__all__ = ["CommandRefused", "Monitor", "MonitorFault"]

_T = TypeVar("_T")
_PORT = re.compile(r"[0-9]{1,5}")


class MonitorFault(EnvironmentFault):
    """A monitor that cannot be reached, or that does not answer."""


class CommandRefused(MonitorFault):
    """QEMU answered a command with an error."""


class Monitor:
    """A connection to the monitor at `unix:PATH` or `tcp:HOST:PORT`; a context manager.

    `limit`, in seconds, bounds each command. Raises MonitorFault or ArmferryError.
    """

    def __init__(self, address: str, *, limit: float = 20.0) -> None:
        self.address = address
        self._limit = limit
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._client = QMPClient("armferry")
        # the caller is told of every failure; the client's own log would only repeat it
        self._client.logger.setLevel("CRITICAL")
        where = _where(address)
        self._thread.start()
        try:
            self._run(self._client.connect(where), "connecting")
        except (QMPError, OSError) as error:
            self._end()
            raise MonitorFault(f"{address}: no QMP monitor answers: {error}") from error
        except MonitorFault:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """What the command returns. Raises CommandRefused or MonitorFault."""
        try:
            work = self._client.execute(command, dict(arguments) if arguments else None)
            return self._run(work, command)
        except ExecuteError as error:
            raise CommandRefused(f"{self.address}: {command} was refused: {error}") from error
        except QMPError as error:
            raise MonitorFault(f"{self.address}: QEMU went away during {command}") from error

    def close(self) -> None:
        """Lets go of the monitor; the QEMU runs on."""
        # a QEMU that went away meanwhile makes this fail with whatever ended the connection
        with contextlib.suppress(Exception):
            self._run(self._client.disconnect(), "disconnecting")
        self._end()

    def _run(self, work: Coroutine[Any, Any, _T], what: str) -> _T:
        async def limited() -> _T:
            return await asyncio.wait_for(work, self._limit)

        try:
            return asyncio.run_coroutine_threadsafe(limited(), self._loop).result()
        except TimeoutError:
            raise MonitorFault(
                f"{self.address}: no answer to {what} in {self._limit:g} s"
            ) from None

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _where(address: str) -> str | tuple[str, int]:
    kind, _, rest = address.partition(":")
    host, _, port = rest.rpartition(":")
    if kind == "unix" and rest:
        return rest
    if kind == "tcp" and _PORT.fullmatch(port) and int(port) <= 65_535:
        return host.strip("[]"), int(port)
    raise ArmferryError(f"{address!r} is no QMP address; accepted: unix:PATH, tcp:HOST:PORT")
