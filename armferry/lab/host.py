"""A lab host: a real arm64 kernel, booted under emulation, that has /dev/kvm and does as asked.

The outer QEMU emulates a CPU with EL2 (`virtualization=on`), so the kernel's own KVM works inside.
One boot serves any number of commands, one after the other; what is inside is thrown away at the
end. A host takes 1 GiB of memory; at most two run at once on a machine, of all users together: the
third waits for a place.

Talks through a socket pair that the outer QEMU inherits as a virtio console port. Further pairs
can be handed in as `wires`: a port of the host whose other end is anybody's, such as a second
host's. QEMU's words: qemu-system-aarch64(1), docs/system/arm/virt.rst.
"""

import contextlib
import fcntl
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from armferry.cache import cache_folder
from armferry.errors import EnvironmentFault
from armferry.lab import cpio
from armferry.lab.bytecode import COLLECT, bytecode_entries
from armferry.lab.channel import ChannelFault, Frame, FrameReader, encode
from armferry.lab.initramfs import AGENT_PORT, base_archive, own_archive, userland_archive
from armferry.lab.kernels import Kernel
from armferry.lab.patience import patient
from armferry.lab.qemu_install import install
from armferry.lab.qemu_package import QemuPackage
from armferry.lab.releases import Release, release_named

__all__ = ["Completed", "HostSpec", "Job", "JobResult", "LabHost", "LabHostFault", "outer_qemu"]

_PLACES = 2
# What the newest architecture has, only the newest QEMU emulates; its own algorithm for pointer
# authentication is much faster under emulation.
_NEWEST, _NEWEST_MODEL, _NEWEST_QEMU = "max", "max,pauth-impdef=on", "trixie-backports"
_CONSOLE_LINES = 30
_BOOT_LIMIT = 60.0
_STEP_LIMIT = 60.0
_QUIT_LIMIT = 10.0


class LabHostFault(EnvironmentFault):
    """A lab host did not boot, died, or did not do what was asked in time.

    The message ends with the last lines of its console; all of it is in `console`.
    """

    def __init__(self, message: str, console: str) -> None:
        self.console = console
        lines = console.splitlines()[-_CONSOLE_LINES:]
        quoted = "".join(f"\n    {line}" for line in lines)
        end = f"; its console ends with:{quoted}" if quoted else "; nothing is on its console"
        super().__init__(message + end)


@dataclass(frozen=True, slots=True)
class HostSpec:
    """What to boot. `userland` is the Debian release whose QEMU and python3 are inside.

    A `package` takes the place of its QEMU. `memory` is in MiB, `smp` the number of CPUs; `append`
    is added to the kernel's command line.
    """

    kernel: Kernel
    userland: Release
    cpu: str = "neoverse-n1"
    memory: int = 1024
    smp: int = 1
    append: str = ""
    package: QemuPackage | None = None

    @property
    def model(self) -> str:
        """What the outer QEMU emulates, for its option -cpu."""
        return _NEWEST_MODEL if self.cpu == _NEWEST else self.cpu

    @property
    def qemu_version(self) -> str:
        """Upstream's version of the QEMU inside."""
        return self.userland.version if self.package is None else self.package.version


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command in a host ended; `exit_code` is None when its time was up."""

    exit_code: int | None
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """A command, run in `/job` beside `files`; what it leaves in `/out` is its result."""

    command: tuple[str, ...]
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class JobResult:
    completed: Completed
    out: Mapping[str, bytes]


def outer_qemu(cpu: str = "") -> Path:
    """The program that emulates hosts: this machine's own QEMU, else the rig's of trixie.

    For the CPU `max` always the rig's newest: what `max` has is another thing in every release.
    Raises `armferry.lab.qemu_install.QemuInstallError`.
    """
    if cpu == _NEWEST:
        return install(release_named(_NEWEST_QEMU)).launcher
    own = shutil.which("qemu-system-aarch64")
    return Path(own) if own else install(release_named("trixie")).launcher


class LabHost:
    """A booted host; a context manager that leaves no process behind.

    `qemu` is the outer QEMU. `boot_limit` is in seconds from start to the agent's first word, by
    default a minute and more on a busy machine; a host boots in 3 to 5 s. Waiting for one of the
    two places does not count, nor does the first host of a userland, booted `cold` to compile its
    Python. Raises `LabHostFault`.
    """

    def __init__(
        self,
        spec: HostSpec,
        qemu: Path | None = None,
        *,
        wires: Mapping[str, socket.socket] | None = None,
        boot_limit: float | None = None,
        cold: bool = False,
    ) -> None:
        self.spec = spec
        self._reader = FrameReader()
        self._resources = contextlib.ExitStack()
        self.program = program = qemu or outer_qemu(spec.cpu)
        parts = [base_archive(), userland_archive(spec.userland)]
        if not cold:
            parts.append(_bytecode_archive(spec, program))
        if spec.package is not None:
            # the kernel unpacks archives in their order: the later file stays
            parts.append(spec.package.archive)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._resources.enter_context(_place())
            self._console: BinaryIO = self._resources.enter_context(tempfile.TemporaryFile())
            ramdisk = self._resources.enter_context(_ramdisk(spec.kernel, parts))
            self._port, theirs = socket.socketpair()
            self._resources.enter_context(self._port)
            with theirs:
                ports = {AGENT_PORT: theirs, **(wires or {})}
                self._spawn(program, ramdisk, ports)
            began = time.monotonic()
            ready = self._receive(boot_limit or patient(_BOOT_LIMIT), "boot")
            self.release = str(ready.header["ready"])
            self.boot_seconds = time.monotonic() - began
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def console(self) -> str:
        """What the kernel and the outer QEMU have written so far; empty once closed."""
        if self._console.closed:
            return ""
        size = os.fstat(self._console.fileno()).st_size
        return os.pread(self._console.fileno(), size, 0).decode("utf-8", "replace")

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        time_limit: float | None = None,
    ) -> Completed:
        """Run a command to its end. Raises `LabHostFault` when it cannot be started.

        armferry is importable by the host's python3; the work folder is `/`.
        """
        limit = time_limit or patient(_STEP_LIMIT)
        header: dict[str, object] = {
            "do": "exec",
            "argv": list(argv),
            "environment": dict(environment or {}),
            "time_limit": limit,
        }
        reply = self._ask(Frame(header, stdin), limit + _QUIT_LIMIT)
        split, exit_code = reply.header["stdout"], reply.header["exit_code"]
        assert isinstance(split, int)
        assert exit_code is None or isinstance(exit_code, int)
        return Completed(exit_code, reply.payload[:split], reply.payload[split:])

    def put(self, path: str, content: bytes, permissions: int = 0o644) -> None:
        """Write a file in the host, folders included."""
        header: dict[str, object] = {"do": "put", "path": path, "permissions": permissions}
        self._ask(Frame(header, content))

    def get(self, path: str) -> bytes:
        """The content of a file in the host."""
        return self._ask(Frame({"do": "get", "path": path})).payload

    def do(self, job: Job, *, time_limit: float | None = None) -> JobResult:
        """Run a job in a clean `/job` and `/out`; its files come back also when it fails."""
        self.run(["sh", "-c", "rm -rf /job /out; mkdir /job /out"])
        for name, content in job.files.items():
            self.put(f"/job/{name}", content, 0o755)
        # Words after the script are its parameters: none of them needs quoting.
        command = ["sh", "-c", 'cd /job && exec "$@"', "sh", *job.command]
        completed = self.run(command, time_limit=time_limit)
        packed = self.run(["tar", "-C", "/out", "-c", "."]).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            out = {
                member.name.removeprefix("./"): file.read()
                for member in archive
                if (file := archive.extractfile(member)) is not None
            }
        return JobResult(completed, out)

    def close(self) -> None:
        """Power off and reap. May be called twice."""
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._resources.close()

    def _spawn(self, program: Path, ramdisk: int, ports: Mapping[str, socket.socket]) -> None:
        spec = self.spec
        words = [str(program), "-machine", "virt,virtualization=on,gic-version=3"]
        words += ["-accel", "tcg,thread=multi", "-cpu", spec.model, "-smp", str(spec.smp)]
        words += ["-m", str(spec.memory), "-display", "none", "-nodefaults", "-no-user-config"]
        words += ["-no-reboot", "-serial", "stdio", "-device", "virtio-serial-pci,romfile="]
        for number, (name, end) in enumerate(ports.items()):
            words += ["-chardev", f"socket,id=port{number},fd={end.fileno()}"]
            words += ["-device", f"virtserialport,chardev=port{number},name={name}"]
        append = f"console=ttyAMA0 panic=-1 quiet {spec.append}".rstrip()
        words += [
            "-kernel",
            str(spec.kernel.image),
            "-initrd",
            f"/proc/self/fd/{ramdisk}",
            "-append",
            append,
        ]
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=self._console,
                stderr=subprocess.STDOUT,
                pass_fds=[ramdisk, *(end.fileno() for end in ports.values())],
                start_new_session=True,
            )
        except OSError as error:
            raise LabHostFault(
                f"{program} cannot be run: {error.strerror}; `armferry lab qemu install trixie`"
                " gets one that can",
                "",
            ) from error

    def _ask(self, request: Frame, time_limit: float | None = None) -> Frame:
        time_limit = time_limit or patient(_STEP_LIMIT)
        what = str(request.header["do"])
        self._port.settimeout(time_limit)
        try:
            self._port.sendall(encode(request))
        except OSError as lost:
            raise self.fault(f"is gone, {what} could not be asked of it") from lost
        reply = self._receive(time_limit, what)
        if "error" in reply.header:
            raise self.fault(f"could not {what}: {reply.header['error']}")
        return reply

    def _receive(self, time_limit: float, what: str) -> Frame:
        deadline = time.monotonic() + time_limit
        while (left := deadline - time.monotonic()) > 0:
            self._port.settimeout(left)
            try:
                chunk = self._port.recv(1 << 20)
            except TimeoutError:
                break
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise self.fault(f"powered off during {what}")
            try:
                for frame in self._reader.feed(chunk):
                    return frame
            except ChannelFault as fault:
                raise self.fault(f"talked nonsense during {what}: {fault}") from fault
        raise self.fault(f"gave no answer to {what} in {time_limit:g} s")

    def fault(self, message: str) -> LabHostFault:
        """An error about this host, with its console."""
        name = f"{self.spec.kernel.release} on {self.spec.cpu}"
        return LabHostFault(f"lab host {name} {message}", self.console)


def _bytecode_archive(spec: HostSpec, program: Path) -> Path:
    """Compiled Python of the userland; takes a boot of 20 s when it is not in the cache."""
    archive = cache_folder("initramfs") / f"bytecode-{spec.userland.suite}.cpio"
    userland = userland_archive(spec.userland)
    if not archive.exists() or archive.stat().st_mtime < userland.stat().st_mtime:
        with LabHost(spec, program, cold=True) as host:
            collected = host.run(["sh", "-c", COLLECT], time_limit=patient(300.0))
        if collected.exit_code != 0:
            words = collected.stderr.decode("utf-8", "replace")
            raise LabHostFault(f"compiling Python in a lab host failed: {words}", "")
        cpio.store(archive, bytecode_entries(collected.stdout))
    return archive


@contextlib.contextmanager
def _ramdisk(kernel: Kernel, parts: Sequence[Path]) -> Iterator[int]:
    """All archives as one file that has no name: the descriptor, for QEMU to inherit."""
    with tempfile.TemporaryFile(dir=cache_folder("run")) as ramdisk:
        for part in parts:
            with part.open("rb") as content:
                shutil.copyfileobj(content, ramdisk, 1 << 20)
        ramdisk.write(own_archive(kernel))
        ramdisk.flush()
        yield ramdisk.fileno()


@contextlib.contextmanager
def _place() -> Iterator[None]:
    """One of the places for running hosts, waited for; locks vanish with their process."""
    with contextlib.ExitStack() as files:
        places = [
            files.enter_context((cache_folder("run") / f"place-{number}").open("w"))
            for number in range(_PLACES)
        ]
        while True:
            for place in places:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield
                    return
            time.sleep(0.1)
