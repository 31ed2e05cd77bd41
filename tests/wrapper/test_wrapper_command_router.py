"""Which commands are led, and what becomes of them; the test plays client and QEMU."""

import array
import json
import os
import socket
import time
from pathlib import Path

import pytest

from .conftest import Rig, receive


def test_a_descriptor_that_came_ahead_belongs_to_the_next_command(hiding: Rig) -> None:
    """qemu.qmp sends a space with the descriptor, and then the command."""
    reading, writing = os.pipe()
    command = {"execute": "getfd", "arguments": {"fdname": "m"}}
    hiding.send_with(writing, b" ", json.dumps(command).encode())
    os.close(writing)
    data = b""
    numbers: list[int] = []
    while len(data) < 1 + len(json.dumps(command)):
        more, ancillary, _, _ = hiding.qemu.recvmsg(1 << 16, socket.CMSG_SPACE(64))
        data += more
        for _, _, content in ancillary:
            numbers += array.array("i", content)
    assert json.loads(data) == command
    os.close(numbers[0])
    hiding.client.sendall(b'{"execute":"migrate","arguments":{"uri":"fd:m"}}')
    slipped, numbers = hiding.to_qemu()
    assert slipped["execute"] == "getfd", "the descriptor was not noted"
    os.close(numbers[0])
    assert os.read(reading, 1) == b""
    os.close(reading)


@pytest.mark.parametrize(
    "line",
    [
        'migrate "exec:cat > {}"',
        'migrate -d  "exec:cat > {}" ',
        '  migrate -d -b "exec:cat > \\"{}\\""',
        "migrate exec:cat>{}",
    ],
)
def test_quoted_address_in_a_human_command(hiding: Rig, tmp_path: Path, line: str) -> None:
    target = tmp_path / "target"
    arguments = {"command-line": line.format(target)}
    command = {"execute": "human-monitor-command", "arguments": arguments}
    hiding.client.sendall(json.dumps(command).encode())
    received, _ = hiding.to_qemu()
    before, _, path = received["arguments"]["command-line"].partition("unix:")
    assert before.split() == [word for word in line.split() if word in ("migrate", "-d", "-b")]
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(path)
        stream.sendall(b"QEVM\0\0\0\3")
    deadline = time.monotonic() + 10
    while not target.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_other_things_that_complete_stay_completed(hiding: Rig) -> None:
    command = {"execute": "migrate", "arguments": {"uri": "exec:exit 3"}}
    hiding.client.sendall(json.dumps(command).encode())
    received, _ = hiding.to_qemu()
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(received["arguments"]["uri"].removeprefix("unix:"))
        stream.sendall(b"QEVM\0\0\0\3")
    hiding.qemu.sendall(b'{"return": {}}\r\n')
    assert receive(hiding.client, 16) == b'{"return": {}}\r\n'
    dumped = (
        b'{"event": "DUMP_COMPLETED", "data": {"result": {"total": 1, "status": "completed", '
        b'"completed": 1}}}\r\n{"return": {"total": 1, "status": "completed", "completed": 1}}\r\n'
    )
    hiding.qemu.sendall(dumped)
    assert receive(hiding.client, len(dumped)) == dumped
    failed = b'{"return": {"status": "failed", "total-time": 1}}\r\n'
    hiding.qemu.sendall(failed.replace(b"failed", b"completed"))
    assert receive(hiding.client, len(failed)) == failed


def test_a_migration_that_qemu_refuses_is_not_waited_for(hiding: Rig) -> None:
    """Otherwise the status of an earlier one would be held back for ever."""
    command = {"execute": "migrate", "arguments": {"uri": "tcp:127.0.0.1:1"}, "id": "m"}
    hiding.client.sendall(json.dumps(command).encode())
    hiding.to_qemu()
    words = (
        b'{"return": {"status": "completed"}, "id": "before"}\r\n'
        b'{"id": "m", "error": {"class": "GenericError", "desc": "There are blockers"}}\r\n'
        b'{"return": {"status": "completed", "total-time": 5}, "id": "after"}\r\n'
    )
    hiding.qemu.sendall(words)
    assert receive(hiding.client, len(words)) == words


MAPPED = (
    b'{"execute":"migrate-set-capabilities","arguments":{"capabilities":'
    b'[{"capability":"mapped-ram","state":true}]}}'
)


def test_mapped_ram_goes_to_the_file_itself_and_failing_empties_it(
    hiding: Rig, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    command = {"execute": "migrate", "arguments": {"uri": f"file:{file},offset=4"}}
    hiding.client.sendall(MAPPED)
    assert receive(hiding.qemu, len(MAPPED)) == MAPPED
    hiding.client.sendall(json.dumps(command).encode())
    assert hiding.to_qemu() == (command, [])
    hiding.qemu.sendall(b'{"return": {}}\r\n')
    assert receive(hiding.client, 16) == b'{"return": {}}\r\n'
    file.write_bytes(b"headthis is no stream")
    hiding.qemu.sendall(b'{"event": "MIGRATION", "data": {"status": "completed"}}\r\n')
    assert hiding.client.recv(100) == b'{"event": "MIGRATION", "data": {"status": "failed"}}\r\n'
    assert file.read_bytes() == b"head"
    assert "this is no QEMU migration stream" in hiding.said[0]


@pytest.mark.parametrize("end", ["refused", "cancelled", "gone"])
def test_a_mapped_ram_file_that_qemu_did_not_finish_is_left_alone(
    hiding: Rig, tmp_path: Path, end: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"somebody's file")
    command = {"execute": "migrate", "arguments": {"uri": f"file:{file}"}, "id": 1}
    hiding.client.sendall(MAPPED)
    assert receive(hiding.qemu, len(MAPPED)) == MAPPED
    hiding.client.sendall(json.dumps(command).encode())
    assert hiding.to_qemu() == (command, [])
    if end == "refused":
        words = b'{"error": {"class": "GenericError", "desc": "no"}, "id": 1}\r\n'
    else:
        words = b'{"return": {}, "id": 1}\r\n'
    if end == "cancelled":
        words += b'{"event": "MIGRATION", "data": {"status": "cancelled"}}\r\n'
    hiding.qemu.sendall(words)
    assert receive(hiding.client, len(words)) == words
    hiding.transfers.finish(0)
    assert file.read_bytes() == b"somebody's file"


def test_descriptor_sets_are_followed(hiding: Rig, tmp_path: Path) -> None:
    """`file:/dev/fdset/N` is the descriptor that was given, until it is taken back."""
    writing = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT)
    given = b'{"execute":"add-fd","arguments":{"fdset-id":5}}'
    migrate = b'{"execute":"migrate","arguments":{"uri":"file:/dev/fdset/5,offset=3"}}'
    hiding.send_with(writing, given)
    _, numbers = hiding.to_qemu()
    os.close(numbers[0])
    hiding.client.sendall(migrate)
    received, _ = hiding.to_qemu()
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(received["arguments"]["uri"].removeprefix("unix:"))
        stream.sendall(b"QEVM\0\0\0\3")
    hiding.transfers.finish(10)
    assert (tmp_path / "target").stat().st_size >= 3

    hiding.send_with(writing, given)
    os.close(writing)
    _, numbers = hiding.to_qemu()
    os.close(numbers[0])
    hiding.client.sendall(b'{"execute":"remove-fd","arguments":{"fdset-id":5}}')
    hiding.to_qemu()
    hiding.client.sendall(migrate)
    assert json.loads(hiding.client.recv(1000))["error"]["desc"] == (
        "armferry: file:/dev/fdset/5: no such descriptor was given to QEMU's monitors"
    )
