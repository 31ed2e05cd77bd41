"""Gateways put in front of the wrapped QEMU, one for each migration.

QEMU itself only ever sees private UNIX sockets, or one connection when it asked for a descriptor:
what is beyond them is opened here. Incoming moves are decided for what this QEMU accepts,
outgoing ones lose what is hidden.
"""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from armferry.errors import ArmferryError
from armferry.gateway import (
    Address,
    Dialer,
    Ending,
    Gateway,
    Listener,
    TransferReport,
)
from armferry.gateway.address import FdAddress, TcpAddress, UnixAddress
from armferry.gateway.listeners import listen_tcp
from armferry.hosts.files.descriptor import DescriptorWindow
from armferry.hosts.qmp.options import number_in
from armferry.stream import read_saved
from armferry.wrapper.beside.bridges import (
    Bridge,
    as_sink,
    as_source,
    at_offset,
    bridged,
    open_sink,
    open_source,
)
from armferry.wrapper.beside.dialers import GivenDialer, PatientDialer
from armferry.wrapper.beside.judges import LoggingJudge, Notify, PendingJudge
from armferry.wrapper.beside.mapped import MappedSave, changed_end, pour_plain
from armferry.wrapper.beside.outgoing_judge import HidingJudge
from armferry.wrapper.commandline.fdsets import FdSets, fdset_number
from armferry.wrapper.commandline.uri import FileTarget, NamedFd, Target
from armferry.wrapper.errors import UriFault

__all__ = ["GatewayTransfer", "Transfers"]

_SOON = 2.0


class GatewayTransfer:
    """One migration under way through a gateway; `wait` for how it ended."""

    def __init__(
        self,
        gateway: Gateway,
        listener: Listener,
        dialer: Dialer,
        bridges: Sequence[Bridge],
        notify: Notify,
    ) -> None:
        self._gateway = gateway
        self._listener = listener
        self._dialer = dialer
        self._bridges = bridges
        self._notify = notify
        self._moved = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, limit: float | None = None) -> bool:
        """Whether everything arrived, once it has ended or `limit` seconds have passed."""
        self._thread.join(limit)
        return self._moved

    def cancel(self) -> None:
        """Ends it: nobody waits for it any more."""
        self._gateway.abort("nobody waits for this migration any more")

    def settle(self, limit: float) -> bool:
        """Whether it is over; one that nobody has connected to in `limit` seconds is ended."""
        self._thread.join(limit)
        if not self._gateway.transfers:
            self.cancel()
            self._thread.join(limit)
        return not self._thread.is_alive()

    def finish(self, limit: float) -> None:
        """QEMU has gone: what it sent is carried to its end, no longer than `limit` seconds."""
        if not self.settle(_SOON):
            self.wait(limit)

    def _run(self) -> None:
        outcomes: list[TransferReport] = []
        try:
            outcomes = self._gateway.run()
        except ArmferryError as error:
            self._notify(str(error))
        finally:
            self._listener.close()
            if isinstance(self._dialer, GivenDialer):
                self._dialer.close()
        whole = True
        for bridge in self._bridges:
            bridge.join()
            if bridge.error:
                whole = False
                self._notify(f"migration failed: {bridge.error}")
        for outcome in outcomes:
            if outcome.ending is Ending.FAILED:
                self._notify(f"migration failed: {outcome.reason}")
        self._moved = whole and bool(outcomes) and outcomes[-1].moved


class Transfers:
    """Every migration of one QEMU.

    `folder` is private and holds the sockets. `incoming` judges what comes; None where nothing can
    come, or nothing stands before QEMU. `outgoing` is None where nothing is hidden, so that
    migrations go straight out. `alive` tells whether QEMU still runs. `fdsets` are the descriptors
    that addresses may name.
    """

    def __init__(
        self,
        folder: Path,
        incoming: PendingJudge | None,
        outgoing: HidingJudge | None,
        *,
        alive: Callable[[], bool],
        notify: Notify,
        fdsets: FdSets | None = None,
    ) -> None:
        self.fdsets = fdsets or FdSets()
        self.mapped_ram = False
        """Whether QEMU is to put guest memory at fixed offsets of a file."""
        self._folder = folder
        self._incoming = incoming
        self.outgoing = outgoing
        self._alive = alive
        self.notify = notify
        self._count = 0
        self.last_out: GatewayTransfer | MappedSave | None = None
        self._in: GatewayTransfer | None = None

    @property
    def judges_incoming(self) -> bool:
        """Whether what comes goes through a gateway."""
        return self._incoming is not None

    @property
    def routes_anything(self) -> bool:
        """Whether any migration of this QEMU goes through a gateway."""
        return self.judges_incoming or self.outgoing is not None

    def listen(self, target: Target, path: str | None = None) -> str:
        """Puts a gateway at `target`; the private path where QEMU is to listen. Raises
        ArmferryError."""
        path = path or self._path("in")
        bridges: list[Bridge] = []
        listener = Listener(self._source(target, bridges), plain_allowed=True)
        self._receive(listener, PatientDialer(UnixAddress(path), self._alive), bridges)
        return path

    def receive_from(self, descriptor: int) -> socket.socket:
        """Lets a migration come from `descriptor`; the connection that QEMU is to load from."""
        ours, theirs = socket.socketpair()
        bridges: list[Bridge] = []
        listener = Listener(FdAddress(as_source(descriptor, bridges)), plain_allowed=True)
        self._receive(listener, GivenDialer(ours.detach()), bridges)
        return theirs

    def load_mapped(self, target: FileTarget) -> str | None:
        """The private path where QEMU is to listen for what the mapped-ram file `target` holds.

        None when QEMU can read the file itself, for nothing of it must change. Raises
        ArmferryError.
        """
        assert self._incoming is not None
        descriptor = self._opened(target, open_source)
        try:
            saved = read_saved(DescriptorWindow(descriptor, target.path), target.offset)
            tail = changed_end(saved, LoggingJudge(self._incoming, self.notify))
        except ArmferryError:
            os.close(descriptor)
            raise
        if tail is None:
            os.close(descriptor)
            return None
        path = self._path("in")
        bridges: list[Bridge] = []
        source = FdAddress(bridged(descriptor, bridges, pour_plain(target.offset)))
        dialer = PatientDialer(UnixAddress(path), self._alive)
        self._receive(Listener(source, plain_allowed=True), dialer, bridges)
        return path

    def save_mapped(self, target: FileTarget) -> None:
        """QEMU is about to write the mapped-ram file `target` itself: what is hidden will be
        taken out of it before its end is announced. Raises ArmferryError."""
        self._may_send()
        assert self.outgoing is not None
        descriptor = self._opened(target, open_sink)
        try:
            # the client may have opened it to write only
            readable = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise UriFault(
                f"registers are hidden from this guest, and {target.path}, which QEMU would write "
                f"them to with mapped-ram, cannot be read back: {error.strerror}; turn mapped-ram "
                "off, or save without it"
            ) from error
        finally:
            os.close(descriptor)
        judge = LoggingJudge(self.outgoing, self.notify)
        self.last_out = MappedSave(readable, target.offset, judge, self.notify)

    def send_to(self, target: Target) -> str:
        """The private path that QEMU is to migrate to in place of `target`. Raises
        ArmferryError."""
        self._may_send()
        path = self._path("out")
        bridges: list[Bridge] = []
        sink = self._sink(target, bridges)
        dialer = GivenDialer(sink.number) if isinstance(sink, FdAddress) else Dialer(sink)
        self._send(Listener(UnixAddress(path)), dialer, bridges)
        return path

    def send_through(self, descriptor: int) -> socket.socket:
        """Lets a migration go to `descriptor`; the connection that QEMU is to save to."""
        self._may_send()
        ours, theirs = socket.socketpair()
        bridges: list[Bridge] = []
        dialer = GivenDialer(as_sink(descriptor, bridges))
        self._send(Listener(FdAddress(ours.detach())), dialer, bridges)
        return theirs

    def finish(self, limit: float) -> None:
        """QEMU has gone: what it sent is carried to its end, no longer than `limit` seconds."""
        if self._in is not None:
            self._in.cancel()
        if self.last_out is not None:
            self.last_out.finish(limit)

    def give_up(self) -> None:
        """QEMU does not begin, or no longer goes on with, the outgoing migration."""
        if self.last_out is not None:
            self.last_out.cancel()
            self.last_out = None

    def _receive(self, listener: Listener, dialer: Dialer, bridges: list[Bridge]) -> None:
        if self._in is not None:
            self._in.cancel()
        assert self._incoming is not None
        gateway = Gateway(listener, dialer, LoggingJudge(self._incoming, self.notify))
        self._in = GatewayTransfer(gateway, listener, dialer, bridges, self.notify)

    def _send(self, listener: Listener, dialer: Dialer, bridges: list[Bridge]) -> None:
        assert self.outgoing is not None
        gateway = Gateway(listener, dialer, LoggingJudge(self.outgoing, self.notify))
        self.last_out = GatewayTransfer(gateway, listener, dialer, bridges, self.notify)

    def _may_send(self) -> None:
        if self.last_out is not None and not self.last_out.settle(_SOON):
            raise UriFault("another migration is under way")

    def _path(self, what: str) -> str:
        self._count += 1
        return str(self._folder / f"{what}{self._count}")

    def _source(self, target: Target, bridges: list[Bridge]) -> Address:
        match target:
            case NamedFd(name) if (number := number_in(name)) is not None:
                return FdAddress(as_source(number, bridges))
            case NamedFd(name):
                raise UriFault(f"fd:{name}: no such descriptor was given to this monitor")
            case FileTarget(path, offset):
                found = at_offset(self._opened(target, open_source), offset, path)
                return FdAddress(as_source(found, bridges))
            case TcpAddress(host, port):
                try:
                    return FdAddress(listen_tcp(host, port).detach())
                except OSError as error:
                    raise UriFault(f"{target}: cannot listen: {error.strerror}") from error
            case _:
                return target

    def _sink(self, target: Target, bridges: list[Bridge]) -> Address:
        match target:
            case NamedFd(name) if (number := number_in(name)) is not None:
                return FdAddress(as_sink(number, bridges))
            case NamedFd(name):
                raise UriFault(f"fd:{name}: no such descriptor was given to this monitor")
            case FileTarget(path, offset):
                found = at_offset(self._opened(target, open_sink), offset, path, emptied=True)
                return FdAddress(as_sink(found, bridges))
            case _:
                return target

    def _opened(self, target: FileTarget, open_file: Callable[[str], int]) -> int:
        """The file `target`: of a set of descriptors, or opened with `open_file`."""
        number = fdset_number(target.path)
        if number is None:
            return open_file(target.path)
        found = self.fdsets.copy(number)
        if found is None:
            raise UriFault(f"file:{target.path}: no such descriptor was given to QEMU's monitors")
        return found
