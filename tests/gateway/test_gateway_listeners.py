"""Sockets that listen, and what lies at their path already."""

import contextlib
import os
import socket
import stat
from pathlib import Path

import pytest

from armferry.gateway import Listener, NetworkFault
from armferry.gateway.address import UnixAddress
from armferry.gateway.listeners import listen_tcp, listen_unix, remove_socket, remove_stale


def test_a_socket_in_use_is_left_alone_even_if_nobody_accepts(tmp_path: Path) -> None:
    """A connection to one whose backlog is full would wait for its owner."""
    path = str(tmp_path / "socket")
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(path)
        busy.listen(0)
        while True:
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            try:
                waiting.connect(path)
            except BlockingIOError:
                break
        with pytest.raises(NetworkFault) as fault:
            Listener(UnixAddress(path))
        assert str(fault.value) == f"unix:{path}: cannot listen: Address already in use"
        assert Path(path).is_socket()


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listen_unix(path).close()
    with contextlib.closing(Listener(UnixAddress(path))):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert not os.path.exists(path)


def test_only_sockets_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("kept")
    remove_stale(str(path))
    remove_socket(str(path))
    assert path.read_text() == "kept"
    remove_stale(str(tmp_path / "none"))
    remove_socket(str(tmp_path / "none"))
    remove_socket("\0abstract")
    with listen_unix(str(tmp_path / "socket")):
        remove_stale(str(tmp_path / "socket"))
        assert (tmp_path / "socket").is_socket()
        remove_socket(str(tmp_path / "socket"))
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("host", ["", "::"])
def test_every_address_is_ipv4_too(host: str) -> None:
    with listen_tcp(host, 0) as listening:
        port = listening.getsockname()[1]
        for there in ("127.0.0.1", "::1"):
            socket.create_connection((there, port), 20).close()


def test_a_path_that_cannot_be_bound_leaves_no_socket_open(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        listen_unix(str(tmp_path / "none" / "socket"))
    assert set(os.listdir("/proc/self/fd")) == before
