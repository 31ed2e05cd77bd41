"""Which commands are led, and what becomes of them; the test plays client and QEMU."""

import array
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

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
    answer(hiding, received)
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
    received, _ = hiding.to_qemu()
    before = b'{"return": {"status": "completed"}, "id": "before"}\r\n'
    error = {"class": "GenericError", "desc": "There are blockers"}
    after = b'{"return": {"status": "completed", "total-time": 5}, "id": "after"}\r\n'
    hiding.qemu.sendall(before)
    answer(hiding, received, error=error)
    hiding.qemu.sendall(after)
    told = json.dumps({"error": error, "id": "m"}).encode() + b"\r\n"
    assert receive(hiding.client, len(before + told + after)) == before + told + after


def answer(rig: Rig, command: dict[str, Any], **how: object) -> None:
    """QEMU answers `command`, with its id; by default it has done it."""
    message = {**(how or {"return": {}}), "id": command["id"]}
    rig.qemu.sendall(json.dumps(message).encode() + b"\r\n")


@pytest.mark.parametrize("identity", [{}, {"id": None}, {"id": 1}, {"id": {"armferry-": 1}}])
def test_an_error_of_an_earlier_command_is_not_the_migrations(
    hiding: Rig, tmp_path: Path, identity: dict[str, Any]
) -> None:
    """Both were sent at once, and an id need not be given, nor be another one."""
    earlier = {"execute": "no-such-command", **identity}
    migrate = {"execute": "migrate", "arguments": {"uri": f"exec:cat > {tmp_path}/out"}, **identity}
    hiding.client.sendall(json.dumps(earlier).encode() + json.dumps(migrate).encode())
    data = json.dumps(earlier).encode()
    assert receive(hiding.qemu, len(data)) == data
    received, _ = hiding.to_qemu()
    refused = {"error": {"class": "CommandNotFound", "desc": "no-such-command"}, **identity}
    hiding.qemu.sendall(json.dumps(refused).encode() + b"\r\n")
    said = json.dumps(refused).encode() + b"\r\n"
    assert receive(hiding.client, len(said)) == said
    assert hiding.transfers.last_out is not None, "its gateway was given up"
    answer(hiding, received)
    said = json.dumps({"return": {}, **identity}).encode() + b"\r\n"
    assert receive(hiding.client, len(said)) == said
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(received["arguments"]["uri"].removeprefix("unix:"))


def _named(rig: Rig, name: str) -> int:
    """Gives the client's monitor a descriptor; the end that sees when nobody holds it."""
    reading, writing = os.pipe()
    command = {"execute": "getfd", "arguments": {"fdname": name}}
    rig.send_with(writing, json.dumps(command).encode())
    os.close(writing)
    _, numbers = rig.to_qemu()
    os.close(numbers[0])
    return reading


@pytest.mark.parametrize(
    "between",
    [
        {"execute": "query-migrate"},
        {"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 1}},
        {"execute": "device_del", "arguments": {"id": "migrate"}},
        {"execute": "human-monitor-command", "arguments": {"command-line": "info migrate"}},
        {"execute": "human-monitor-command", "arguments": {"command-line": "fd=migrated"}},
        {"execute": "blockdev-add", "arguments": {"driver": "file", "filename": "migrate"}},
        {"execute": "netdev_add", "arguments": {"type": "tap", "fd": "migrate2"}},
    ],
    ids=json.dumps,
)
def test_a_command_that_only_has_the_name_in_it_takes_no_descriptor(
    hiding: Rig, between: dict[str, Any]
) -> None:
    reading = _named(hiding, "migrate")
    data = json.dumps(between).encode()
    hiding.client.sendall(data)
    assert receive(hiding.qemu, len(data)) == data
    hiding.client.sendall(b'{"execute":"migrate","arguments":{"uri":"fd:migrate"}}')
    slipped, numbers = hiding.to_qemu()
    assert slipped["execute"] == "getfd"
    os.close(numbers[0])
    os.close(reading)


@pytest.mark.parametrize(
    "taking",
    [
        {"execute": "closefd", "arguments": {"fdname": "one"}},
        {"execute": "netdev_add", "arguments": {"type": "tap", "fd": "one"}},
        {"execute": "netdev_add", "arguments": {"type": "tap", "fds": "zero:one"}},
        {"execute": "netdev_add", "arguments": {"type": "tap", "fd": "0", "vhostfd": "one"}},
        {"execute": "add_client", "arguments": {"protocol": "vnc", "fdname": "one"}},
        {
            "execute": "chardev-add",
            "arguments": {
                "id": "c",
                "backend": {
                    "type": "socket",
                    "data": {"addr": {"type": "fd", "data": {"str": "one"}}},
                },
            },
        },
        {
            "execute": "nbd-server-start",
            "arguments": {"addr": {"type": "fd", "data": {"str": "one"}}},
        },
        {
            "execute": "human-monitor-command",
            "arguments": {"command-line": "netdev_add tap,fd=one,id=net0"},
        },
    ],
    ids=json.dumps,
)
def test_a_command_that_takes_a_descriptor_has_it_alone(
    hiding: Rig, taking: dict[str, Any]
) -> None:
    reading = _named(hiding, "one")
    hiding.client.sendall(json.dumps(taking).encode())
    hiding.to_qemu()
    assert os.read(reading, 1) == b"", "somebody else holds it still"
    os.close(reading)


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
    received, _ = hiding.to_qemu()
    assert received == {**command, "id": received["id"]}
    answer(hiding, received)
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
    received, _ = hiding.to_qemu()
    if end == "refused":
        answer(hiding, received, error={"class": "GenericError", "desc": "no"})
        words = b'{"error": {"class": "GenericError", "desc": "no"}, "id": 1}\r\n'
    else:
        answer(hiding, received)
        words = b'{"return": {}, "id": 1}\r\n'
    if end == "cancelled":
        event = b'{"event": "MIGRATION", "data": {"status": "cancelled"}}\r\n'
        hiding.qemu.sendall(event)
        words += event
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


@pytest.mark.parametrize(
    "command",
    [
        {
            "execute": "snapshot-load",
            "arguments": {"job-id": "j", "tag": "before", "vmstate": "d", "devices": ["d"]},
        },
        {"execute": "human-monitor-command", "arguments": {"command-line": "loadvm before"}},
    ],
    ids=["snapshot-load", "loadvm"],
)
def test_a_snapshot_loaded_on_a_monitor_is_qemus_and_the_user_is_told(
    hiding: Rig, command: dict[str, Any]
) -> None:
    hiding.client.sendall(json.dumps(command).encode())
    received, _ = hiding.to_qemu()
    assert received == command
    (said,) = hiding.said
    assert said == (
        "the snapshot before is loaded by QEMU alone; should it refuse the state, end QEMU and "
        "run: armferry ferry IMAGE#before --in-place --to DEST, or start it with -loadvm before"
    )
