"""Work on many lab hosts, two at a time, that ends soon when it is given up.

Whatever ends one piece of it (a host that failed, a person who has seen enough) powers off the
hosts of the others: they end too, instead of going on for minutes that nobody waits for.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TypeVar

from armferry.lab.host import HostSpec, LabHost

__all__ = ["Hosts", "two_at_once"]

_AT_ONCE = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


class Hosts:
    """The hosts that one run has booted. `error` is what ended the run first, if anything did."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._booted: list[LabHost] = []
        self.error: BaseException | None = None

    def boot(self, spec: HostSpec) -> LabHost:
        """A host; the caller closes it. Raises `LabHostFault`."""
        host = LabHost(spec)
        with self._lock:
            self._booted.append(host)
            if self.error is not None:
                host.close()
        return host

    def give_up(self, error: BaseException) -> None:
        """Power off every host, also those that are still to boot."""
        with self._lock:
            self.error = self.error or error
            for host in self._booted:
                host.close()


def two_at_once(work: Callable[[Hosts, Item], Result], items: Iterable[Item]) -> list[Result]:
    """`work` for every item, results in their order; the first error ends all of it."""
    hosts = Hosts()

    def piece(item: Item) -> Result:
        if hosts.error is not None:
            raise CancelledError
        try:
            return work(hosts, item)
        except BaseException as error:
            hosts.give_up(error)
            raise

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = [pool.submit(piece, item) for item in items]
        try:
            return [future.result() for future in running]
        except BaseException as error:
            hosts.give_up(error)
            pool.shutdown(wait=False, cancel_futures=True)
            # not what became of a host that was powered off because of it
            raise hosts.error or error from None
