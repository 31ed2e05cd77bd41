"""Bridges: files and pipes that a gateway meets as sockets."""

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from armferry.stream import NotAStream
from armferry.wrapper.beside.bridges import Bridge, as_sink, as_source, at_offset, bridged
from armferry.wrapper.errors import UriFault


def _read_all(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    data = b""
    while more := connection.recv(1 << 16):
        data += more
    return data


def test_a_pipe_that_runs_dry_is_waited_for() -> None:
    """libvirt passes the pipe of its decompressor with O_NONBLOCK set."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    bridges: list[Bridge] = []

    def write() -> None:
        for _ in range(3):
            os.write(writing, b"piece")
            time.sleep(0.05)
        os.close(writing)

    thread = threading.Thread(target=write)
    with socket.socket(fileno=as_source(reading, bridges)) as connection:
        thread.start()
        assert _read_all(connection) == b"piece" * 3
    thread.join()
    bridges[0].join(10)
    assert bridges[0].error == ""


def test_a_full_pipe_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    bridges: list[Bridge] = []
    sent = bytes(range(256)) * 4096
    got: list[bytes] = []

    def read() -> None:
        time.sleep(0.1)
        with open(reading, "rb") as pipe:
            got.append(pipe.read())

    thread = threading.Thread(target=read)
    thread.start()
    with socket.socket(fileno=as_sink(writing, bridges)) as connection:
        connection.sendall(sent)
    thread.join(10)
    assert got == [sent]
    assert bridges[0].error == ""


def test_a_socket_needs_no_bridge_and_waits_too() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    bridges: list[Bridge] = []
    number = as_source(theirs.detach(), bridges)
    assert bridges == []
    assert os.get_blocking(number)
    os.close(number)
    ours.close()


def test_what_went_wrong_is_kept_and_the_file_closed() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    bridges: list[Bridge] = []

    def broken(descriptor: int, connection: socket.socket) -> None:
        raise NotAStream("the input is empty", offset=0)

    with socket.socket(fileno=bridged(reading, bridges, broken)) as connection:
        assert _read_all(connection) == b""
    bridges[0].join(10)
    assert bridges[0].error.startswith("the input is empty")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)


def test_a_descriptor_that_nobody_gave_is_named(tmp_path: Path) -> None:
    with pytest.raises(UriFault, match="fd:999: Bad file descriptor"):
        as_source(999, [])
    reading, writing = os.pipe()
    with pytest.raises(UriFault, match="file:pipe: Illegal seek"):
        at_offset(reading, 1, "pipe")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)
    os.close(writing)
