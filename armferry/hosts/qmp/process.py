"""One QEMU process under control: started, saved, loaded, stopped and always reaped.

For probes, tests and the lab. QMP travels over a socket pair that QEMU inherits: there is no path
to clean up and a QEMU that dies is noticed at once. The standard library only, for hosts with a
plain Python.

It knows QEMU's command line and QMP from 5.2 on (docs/interop/qmp-spec, qapi/migration.json) and
nothing of what is in a stream.
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from armferry.errors import EnvironmentFault
from armferry.hosts.qmp.client import (
    UNLIMITED,
    CommandRefused,
    MonitorFault,
    MonitorSilent,
    QmpClient,
)

__all__ = [
    "BARE",
    "Launchable",
    "LoadResult",
    "MachineSpec",
    "QemuProcess",
    "QemuProcessError",
    "RefusedByQemu",
]

BARE = ("-nodefaults", "-no-user-config", "-display", "none")
"""Words for a QEMU without devices, configuration or window."""
_POLL = 0.01
_QUIT_LIMIT = 5.0


class Launchable(Protocol):
    """A QEMU that is installed somewhere: `launcher` is the program to run."""

    @property
    def launcher(self) -> Path:
        """The program, taking QEMU's own arguments."""


class QemuProcessError(EnvironmentFault):
    """A QEMU did not do what it was asked.

    The message goes on with what QEMU wrote to its standard error, also kept in `stderr`; None for
    a program that never ran. A `command` comes last, for it is long.
    """

    def __init__(self, message: str, stderr: str | None, command: str = "") -> None:
        self.stderr = stderr or ""
        if stderr is None:
            super().__init__(message)
            return
        quoted = "".join(f"\n    {line}" for line in stderr.splitlines())
        said = f"; QEMU said:{quoted}" if quoted else "; QEMU wrote nothing to its standard error"
        super().__init__(message + said + (f"\n  It was: {command}" if command else ""))


class RefusedByQemu(QemuProcessError):
    """QEMU answered a command with an error."""


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What to start. Source and destination of a move are usually the same spec, two QEMUs.

    `memory` is in MiB. `extra` are further words of QEMU's command line.
    """

    machine: str = "virt"
    cpu: str = "cortex-a57"
    accel: str = "tcg"
    smp: int = 1
    memory: int = 64
    kernel: Path | None = None
    extra: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """QEMU's words for this machine, without devices, display or monitor."""
        words = [*BARE, "-machine", self.machine, "-accel", self.accel, "-cpu", self.cpu]
        words += ["-smp", str(self.smp), "-m", str(self.memory)]
        if self.kernel is not None:
            words += ["-kernel", str(self.kernel)]
        return [*words, *self.extra]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """How loading a stream ended; `stderr` is all that QEMU wrote, `exit_status` if it ended."""

    loaded: bool
    stderr: str
    exit_status: int | None


class QemuProcess:
    """A running QEMU; a context manager that leaves no process behind.

    `qemu` is an installed release or the path of a program. `serial` is a file that the first
    serial port is appended to, so that source and destination of a move can share one.
    `paused` starts the vCPUs stopped (`-S`). With `incoming` the QEMU waits for `load` or
    `load_uri`. It inherits `environment` (default: this process's) and `descriptors`.
    `time_limit`, in seconds, bounds every single step. Raises QemuProcessError
    when QEMU does not start.
    """

    def __init__(
        self,
        qemu: Launchable | Path | str,
        spec: MachineSpec | Sequence[str] | None = None,
        *,
        paused: bool = False,
        incoming: bool = False,
        serial: Path | None = None,
        time_limit: float = 60.0,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        program = Path(qemu) if isinstance(qemu, Path | str) else qemu.launcher
        spec = MachineSpec() if spec is None else spec
        words = spec.arguments() if isinstance(spec, MachineSpec) else spec
        self.command: tuple[str, ...] = (str(program), *words)
        if serial is None:
            self.command += ("-serial", "none")
        else:
            chardev = f"file,id=serial,append=on,path={_comma(str(serial))}"
            self.command += ("-chardev", chardev, "-serial", "chardev:serial")
        if paused:
            self.command += ("-S",)
        if incoming:
            self.command += ("-incoming", "defer")
        self.time_limit = time_limit
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._closed = False
        self._process, self._qmp = self._spawn(environment, descriptors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while QEMU runs; negative when a signal ended it."""
        return self._process.poll()

    @property
    def stderr(self) -> str:
        """All that QEMU has written to its standard error so far."""
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size, 0).decode("utf-8", "replace")

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """The return value of one QMP command.

        Raises RefusedByQemu with QMP's reason, QemuProcessError when there is no answer.
        """
        try:
            return self._qmp.execute(command, arguments)
        except CommandRefused as refused:
            message = f"QMP command {command} was refused: {refused.reason}"
            raise RefusedByQemu(message, self.stderr) from refused
        except MonitorSilent as silent:
            raise self._error(f"QEMU did not answer in {self.time_limit:g} s") from silent
        except MonitorFault as lost:
            raise self._error(f"QEMU went away during QMP command {command}") from lost

    def status(self) -> str:
        """The run state: `running`, `paused`, `prelaunch`, `inmigrate`, `postmigrate`, ..."""
        state: str = self.execute("query-status")["status"]
        return state

    def stop(self) -> None:
        """Stops the vCPUs."""
        self.execute("stop")

    def cont(self) -> None:
        """Lets the vCPUs run."""
        self.execute("cont")

    def save(self, path: Path) -> None:
        """Writes the machine's stream to the file `path`; a running machine is stopped by it."""
        self.migrate(f"exec:cat > {shlex.quote(str(path))}")

    def migrate(self, uri: str) -> None:
        """Sends the machine to `uri` and waits until all has gone. Raises QemuProcessError."""
        self.execute("migrate-set-parameters", {"max-bandwidth": UNLIMITED})
        self.execute("migrate", {"uri": uri})
        state = self._wait_migration(f"migrating to {uri}")
        if state["status"] != "completed":
            reason = state.get("error-desc", "no reason given")
            raise self._error(f"migrating to {uri} ended as {state['status']}: {reason}")

    def load(self, path: Path) -> LoadResult:
        """Loads the stream in the file `path`; a stream that QEMU refuses is a result."""
        return self.load_uri(f"exec:cat {shlex.quote(str(path))}")

    def load_uri(self, uri: str) -> LoadResult:
        """Takes the stream from `uri` and waits until it is loaded, or QEMU has refused it."""
        try:
            self.execute("migrate-incoming", {"uri": uri})
            return self.wait_loaded()
        except QemuProcessError:
            if self._gone() is None:
                raise
            return LoadResult(loaded=False, stderr=self.stderr, exit_status=self.exit_status)

    def wait_loaded(self) -> LoadResult:
        """Waits for the end of a load begun with `migrate-incoming`, however it ends."""
        try:
            state = self._wait_migration("loading")
        except QemuProcessError:
            if self._gone() is None:
                raise
            return LoadResult(loaded=False, stderr=self.stderr, exit_status=self.exit_status)
        if state["status"] == "completed":
            return LoadResult(loaded=True, stderr=self.stderr, exit_status=None)
        ended = self._gone()
        return LoadResult(loaded=False, stderr=self.stderr, exit_status=ended)

    def wait(self) -> int:
        """Waits until QEMU ends; its exit status. Raises QemuProcessError if it does not."""
        try:
            return self._process.wait(self.time_limit)
        except subprocess.TimeoutExpired as late:
            raise self._error(f"QEMU did not end in {self.time_limit:g} s") from late

    def quit(self) -> None:
        """Asks QEMU to end and reaps it; kills it when it does not listen."""
        if self.exit_status is None:
            # It may end before it has answered; what is left of it, `close` kills.
            with contextlib.suppress(QemuProcessError):
                self.execute("quit")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_QUIT_LIMIT)
        self.close()

    def close(self) -> None:
        """Kills QEMU when it still runs, reaps it and its children. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._end(self._process)
        self._qmp.close()

    def _spawn(
        self, environment: Mapping[str, str] | None, descriptors: Sequence[int]
    ) -> tuple[subprocess.Popen[bytes], QmpClient]:
        ours, theirs = socket.socketpair()
        with theirs:
            self.command += (
                *("-chardev", f"socket,id=armferry-qmp,fd={theirs.fileno()}"),
                *("-qmp", "chardev:armferry-qmp"),
            )
            try:
                process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    env=environment,
                    pass_fds=(theirs.fileno(), *descriptors),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                self._stderr.close()
                raise QemuProcessError(
                    f"{self.command[0]}: cannot be run: {error.strerror}", None
                ) from error
        try:
            return process, QmpClient(ours, "QEMU", limit=self.time_limit)
        except MonitorFault as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_QUIT_LIMIT)
            status = process.poll()
            how = (
                f"did not answer in {self.time_limit:g} s"
                if status is None
                else f"did not start (exit status {status})"
            )
            failure = QemuProcessError(f"QEMU {how}", self.stderr, shlex.join(self.command))
            self._end(process)
            raise failure from error
        except BaseException:
            self._end(process)
            raise

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._stderr.close()

    def _wait_migration(self, what: str) -> Mapping[str, Any]:
        deadline = time.monotonic() + self.time_limit
        while time.monotonic() < deadline:
            state: Mapping[str, Any] = self.execute("query-migrate")
            if state.get("status") in ("completed", "failed", "cancelled"):
                return state
            time.sleep(_POLL)
        raise self._error(f"{what} did not end in {self.time_limit:g} s")

    def _gone(self) -> int | None:
        """The exit status of a QEMU that is ending; None when it carries on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_QUIT_LIMIT)
        return None

    def _error(self, message: str) -> QemuProcessError:
        return QemuProcessError(message, self.stderr)


def _comma(text: str) -> str:
    """`text` as a value in one of QEMU's comma-separated options."""
    return text.replace(",", ",,")
