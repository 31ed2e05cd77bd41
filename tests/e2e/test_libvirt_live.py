"""`virsh migrate --live` between two real libvirtds, refused by QEMU alone, through the gateway.

libvirt 11.3 on both ends, QEMU 10.0.2 and 10.0.13; it turns on return path, switchover-ack and
pause-before-switchover by itself. The guest is the one of `armferry.lab.guest`.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from armferry.lab.guest import GuestLog
from armferry.lab.libvirt_host import Domain, LibvirtHost, VirshError

pytestmark = pytest.mark.qemu

OLD, NEW = "bookworm-backports", "trixie"  # QEMU 10.0.2 and 10.0.13


@pytest.fixture
def move(
    request: pytest.FixtureRequest,
    libvirt_host: Callable[[str], LibvirtHost],
    libvirt_shared: Path,
) -> Iterator[tuple[LibvirtHost, LibvirtHost]]:
    """Source, with a running guest, and destination."""
    source, destination = (libvirt_host(suite) for suite in request.param)
    domain = Domain()
    source.define(domain)
    source.virsh("start", domain.name)
    _log_at(libvirt_shared, 3)
    yield source, destination
    for host in (source, destination):
        host.forget(domain)
        shutil.rmtree(host.state / "host", ignore_errors=True)
    (libvirt_shared / "serial").unlink()


both_ways = pytest.mark.parametrize("move", [(OLD, NEW), (NEW, OLD)], indirect=True, ids="-".join)


def _log_at(shared: Path, tick: int, limit: float = 30.0) -> GuestLog:
    deadline = time.monotonic() + limit
    while True:
        log = GuestLog.read(shared / "serial")
        if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
            return log
        time.sleep(0.02)


def _migrate(source: LibvirtHost, destination: LibvirtHost, uri: str) -> None:
    words = ["migrate", "--live", "carried", destination.uri, "--migrateuri", uri]
    if uri.startswith("tcp:"):
        words += ["--listen-address", "127.0.0.1"]
    source.virsh(*words)


@contextlib.contextmanager
def _gateway(listen: str, connect: str, to: LibvirtHost) -> Iterator["subprocess.Popen[str]"]:
    words = ["host", "fingerprint", "--machine", "virt-10.0", "--cpu", "cortex-a57"]
    done = to.run("python3", "-m", "armferry", *words, "--accel", "tcg")
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "armferry", "gateway", "--listen", listen]
    command += ["--connect", connect]
    command += ["--to", str(to.state / "host" / "virt-10.0-cortex-a57-tcg.json")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as gateway:
        try:
            _wait_listening(listen)
            yield gateway
        finally:
            gateway.kill()


def _wait_listening(address: str, limit: float = 20.0) -> None:
    """Until somebody listens, without connecting: a connection would be taken for a move."""
    kind, _, rest = address.partition(":")
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if kind == "unix" and Path(rest).is_socket():
            return
        if kind == "tcp":
            host, _, port = rest.rpartition(":")
            with socket.socket() as probe:
                try:
                    probe.bind((host, int(port)))
                except OSError:
                    return
        time.sleep(0.05)
    pytest.fail(f"nobody listens on {address}")


def _moved_on(shared: Path, before: GuestLog, destination: LibvirtHost) -> None:
    after = _log_at(shared, before.last + 4)
    assert after.faults() == ()
    assert after.last >= before.last + 4
    assert destination.virsh("domstate", "carried") == "running"


@both_ways
def test_over_tcp(move: tuple[LibvirtHost, LibvirtHost], libvirt_shared: Path) -> None:
    """The gateway stands on the destination, at another address and the same port."""
    source, destination = move
    port = destination.port
    with pytest.raises(VirshError) as refused:
        _migrate(source, destination, f"tcp://127.0.0.1:{port}")
    assert "load of migration failed" in str(refused.value)
    assert source.virsh("domstate", "carried") == "running"

    listen, connect = f"tcp:127.0.0.2:{port}", f"tcp:127.0.0.1:{port}"
    with _gateway(listen, connect, destination) as gateway:
        before = GuestLog.read(libvirt_shared / "serial")
        _migrate(source, destination, f"tcp://127.0.0.2:{port}")
        assert gateway.wait(20) == 0, gateway.stdout and gateway.stdout.read()
    _moved_on(libvirt_shared, before, destination)
    assert "carried" not in source.virsh("list", "--name").split()


@both_ways
def test_over_unix_sockets(move: tuple[LibvirtHost, LibvirtHost], libvirt_shared: Path) -> None:
    """One path, two hosts: the gateway's socket on the source, QEMU's on the destination."""
    source, destination = move
    here, there = source.folder / "run" / "move", destination.folder / "run" / "move"
    with _gateway(f"unix:{here}", f"unix:{there}", destination) as gateway:
        before = GuestLog.read(libvirt_shared / "serial")
        _migrate(source, destination, "unix:///run/move")
        assert gateway.wait(20) == 0, gateway.stdout and gateway.stdout.read()
    _moved_on(libvirt_shared, before, destination)
