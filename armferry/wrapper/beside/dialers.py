"""Connections to a wrapped QEMU, or to where it migrates: patient ones, and one that is there."""

import socket
import time
from collections.abc import Callable

from armferry.gateway import Address, Dialer, NetworkFault
from armferry.gateway.address import FdAddress
from armferry.gateway.channel import Channel, SocketChannel

__all__ = ["GivenDialer", "PatientDialer"]

_PATIENCE = 60.0
_TICK = 0.01


class PatientDialer(Dialer):
    """Waits for a QEMU that has been told to listen and does not do so yet."""

    def __init__(self, address: Address, alive: Callable[[], bool]) -> None:
        super().__init__(address)
        self._alive = alive

    def dial(self) -> Channel:
        """A connection to QEMU. Raises NetworkFault when it has gone or does not listen."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return super().dial()
            except NetworkFault:
                if not self._alive() or time.monotonic() > deadline:
                    raise
            time.sleep(_TICK)


class GivenDialer(Dialer):
    """Has one connection to give, and closes it when nobody wanted it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(FdAddress(descriptor))
        self._given: socket.socket | None = socket.socket(fileno=descriptor)

    def dial(self) -> Channel:
        """The connection. Raises NetworkFault when it was given already."""
        given, self._given = self._given, None
        if given is None:
            raise NetworkFault(f"{self.address}: a descriptor carries one channel only")
        return SocketChannel(given, str(self.address))

    def close(self) -> None:
        """Closes it unless it was given."""
        given, self._given = self._given, None
        if given is not None:
            given.close()
