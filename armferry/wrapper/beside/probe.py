"""A paused QEMU of a moment, asked a question: which properties it has, what its vCPUs hold.

For hosts with a plain Python: the standard library only. Nothing is left behind. QMP:
docs/interop/qmp-spec, qapi/migration.json.
"""

import json
import os
import platform
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from armferry.boundary import Preload, library
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance
from armferry.hosts.fingerprints.from_stream import fingerprint_of_stream
from armferry.registers import Accelerator
from armferry.stream import SavedState, read_saved
from armferry.wrapper.errors import SetUpFault

__all__ = ["Monitor", "MonitorRefusal", "PausedQemu", "Vcpus", "ask_vcpus"]

_LIMIT = 60.0
_TICK = 0.005
_HEADER = 8  # bytes of the magic and the version


class MonitorRefusal(SetUpFault):
    """QEMU answered a command with an error."""


class Monitor:
    """A QMP connection, one command after the other. Raises SetUpFault when QEMU goes away."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_LIMIT)
        self._lines = connection.makefile("rwb")
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """The command's answer. Raises MonitorRefusal, SetUpFault."""
        try:
            request = {"execute": command, "arguments": arguments or {}}
            self._lines.write(json.dumps(request).encode() + b"\n")
            self._lines.flush()
            for line in self._lines:
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise MonitorRefusal(f"QEMU refuses {command}: {answer['error'].get('desc')}")
        except OSError as error:
            raise SetUpFault(f"QEMU does not answer {command}: {error}") from error
        raise SetUpFault(f"QEMU went away before it answered {command}")


class PausedQemu:
    """A QEMU started with `words` and paused; a context manager that ends it.

    With a `table`, packed, it runs under those rules at the KVM boundary.

    Raises SetUpFault, with QEMU's own words, when it does not start.
    """

    def __init__(self, program: Path, words: Sequence[str], table: bytes = b"") -> None:
        path = library() if table else None
        preload = None if path is None else Preload.of(table, path)
        ours, theirs = socket.socketpair()
        command = [str(program), *words, "-S", "-nodefaults", "-no-user-config", "-display", "none"]
        command += ["-chardev", f"socket,id=ask,fd={theirs.fileno()}"]
        command += ["-qmp", "chardev:ask"]
        self._connection = ours
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    env=None if preload is None else preload.environment(os.environ),
                    pass_fds=(
                        theirs.fileno(),
                        *(() if preload is None else (preload.table, preload.writing)),
                    ),
                )
            except OSError as error:
                ours.close()
                self._stderr.close()
                raise SetUpFault(f"{program}: cannot be run: {error.strerror}") from error
            finally:
                if preload is not None:
                    preload.close_for_qemu()
                    preload.reports.close()
        try:
            self.monitor = Monitor(ours)
        except SetUpFault as error:
            self._process.wait(_LIMIT)
            self._stderr.seek(0)
            said = self._stderr.read().decode("utf-8", "replace").strip()
            self._end()
            raise SetUpFault(f"{shlex.join(command)}: {said or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def save(self, path: Path) -> None:
        """Writes its state to the file `path`. Raises SetUpFault."""
        self.monitor.execute("migrate", {"uri": f"exec:cat > {shlex.quote(str(path))}"})
        deadline = time.monotonic() + _LIMIT
        while True:
            status = self.monitor.execute("query-migrate").get("status")
            if status == "completed":
                return
            if status == "failed" or time.monotonic() > deadline:
                raise SetUpFault(f"QEMU does not save its state: migration {status}")
            time.sleep(_TICK)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._stderr.close()


@dataclass(frozen=True, slots=True)
class Vcpus:
    """The vCPUs of a machine after reset.

    `head` is their stream up to the end of its configuration. `qemu` is the version such as
    10.0.13, `package` what the packager says.
    """

    head: bytes
    saved: SavedState
    qemu: str
    package: str

    def fingerprint(self, cpu: str, accelerator: Accelerator) -> Fingerprint:
        """The same as what this host would accept."""
        about = Provenance(
            how="probe",
            machine=self.saved.machine,
            cpu=cpu,
            accelerator=accelerator,
            qemu=self.qemu,
            package=self.package,
            kernel=os.uname().release if accelerator is Accelerator.KVM else "",
            hardware=platform.machine(),
        )
        return replace(fingerprint_of_stream(self.saved), provenance=about, at_reset=True)


def ask_vcpus(program: Path, words: Sequence[str], table: bytes = b"") -> Vcpus:
    """The vCPUs of the machine that `words` describe, under the rules of `table`.

    Raises SetUpFault or StreamError.
    """
    with tempfile.TemporaryDirectory(prefix="armferry-probe-") as folder:
        path = Path(folder) / "state"
        with PausedQemu(program, words, table) as qemu:
            said = qemu.monitor.execute("query-version")
            qemu.monitor.execute("migrate-set-parameters", {"max-bandwidth": 8 << 30})
            qemu.save(path)
        numbers = said["qemu"]
        version = f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}"
        with FileWindow(path) as window:
            saved = read_saved(window)
            head = window.read(0, _head_length(saved))
    return Vcpus(head, saved, version, said["package"])


def _head_length(saved: SavedState) -> int:
    """Bytes before guest memory: the header and the configuration."""
    configuration = saved.configuration
    if configuration is None:
        return _HEADER
    length = configuration.offset + 5 + len(configuration.machine)
    return length + sum(
        6 + len(part.name) + len(part.payload) for part in configuration.subsections
    )
