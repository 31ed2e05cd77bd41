"""The process beside a wrapped QEMU: serves its monitors and carries its migrations.

It is no parent of QEMU and QEMU none of it: the process that was started becomes QEMU, so that
its id, signals, exit status and descriptors are QEMU's own. How long QEMU lives is known by a
pipe that QEMU holds without knowing it: its end is the end of every process QEMU has become.
"""

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from armferry.errors import ArmferryError
from armferry.gateway import Judge
from armferry.wrapper.beside.boundary_reports import BoundaryReports
from armferry.wrapper.beside.judges import PendingJudge
from armferry.wrapper.beside.outgoing_judge import HidingJudge
from armferry.wrapper.beside.process_end import Life, ready
from armferry.wrapper.beside.transfers import Transfers
from armferry.wrapper.commandline.fdsets import FdSets
from armferry.wrapper.commandline.uri import Target
from armferry.wrapper.relay.endpoints import Endpoint

__all__ = ["Service", "in_background"]

_LAST_WORDS = 10.0
_LAST_MOVES = 600.0
_STREAMS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Service:
    """What to do beside QEMU.

    `judge` makes the judge of what comes, None where nothing can; `incoming` is the address of
    `-incoming` and the private path QEMU listens on instead; `prepare` is done before any monitor
    is served, with a function that tells whether QEMU lives. `paths` are removed at the end.
    `fdsets` are (set, descriptor) of the command line. `reports` is where the library at the KVM
    boundary reports to, None where it is not used.
    """

    folder: Path
    endpoints: Sequence[Endpoint]
    judge: Callable[[], Judge] | None
    outgoing: HidingJudge | None
    incoming: tuple[Target, str] | None
    daemonize: bool
    paths: Sequence[str] = ()
    prepare: Callable[[Callable[[], bool]], None] | None = None
    fdsets: Sequence[tuple[int, int]] = ()
    reports: socket.socket | None = None

    def run(self, life: int, parent: int) -> None:
        """Until QEMU has gone and what it still had to send is sent."""
        alive = Life(life)
        transfers = Transfers(
            self.folder,
            None if self.judge is None else PendingJudge(_begun(self.judge)),
            self.outgoing,
            alive=alive,
            notify=_notify,
            fdsets=FdSets(self.fdsets),
        )
        boundary = None
        if self.reports is not None:
            boundary = BoundaryReports(self.reports, parent, _notify)
        try:
            if boundary is not None:
                boundary.start()
            if self.incoming is not None:
                transfers.listen(*self.incoming)
            if self.daemonize:
                threading.Thread(target=_let_go, args=(parent,), daemon=True).start()
            if self.prepare is not None:
                self.prepare(alive)
            for endpoint in self.endpoints:
                endpoint.serve(transfers, alive)
            alive.wait()
            for endpoint in self.endpoints:
                endpoint.finish(_LAST_WORDS)
            if boundary is not None:
                boundary.finish(_LAST_WORDS)
            transfers.finish(_LAST_MOVES)
        except ArmferryError as error:
            _notify(str(error))
        finally:
            for endpoint in self.endpoints:
                endpoint.remove()
            for path in self.paths:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            shutil.rmtree(self.folder, ignore_errors=True)


def in_background(work: Callable[[int, int], None], keep: Callable[[int], bool]) -> None:
    """Starts `work` in a process of its own that outlives this one's next program.

    It is called with the pipe's end and this process's id. Of the descriptors of this process it
    keeps those that `keep` wants.
    """
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    parent = os.getpid()
    child = os.fork()
    if child:
        os.close(reading)
        os.waitpid(child, 0)
        return
    status = 0
    try:
        os.setsid()
        if os.fork() == 0:
            status = 1
            os.close(writing)
            for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
            _close_others({reading, *_STREAMS}, keep)
            work(reading, parent)
            status = 0
    except BaseException as error:
        sys.stderr.write(f"armferry: {error!r}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)


def _begun(make: Callable[[], Judge]) -> "Future[Judge]":
    future: Future[Judge] = Future()

    def work() -> None:
        try:
            future.set_result(make())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def _let_go(parent: int) -> None:
    """Leaves the standard streams when a QEMU that becomes a daemon does."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(parent)
        ready(descriptor, None)
        os.close(descriptor)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in _STREAMS:
        os.dup2(null, stream)
    os.close(null)


def _close_others(kept: Collection[int], keep: Callable[[int], bool]) -> None:
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number not in kept and not keep(number):
            with contextlib.suppress(OSError):  # the one that listed the folder is closed already
                os.close(number)


def _notify(message: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens
        sys.stderr.write(f"armferry: {message}\n")
        sys.stderr.flush()
