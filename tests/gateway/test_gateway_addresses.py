"""Where the gateway listens and connects: addresses, inherited sockets, what is not allowed."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from armferry.gateway import (
    AddressError,
    Dialer,
    GatewayError,
    Listener,
    NetworkFault,
    parse_address,
)
from armferry.gateway.address import TcpAddress, UnixAddress


def test_systemd_passes_the_listening_socket(tmp_path: Path) -> None:
    """As the service manager does it: descriptor 3 and three variables."""
    path = tmp_path / "activated"
    program = (
        "import os, sys; from armferry.gateway import Listener, parse_address; "
        "os.environ['LISTEN_PID'] = str(os.getpid()); "
        "one = Listener(parse_address(sys.argv[1])); print('ready', flush=True); "
        "import select; poll = select.poll(); poll.register(one.descriptor, select.POLLIN); "
        "poll.poll(); channel = one.take(); buffer = memoryview(bytearray(9)); "
        "print(bytes(buffer[:channel.receive_into(buffer)]).decode())"
    )
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        for name in ("systemd:", "systemd:migration"):
            environment = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "migration"}
            number = server.fileno()
            shell = f'exec "$0" -c "$1" "$2" 3<&{number}'
            with subprocess.Popen(
                ["/bin/bash", "-c", shell, sys.executable, program, name],
                env=environment,
                pass_fds=(number,),
                stdout=subprocess.PIPE,
                text=True,
            ) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(path))
                    client.sendall(b"activated")
                    assert child.stdout.readline() == "activated\n"


def test_plain_listener_for_other_machines_must_be_asked_for() -> None:
    with pytest.raises(GatewayError) as error:
        Listener(TcpAddress("", 0))
    assert str(error.value) == (
        "tcp::0: guest memory would travel here unencrypted and anybody could connect; give TLS "
        "credentials (--tls-listen), listen on 127.0.0.1 or a UNIX socket, or allow it with "
        "--allow-plain"
    )
    for options in ({"plain_allowed": True}, {"encrypted": True}):
        Listener(TcpAddress("", 0), **options).close()
    Listener(TcpAddress("::1", 0)).close()


def test_socket_that_somebody_listens_on_is_not_taken_away(tmp_path: Path) -> None:
    first = Listener(UnixAddress(f"{tmp_path}/one"))
    with pytest.raises(NetworkFault) as error:
        Listener(UnixAddress(f"{tmp_path}/one"))
    assert str(error.value) == f"unix:{tmp_path}/one: cannot listen: Address already in use"
    first.close()
    assert not (tmp_path / "one").exists()


def test_socket_that_a_killed_gateway_left_is_used_again(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "one"))
    Listener(UnixAddress(f"{tmp_path}/one")).close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tcp:127.0.0.1:4444", "tcp:127.0.0.1:4444"),
        ("tcp:[::1]:4444", "tcp:[::1]:4444"),
        ("tcp::4444", "tcp::4444"),
        ("unix:/run/a b", "unix:/run/a b"),
        ("exec:cat > x:y", "exec:cat > x:y"),
        ("fd:7", "fd:7"),
        ("systemd:", "systemd:"),
    ],
)
def test_addresses_read_as_they_are_written(text: str, shown: str) -> None:
    assert str(parse_address(text)) == shown


ACCEPTED = "accepted: tcp:HOST:PORT, tcp:[IPV6]:PORT, unix:PATH, exec:COMMAND, fd:NUMBER, systemd:"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", f"'nonsense' is no address; {ACCEPTED}"),
        ("udp:1:2", f"'udp:1:2' is no address; {ACCEPTED}"),
        ("unix:", f"'unix:' is no address; {ACCEPTED}"),
        ("tcp:host", "'tcp:host': the port must be a number from 0 to 65535"),
        ("tcp:host:70000", "'tcp:host:70000': the port must be a number from 0 to 65535"),
        ("tcp:::1:44", "'tcp:::1:44': write an IPv6 address in brackets, tcp:[ADDRESS]:PORT"),
        (
            "rdma:host:44",
            "'rdma:host:44': RDMA writes guest memory past any gateway; migrate over tcp: or unix:",
        ),
    ],
)
def test_what_is_no_address_is_told(text: str, message: str) -> None:
    with pytest.raises(AddressError) as error:
        parse_address(text)
    assert str(error.value) == message


def test_destination_that_is_slow_to_accept_is_waited_for(tmp_path: Path) -> None:
    """A busy QEMU's queue is short, and multifd fills it at once."""
    path = f"{tmp_path}/busy"
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as stack:
        server.bind(path)
        server.listen(0)
        full = False
        while not full:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(path)
            except BlockingIOError:
                full = True
        with pytest.raises(NetworkFault) as fault:
            Dialer(UnixAddress(path), limit=0.05).dial()
        assert str(fault.value) == (
            f"unix:{path}: cannot connect: Resource temporarily unavailable"
        )
        accepting = threading.Timer(0.2, lambda: stack.enter_context(server.accept()[0]))
        accepting.start()
        Dialer(UnixAddress(path)).dial().close()
        accepting.join()
