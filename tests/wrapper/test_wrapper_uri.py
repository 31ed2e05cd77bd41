"""Migration addresses, as text and as channels."""

from typing import Any

import pytest

from armferry.errors import ArmferryError
from armferry.gateway.address import ExecAddress, TcpAddress, UnixAddress
from armferry.wrapper.commandline.uri import (
    FileTarget,
    NamedFd,
    Target,
    channel_text,
    parse_channels,
    parse_uri,
)

CASES: list[tuple[str, dict[str, Any], Target]] = [
    (
        "tcp:[::]:49152",
        {"transport": "socket", "type": "inet", "host": "::", "port": "49152"},
        TcpAddress("::", 49152),
    ),
    (
        "tcp:0:4444,ipv4=on",
        {"transport": "socket", "type": "inet", "host": "0", "port": "4444"},
        TcpAddress("0", 4444),
    ),
    (
        "unix:/run/x",
        {"transport": "socket", "type": "unix", "path": "/run/x"},
        UnixAddress("/run/x"),
    ),
    ("fd:migrate", {"transport": "socket", "type": "fd", "str": "migrate"}, NamedFd("migrate")),
    (
        "exec:cat > 'a b'",
        {"transport": "exec", "args": ["/bin/sh", "-c", "cat > 'a b'"]},
        ExecAddress("cat > 'a b'"),
    ),
    (
        "file:/a,offset=0x10",
        {"transport": "file", "filename": "/a", "offset": 16},
        FileTarget("/a", 16),
    ),
]


@pytest.mark.parametrize(("uri", "address", "target"), CASES)
def test_text_and_channels_mean_the_same(uri: str, address: dict[str, Any], target: Target) -> None:
    assert parse_uri(uri) == target
    assert parse_channels([{"channel-type": "main", "addr": address}]) == target


def test_private_channel() -> None:
    assert parse_channels(channel_text("/p")) == UnixAddress("/p")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("defer", "'defer' is no migration address: tcp:, unix:, exec:, fd: or file:"),
        ("tcp:h:1,to=9", "'tcp:h:1,to=9': a gateway cannot stand in front of this: give HOST:PORT"),
        ("file:/a,offset=x", "'file:/a,offset=x': offset must be a number of bytes"),
        (
            "rdma:h:1",
            "'rdma:h:1': RDMA writes guest memory past any gateway; migrate over tcp: or unix:",
        ),
    ],
)
def test_what_cannot_be_led(uri: str, message: str) -> None:
    with pytest.raises(ArmferryError) as caught:
        parse_uri(uri)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([], "one channel, the main one, can go through a gateway"),
        ([{"channel-type": "main"}], "malformed migration channel: KeyError('addr')"),
        (
            [{"channel-type": "main", "addr": {"transport": "rdma", "host": "h", "port": "1"}}],
            "transport 'rdma' cannot go through a gateway",
        ),
        (
            [{"channel-type": "cpr", "addr": {}}],
            "channel 'cpr' cannot go through a gateway",
        ),
    ],
)
def test_channels_that_cannot_be_led(channels: object, message: str) -> None:
    with pytest.raises(ArmferryError) as caught:
        parse_channels(channels)
    assert str(caught.value) == message
