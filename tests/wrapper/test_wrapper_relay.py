"""The relay between a client and a QEMU that this test plays: what passes, and what is led."""

import array
import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from .conftest import Rig, receive

COMMANDS = (
    b'{"execute":"qmp_capabilities"}\r\n  {"execute": "query-status", "id": {"a": [1, 2]}}'
    b"{'execute':'device_add','arguments':{'driver':'virtio-rng-pci','id':'r{'}}\n"
    b'{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":1}}{"broken\xff"'
    b'{"execute":"migrate","arguments":{"uri":"unix:/nowhere"}}'
)
ANSWERS = (
    b'{"QMP": {"version": {}, "capabilities": ["oob"]}}\r\n{"return": {}}\r\n'
    b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}\r\n'
    b'{"return": {"status": "completed"}, "id": "}"}\r\n'
)


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_every_byte_passes_both_ways(rig: Rig, size: int) -> None:
    for data, start, end in (
        (COMMANDS, rig.client, rig.qemu),
        (ANSWERS, rig.qemu, rig.client),
    ):
        for at in range(0, len(data), size):
            start.sendall(data[at : at + size])
        assert receive(end, len(data)) == data


def test_an_end_of_either_side_ends_the_other(tmp_path: Path) -> None:
    for index in (0, 1):
        rig = Rig(tmp_path, hiding=False)
        ends = (rig.client, rig.qemu)
        ends[index].close()
        if index:
            assert rig.client.recv(1) == b""
        else:
            assert rig.qemu.recv(1) == b""
        rig.close()


def test_descriptors_go_with_their_command(rig: Rig) -> None:
    reading, writing = os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))]
    command = {"execute": "add-fd", "arguments": {"fdset-id": 1}}
    rig.client.sendmsg([json.dumps(command).encode()], rights)
    os.close(writing)
    received, numbers = rig.to_qemu()
    assert received == command
    (passed,) = numbers
    os.write(passed, b"x")
    os.close(passed)
    assert os.read(reading, 2) == b"x"
    assert os.read(reading, 2) == b"", "somebody else still holds the pipe"
    os.close(reading)


def test_outgoing_migration_goes_straight_where_nothing_is_hidden(rig: Rig) -> None:
    command = {"execute": "migrate", "arguments": {"uri": "tcp:host:4444"}}
    rig.client.sendall(json.dumps(command).encode())
    assert rig.to_qemu() == (command, [])


@pytest.mark.parametrize("form", ["uri", "channels", "human"])
def test_outgoing_migration_is_led_to_a_private_socket(hiding: Rig, form: str) -> None:
    command: dict[str, Any]
    if form == "human":
        line = "migrate -d tcp:127.0.0.1:1"
        command = {"execute": "human-monitor-command", "arguments": {"command-line": line}}
    elif form == "uri":
        command = {"execute": "migrate", "arguments": {"detach": True, "uri": "tcp:127.0.0.1:1"}}
    else:
        address = {"transport": "socket", "type": "inet", "host": "127.0.0.1", "port": "1"}
        channels = [{"channel-type": "main", "addr": address}]
        command = {"execute": "migrate", "arguments": {"channels": channels}, "id": 7}
    hiding.client.sendall(json.dumps(command).encode())
    received, _ = hiding.to_qemu()
    text = json.dumps(received["arguments"])
    assert "127.0.0.1" not in text
    if form == "uri":
        assert received["arguments"]["detach"] is True
        path = received["arguments"]["uri"].removeprefix("unix:")
    elif form == "human":
        assert received["arguments"]["command-line"].startswith("migrate -d unix:/")
        path = received["arguments"]["command-line"].partition("unix:")[2]
    else:
        assert received["id"] != 7, "an id that the client may give again"
        path = received["arguments"]["channels"][0]["addr"]["path"]
    assert Path(path).is_socket()


def test_migration_to_a_named_descriptor_gets_another_one(hiding: Rig) -> None:
    reading, writing = os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))]
    named = {"execute": "getfd", "arguments": {"fdname": "m"}, "id": "a"}
    hiding.client.sendmsg([json.dumps(named).encode()], rights)
    os.close(writing)
    received, numbers = hiding.to_qemu()
    assert received == named
    os.close(numbers[0])  # as QEMU does when the name is given again
    hiding.qemu.sendall(b'{"return": {}, "id": "a"}\r\n')
    assert hiding.client.recv(100) == b'{"return": {}, "id": "a"}\r\n'

    migrate = b'{"execute":"migrate","arguments":{"uri":"fd:m"},"id":"b"}'
    hiding.client.sendall(migrate)
    slipped, numbers = hiding.to_qemu()
    assert (slipped["execute"], slipped["arguments"]) == ("getfd", {"fdname": "m"})
    assert len(numbers) == 1
    own, _ = hiding.to_qemu()
    assert {**own, "id": "b"} == json.loads(migrate)
    event = b'{"timestamp": {}, "event": "MIGRATION", "data": {"status": "setup"}}\r\n'
    answer = json.dumps({"return": {}, "id": slipped["id"]}).encode() + b"\r\n"
    done = json.dumps({"id": own["id"], "return": {}}).encode() + b"\r\n"
    hiding.qemu.sendall(event + answer + done)
    expected = event + b'{"return": {}, "id": "b"}\r\n'
    assert receive(hiding.client, len(expected)) == expected

    os.close(numbers[0])  # QEMU ends without a word: the pipe's reader sees an end
    assert os.read(reading, 10) == b""
    os.close(reading)


@pytest.mark.parametrize("hiding_something", [False, True])
def test_a_descriptor_that_is_used_otherwise_is_let_go(
    tmp_path: Path, hiding_something: bool
) -> None:
    rig = Rig(tmp_path, hiding=hiding_something)
    reading, writing = os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))]
    named = {"execute": "getfd", "arguments": {"fdname": "net0"}}
    rig.client.sendmsg([json.dumps(named).encode()], rights)
    os.close(writing)
    _, numbers = rig.to_qemu()
    rig.client.sendall(b'{"execute":"netdev_add","arguments":{"type":"tap","fd":"net0"}}')
    rig.to_qemu()
    os.close(numbers[0])
    with contextlib.closing(os.fdopen(reading, "rb", buffering=0)) as pipe:
        assert pipe.read(1) == b""
    rig.close()


def test_completed_is_held_back_and_told_as_failed_when_nothing_arrived(hiding: Rig) -> None:
    command = {"execute": "migrate", "arguments": {"uri": "exec:sleep 1; exit 3"}}
    hiding.client.sendall(json.dumps(command).encode())
    received, _ = hiding.to_qemu()
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(received["arguments"]["uri"].removeprefix("unix:"))
        stream.sendall(b"QEVM\0\0\0\3")
        hiding.qemu.sendall(b'{"event": "MIGRATION", "data": {"status": "completed"}}\r\n')
        hiding.client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            hiding.client.recv(100)
    hiding.client.settimeout(20)
    assert hiding.client.recv(100) == b'{"event": "MIGRATION", "data": {"status": "failed"}}\r\n'


def test_what_cannot_be_led_is_answered_as_qemu_answers(hiding: Rig) -> None:
    hiding.client.sendall(b'{"execute":"migrate","arguments":{"uri":"rdma:h:1"},"id":"x"}')
    answer = json.loads(hiding.client.recv(1000))
    assert answer == {
        "id": "x",
        "error": {
            "class": "GenericError",
            "desc": "armferry: 'rdma:h:1': RDMA writes guest memory past any gateway; migrate "
            "over tcp: or unix:",
        },
    }


@pytest.mark.parametrize(
    "command",
    [
        {"execute": "migrate-incoming", "arguments": {"uri": "tcp:127.0.0.1:0"}},
        {
            "execute": "human-monitor-command",
            "arguments": {"command-line": "migrate_incoming tcp:127.0.0.1:0"},
        },
    ],
)
def test_what_comes_is_qemus_own_where_nothing_is_judged(rig: Rig, command: dict[str, Any]) -> None:
    """With x-armferry-carry=on nothing stands before QEMU; without -incoming, QEMU says so."""
    rig.client.sendall(json.dumps(command).encode())
    assert rig.to_qemu() == (command, [])
