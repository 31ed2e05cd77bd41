"""Fixtures for moves between two real QEMUs, the gateway between them."""

import contextlib
import dataclasses
import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from armferry.gateway import (
    Dialer,
    Gateway,
    Judge,
    Limits,
    Listener,
    Log,
    TransferReport,
    parse_address,
)
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import Fingerprint, dump
from armferry.hosts.fingerprints.probe import fingerprint_of_qemu
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.guest import GuestLog
from armferry.lab.qemu_install import InstalledQemu
from armferry.policy import EMPTY, Policy, aggregate
from armferry.registers import Accelerator

Named = Callable[[str], InstalledQemu]
Spoil = Callable[[int, bytes], Iterator[bytes | None]]
LIMIT = 60.0


@dataclasses.dataclass(frozen=True)
class Way:
    """How a move travels: QEMU's capabilities and parameters, and the kind of sockets."""

    capabilities: tuple[str, ...] = ("return-path",)
    parameters: Mapping[str, object] = dataclasses.field(default_factory=dict)
    transport: str = "unix"
    prefix: str = ""


class Link:
    """A network on one side of the gateway, which the test spoils.

    `spoil` is called with the number of bytes that have gone forward and the next piece; it
    yields what is sent of it, piece by piece, and None to reset the connection. Bytes backward
    pass.
    """

    def __init__(self, to: str, spoil: Spoil) -> None:
        self._to = to.removeprefix("unix:")
        self._spoil = spoil
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(f"{self._to}-link")
        self._server.listen()
        self.address = f"unix:{self._to}-link"
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Ends the network and what travels on it."""
        for connection in (self._server, *self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._to)
                self._connections += (near, far)
                for work in (self._back, self._forward):
                    threading.Thread(target=work, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        gone = 0
        with contextlib.suppress(OSError):
            while piece := near.recv(65_536):
                for kept in self._spoil(gone, piece):
                    if kept is None:
                        for connection in (near, far):
                            connection.shutdown(socket.SHUT_RDWR)
                        return
                    far.sendall(kept)
                gone += len(piece)
            far.shutdown(socket.SHUT_WR)

    def _back(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := far.recv(65_536):
                near.sendall(piece)
            near.shutdown(socket.SHUT_WR)


def spoiled(spoil: Spoil) -> Callable[[str], contextlib.AbstractContextManager[str]]:
    """A network that `spoil` spoils, as `before` or `through` of a crossing."""

    @contextlib.contextmanager
    def through(to: str) -> Iterator[str]:
        with contextlib.closing(Link(to, spoil)) as link:
            yield link.address

    return through


class Crossing:
    """A running source, a waiting destination and a gateway between them."""

    def __init__(
        self,
        source: QemuProcess,
        destination: QemuProcess,
        folder: Path,
        way: Way,
        judge: Judge,
        *,
        keep: bool = False,
        limits: Limits | None = None,
        before: Callable[[str], contextlib.AbstractContextManager[str]] | None = None,
        through: Callable[[str], contextlib.AbstractContextManager[str]] | None = None,
        context: ssl.SSLContext | None = None,
        connecting: ssl.SSLContext | None = None,
    ) -> None:
        self.source = source
        self.destination = destination
        self.way = way
        self._stack = contextlib.ExitStack()
        self.inward = self._address(folder / "in", 0)
        self.outward = self._address(folder / "out")
        listener = self._stack.enter_context(
            contextlib.closing(Listener(parse_address(self.inward)))
        )
        self.inward = str(listener.address)
        if before is not None:
            self.inward = self._stack.enter_context(before(self.inward))
        beyond = (
            self.outward if through is None else self._stack.enter_context(through(self.outward))
        )
        self.log = io.StringIO()
        self.gateway = Gateway(
            listener,
            Dialer(
                parse_address(beyond),
                context=connecting,
                host=None if connecting is None else "localhost",
            ),
            judge,
            context=context,
            limits=limits,
            keep=keep,
            log=Log(self.log),
        )
        self.outcomes: list[TransferReport] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _address(self, path: Path, port: int | None = None) -> str:
        if self.way.transport == "unix":
            return f"unix:{path}"
        host = "[::1]" if self.way.transport == "tcp6" else "127.0.0.1"
        if port is not None:
            return f"tcp:{host}:{port}"
        family = socket.AF_INET6 if self.way.transport == "tcp6" else socket.AF_INET
        with socket.socket(family) as probe:
            probe.bind((host.strip("[]"), 0))
            return f"tcp:{host}:{probe.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        for machine in (self.source, self.destination):
            machine.execute(
                "migrate-set-capabilities",
                {
                    "capabilities": [
                        {"capability": name, "state": True} for name in self.way.capabilities
                    ]
                },
            )
            machine.execute(
                "migrate-set-parameters", {"max-bandwidth": 8 << 30, **self.way.parameters}
            )
        self.destination.execute("migrate-incoming", {"uri": self.outward})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.gateway.stop()
        self._thread.join(LIMIT)
        alive = self._thread.is_alive()
        self._stack.close()
        assert not alive, self.log.getvalue()
        assert not self.internal_errors, self.internal_errors

    def _run(self) -> None:
        self.outcomes = self.gateway.run()

    def migrate(self) -> None:
        """Begins the move."""
        self.source.execute("migrate", {"uri": self.inward})

    def wait_source(self, *statuses: str) -> Mapping[str, Any]:
        """The source's migration once it has one of these statuses."""
        return wait_status(self.source, *statuses)

    @property
    def internal_errors(self) -> list[dict[str, Any]]:
        """What armferry itself did wrong."""
        return [one for one in self.events if one["event"] == "internal-error"]

    def outcome(self) -> TransferReport:
        """The first outcome, once the gateway has ended by itself."""
        self._thread.join(LIMIT)
        assert self.outcomes, self.log.getvalue()
        return self.outcomes[0]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The gateway's log."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def wait_status(machine: QemuProcess, *statuses: str, limit: float = LIMIT) -> Mapping[str, Any]:
    """The machine's migration once it has one of these statuses."""
    deadline = time.monotonic() + limit
    state: Mapping[str, Any] = {}
    while time.monotonic() < deadline:
        state = machine.execute("query-migrate")
        if state.get("status") in statuses:
            return state
        time.sleep(0.005)
    raise AssertionError(f"no status {statuses} in {limit} s: {state}; {machine.stderr}")


def wait_run_state(machine: QemuProcess, state: str, limit: float = LIMIT) -> None:
    """Returns once the machine has this run state."""
    deadline = time.monotonic() + limit
    while machine.status() != state:
        assert time.monotonic() < deadline, f"{machine.status()}, never {state}: {machine.stderr}"
        time.sleep(0.005)


def log_at(path: Path, tick: int, limit: float = LIMIT) -> GuestLog:
    """The guest's log once it has reached `tick`, or shows anything wrong, or time is up."""
    deadline = time.monotonic() + limit
    while True:
        log = GuestLog.read(path)
        if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
            return log
        time.sleep(0.02)


def with_credentials(machine: QemuProcess, folder: Path, endpoint: str) -> None:
    """Lets the migrations of this QEMU use the credentials in `folder`."""
    machine.execute(
        "object-add",
        {
            "qom-type": "tls-creds-x509",
            "id": "tls",
            "dir": str(folder),
            "endpoint": endpoint,
            "verify-peer": True,
        },
    )
    parameters = {"tls-creds": "tls"}
    if endpoint == "client":
        parameters["tls-hostname"] = "localhost"
    machine.execute("migrate-set-parameters", parameters)


@dataclasses.dataclass(frozen=True)
class Rig:
    """What a test needs to move a guest; `folder` is the test's own."""

    qemu_release: Named
    kernel: Path
    folder: Path
    known: dict[tuple[str, MachineSpec], Fingerprint]

    @property
    def serial(self) -> Path:
        """The guest's serial line, of both ends."""
        return self.folder / "serial"

    def elsewhere(self, name: str) -> Path:
        """A folder inside for another pair of sockets."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def fingerprint(self, name: str, spec: MachineSpec) -> Fingerprint:
        """What that release accepts; asked once."""
        plain = dataclasses.replace(spec, kernel=None)
        if (name, plain) not in self.known:
            qemu = self.qemu_release(name)
            self.known[name, plain] = fingerprint_of_qemu(qemu.launcher, plain)
        return self.known[name, plain]

    def spec(self, **changes: Any) -> MachineSpec:
        """The test guest: two vCPUs, 64 MiB."""
        spec = MachineSpec(machine="virt-10.0", cpu="cortex-a57", smp=2, kernel=self.kernel)
        return dataclasses.replace(spec, **changes)

    @contextlib.contextmanager
    def machines(
        self, old: str, new: str, spec: MachineSpec | None = None, *, hold: bool = False
    ) -> Iterator[tuple[QemuProcess, QemuProcess]]:
        """A source whose guest runs, and a destination that waits; with `hold` even for `cont`."""
        spec = spec or self.spec()
        with (
            self.source(old, spec) as source,
            self.destination(new, spec, hold=hold) as destination,
        ):
            log_at(self.serial, 2)
            yield source, destination

    def document(self, name: str) -> str:
        """The fingerprint of that release for the test guest, as a document."""
        return dump(self.fingerprint(name, self.spec()))

    def source(self, name: str, spec: MachineSpec) -> QemuProcess:
        """A QEMU that runs the guest."""
        return QemuProcess(self.qemu_release(name), spec, serial=self.serial)

    def destination(
        self, name: str, spec: MachineSpec | None = None, *, hold: bool = False
    ) -> QemuProcess:
        """A QEMU that waits for a guest."""
        return QemuProcess(
            self.qemu_release(name),
            spec or self.spec(),
            serial=self.serial,
            incoming=True,
            paused=hold,
        )

    def judge(
        self,
        name: str,
        policy: Policy = EMPTY,
        spec: MachineSpec | None = None,
        *,
        builtin: bool = True,
    ) -> Judge:
        """The judge for a destination: the shipped levels, if `builtin`, united with `policy`."""

        def policy_for(machine: str, accelerator: Accelerator) -> Policy:
            return aggregate(machine, accelerator, builtin=builtin, command_line=policy)

        return Judge(end_of(self.fingerprint(name, spec or self.spec())), policy_for)

    def crossing(
        self, source: QemuProcess, destination: QemuProcess, way: Way, judge: Judge, **options: Any
    ) -> Crossing:
        """A gateway between the two, its sockets in a folder of its own."""
        folder = self.elsewhere(f"crossing-{len(list(self.folder.iterdir()))}")
        return Crossing(source, destination, folder, way, judge, **options)

    way = staticmethod(Way)
    wait_status = staticmethod(wait_status)
    wait_run_state = staticmethod(wait_run_state)
    with_credentials = staticmethod(with_credentials)
    spoiled = staticmethod(spoiled)

    def runs_on(self, ticks: int = 3) -> None:
        """The guest has lost nothing and goes on, wherever it is."""
        aim = GuestLog.read(self.serial).last + ticks
        log = log_at(self.serial, aim)
        assert log.faults() == ()
        assert log.last >= aim, "the guest stands still"


_KNOWN: dict[tuple[str, MachineSpec], Fingerprint] = {}


@pytest.fixture
def rig(qemu_release: Named, guest_kernel: Path, tmp_path: Path) -> Rig:
    """Real QEMUs, a guest that notices losses, a folder."""
    return Rig(qemu_release, guest_kernel, tmp_path, _KNOWN)
