"""A QEMU with the Linux guest in it: its serial line kept in a file, and written to.

The guest's console is a socket that QEMU connects to, so that source and destination of a move can
share one log and commands reach the QEMU that runs the guest at the time.
"""

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from armferry.errors import EnvironmentFault
from armferry.hosts.qmp.process import Launchable, MachineSpec, QemuProcess
from armferry.lab.kernels import Kernel
from armferry.lab.linux.build import initial_ramdisk
from armferry.lab.linux.log import LinuxLog
from armferry.lab.patience import patient

__all__ = ["GuestSilent", "LinuxMachine", "LinuxSpec"]

_POLL = 0.1
_SETTLED = 6
"""Ticks after which every worker has been round its subject."""


class GuestSilent(EnvironmentFault):
    """The guest did not do what it was waited for. The message ends with its last lines."""


@dataclass(frozen=True, slots=True)
class LinuxSpec:
    """What to start: as `MachineSpec`, with a kernel of the lab. `memory` is in MiB.

    `append` is added to the kernel's command line; `armferry.light` makes the workload rest more.
    """

    kernel: Kernel
    machine: str = "virt-7.2,gic-version=3"
    cpu: str = "max"
    smp: int = 2
    memory: int = 256
    append: str = ""
    extra: tuple[str, ...] = ()

    def machine_spec(self) -> MachineSpec:
        """The words for QEMU, without the console."""
        append = f"console=ttyAMA0 quiet loglevel=1 panic=-1 {self.append}".rstrip()
        words = ("-initrd", str(initial_ramdisk()), "-append", append, *self.extra)
        return MachineSpec(
            machine=self.machine,
            cpu=self.cpu,
            smp=self.smp,
            memory=self.memory,
            kernel=self.kernel.image,
            extra=words,
        )


class LinuxMachine:
    """A running QEMU with the Linux guest; a context manager that leaves no process behind.

    `log` is the file that the serial line is appended to. `machine` is the QEMU process, for saving
    and loading. `time_limit`, in seconds, bounds every wait for the guest; by default minutes,
    and more on a busy machine.
    """

    def __init__(
        self,
        qemu: Launchable | Path | str,
        spec: LinuxSpec,
        log: Path,
        *,
        incoming: bool = False,
        time_limit: float | None = None,
    ) -> None:
        time_limit = time_limit or patient(150.0)
        self.log_path = log
        self.time_limit = time_limit
        self._resources = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            folder = self._resources.enter_context(tempfile.TemporaryDirectory(prefix="armferry-"))
            self._console = self._resources.enter_context(_Console(Path(folder, "console")))
            plain = spec.machine_spec()
            with_console = replace(plain, extra=(*plain.extra, *self._console.words(log)))
            self.machine = self._resources.enter_context(
                QemuProcess(qemu, with_console, incoming=incoming, time_limit=time_limit)
            )
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends QEMU. May be called twice."""
        self._resources.close()

    @property
    def log(self) -> LinuxLog:
        """All that the guest has printed so far."""
        return LinuxLog.read(self.log_path)

    def wait(self, what: str, done: Callable[[LinuxLog], bool]) -> LinuxLog:
        """The log once it is as `done` says; soon after the guest is found dead, too.

        Raises GuestSilent when time is up.
        """
        deadline = time.monotonic() + self.time_limit
        while not done(log := self.log):
            if log.odd or time.monotonic() > deadline:
                time.sleep(_POLL)
                log = self.log
                if done(log):
                    break
                end = "".join(f"\n    {line}" for line in self._last_lines())
                raise GuestSilent(f"the Linux guest: {what} did not happen; it printed last:{end}")
            time.sleep(_POLL)
        return log

    def settled(self) -> LinuxLog:
        """The log once the guest has started and worked for some ticks. Raises GuestSilent."""
        return self.wait("its start", lambda log: log.last >= _SETTLED)

    def started_again(self, before: LinuxLog) -> LinuxLog:
        """The log once the guest has started anew after `before` and worked for some ticks.

        Raises GuestSilent.
        """
        starts = len(before.kernels) + 1
        return self.wait(
            "a new start", lambda log: len(log.kernels) == starts and log.last >= _SETTLED
        )

    def ticks(self, count: int) -> LinuxLog:
        """The log after `count` ticks more. Raises GuestSilent."""
        begin = len(self.log.ticks)
        return self.wait(f"{count} ticks more", lambda log: len(log.ticks) >= begin + count)

    def ask(self, command: str) -> str:
        """What became of a command (`offline 1`, `cache 1`). Raises GuestSilent."""
        before = len(self.log.answers)
        self.send(command)
        log = self.wait(f"an answer to {command!r}", lambda log: len(log.answers) > before)
        return log.answers[before][1]

    def send(self, command: str) -> None:
        """Gives a command to the guest."""
        self._console.send(f"{command}\n".encode())

    def _last_lines(self) -> list[str]:
        if not self.log_path.exists():
            return []
        return self.log_path.read_text("utf-8", "replace").splitlines()[-12:]


class _Console:
    """The near end of the guest's serial line: what comes is thrown away, QEMU keeps it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._connection: socket.socket | None = None
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._drain, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def words(self, log: Path) -> tuple[str, ...]:
        """QEMU's words for the first serial port."""
        name = str(log).replace(",", ",,")
        chardev = f"socket,id=console,path={self._path},logfile={name},logappend=on"
        return ("-chardev", chardev, "-serial", "chardev:console")

    def send(self, data: bytes) -> None:
        self._connected.wait()
        assert self._connection is not None
        self._connection.sendall(data)

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            self._connection, _ = self._listener.accept()
            self._connected.set()
            with self._connection as connection:
                while connection.recv(1 << 16):
                    pass
