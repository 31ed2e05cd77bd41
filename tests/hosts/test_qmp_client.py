"""The QMP client against a QEMU that the test plays."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from armferry.hosts.qmp.client import (
    CommandRefused,
    Monitor,
    MonitorFault,
    MonitorSilent,
    QmpClient,
)

GREETING = b'{"QMP": {"version": {}, "capabilities": ["oob"]}}\r\n'
Answers = Callable[[dict[str, Any]], list[dict[str, Any]]]


def _done(command: dict[str, Any], result: object = None) -> dict[str, Any]:
    return {"return": result or {}, "id": command["id"]}


@contextlib.contextmanager
def qemu(answers: Answers, *, limit: float = 20.0) -> Iterator[QmpClient]:
    """A client of a QEMU that gives these answers to each command."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs, theirs.makefile("rb") as commands:
            theirs.sendall(GREETING)
            for line in commands:
                command = json.loads(line)
                known = command["execute"] == "qmp_capabilities"
                for one in [_done(command)] if known else answers(command):
                    theirs.sendall(json.dumps(one, indent=1).encode() + b"\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with QmpClient(ours, "QEMU", limit=limit) as client:
        yield client
    thread.join(20)
    assert not thread.is_alive()


def test_an_answer_is_the_one_with_the_commands_id() -> None:
    """Pretty-printed, among events, after the answer to a command that nobody waits for."""

    def answers(command: dict[str, Any]) -> list[dict[str, Any]]:
        assert command["arguments"] == {"path": "/machine"}
        return [
            {"event": "STOP", "data": {"id": command["id"]}},
            {"return": "another's", "id": 1_000},
            {"error": {"class": "GenericError", "desc": "JSON parse error"}},
            _done(command, "this one's"),
        ]

    with qemu(answers) as client:
        assert client.execute("qom-get", {"path": "/machine"}) == "this one's"


def test_a_refusal_has_qemus_reason() -> None:
    def answers(command: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"error": {"class": "GenericError", "desc": "not now"}, "id": command["id"]}]

    with qemu(answers) as client, pytest.raises(CommandRefused) as refused:
        client.execute("migrate")
    assert str(refused.value) == "QEMU: migrate was refused: not now"
    assert refused.value.reason == "not now"


def test_a_command_that_is_given_up_does_not_answer_the_next() -> None:
    late: list[dict[str, Any]] = []

    def answers(command: dict[str, Any]) -> list[dict[str, Any]]:
        if command["execute"] == "slow":
            late.append(_done(command, "late"))
            return []
        return [*late, _done(command, "in time")]

    with qemu(answers, limit=0.5) as client:
        with pytest.raises(MonitorSilent) as silent:
            client.execute("slow")
        assert str(silent.value) == "QEMU: no answer to slow in 0.5 s"
        assert client.execute("quick") == "in time"


def test_a_qemu_that_goes_away_is_a_fault_at_once_and_afterwards() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(GREETING + b'{"return": {}, "id": 1}\r\n')
    with QmpClient(ours, "QEMU", limit=600) as client:
        theirs.close()
        for _ in range(2):
            with pytest.raises(MonitorFault) as fault:
                client.execute("query-status")
            assert str(fault.value) == "QEMU: QEMU went away during query-status"


def test_what_is_no_monitor_is_named() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b'{"jsonrpc": "2.0"}\n')
    with pytest.raises(MonitorFault) as fault:
        QmpClient(ours, "unix:/x")
    assert str(fault.value) == "unix:/x: no QMP monitor answers: it speaks something else"
    theirs.close()


@pytest.mark.parametrize("address", ["", "unix:", "tcp:host", "tcp:host:x", "tcp:host:70000"])
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(Exception, match="is no QMP address; accepted: unix:PATH, tcp:HOST:PORT"):
        Monitor(address)


def test_nobody_at_the_address(tmp_path: Any) -> None:
    with pytest.raises(MonitorFault) as fault:
        Monitor(f"unix:{tmp_path}/none")
    assert str(fault.value) == (
        f"unix:{tmp_path}/none: no QMP monitor answers: No such file or directory"
    )
