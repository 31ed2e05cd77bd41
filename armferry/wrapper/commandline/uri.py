"""QEMU's migration addresses: as text (`tcp:0:4444`) and as channels (JSON).

Knows the text of `migrate`, `migrate-incoming` and `-incoming` and the `MigrationChannel` objects
of QEMU 8.2 and later (qapi/migration.json), and turns both into one value. Refuses to know how an
address is opened (`transfers`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from armferry.gateway import Address, parse_address
from armferry.gateway.address import ExecAddress, TcpAddress, UnixAddress
from armferry.option_text import segments
from armferry.wrapper.errors import UriFault

__all__ = ["FileTarget", "NamedFd", "Target", "channel_text", "parse_channels", "parse_uri"]


@dataclass(frozen=True, slots=True)
class NamedFd:
    """A descriptor that the monitor was given under `name`, or inherited when it is a number."""

    name: str


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A file from `offset` on."""

    path: str
    offset: int


Target = Address | NamedFd | FileTarget


def parse_uri(text: str) -> Target:
    """The address in QEMU's text. Raises UriFault or AddressError."""
    kind, colon, rest = text.partition(":")
    if not colon:
        raise UriFault(f"{text!r} is no migration address: tcp:, unix:, exec:, fd: or file:")
    match kind:
        case "tcp":
            host, *options = segments(rest)
            if any(not _harmless(option) for option in options):
                raise UriFault(f"{text!r}: a gateway cannot stand in front of this: give HOST:PORT")
            return parse_address(f"tcp:{host}")
        case "fd":
            return NamedFd(rest)
        case "file":
            path, _, offset = rest.partition(",offset=")
            return FileTarget(path, _size(offset, text))
        case _:
            return parse_address(text)


def parse_channels(channels: Any) -> Target:
    """The address of the main channel. Raises UriFault for anything else."""
    if not isinstance(channels, list) or len(channels) != 1:
        raise UriFault("one channel, the main one, can go through a gateway")
    try:
        return _channel(channels[0])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UriFault(f"malformed migration channel: {error!r}") from None


def channel_text(path: str) -> list[dict[str, Any]]:
    """The main channel at a UNIX socket."""
    address = {"transport": "socket", "type": "unix", "path": path}
    return [{"channel-type": "main", "addr": address}]


def _channel(channel: Mapping[str, Any]) -> Target:
    if channel.get("channel-type", "main") != "main":
        raise UriFault(f"channel {channel['channel-type']!r} cannot go through a gateway")
    address = channel["addr"]
    match address["transport"], address.get("type"):
        case "socket", "inet":
            return TcpAddress(address["host"], int(address["port"]))
        case "socket", "unix":
            return UnixAddress(address["path"])
        case "socket", "fd":
            return NamedFd(address["str"])
        case "exec", _:
            words = address["args"]
            if len(words) == 3 and words[:2] == ["/bin/sh", "-c"]:
                return ExecAddress(words[2])
            return ExecAddress(" ".join(map(_quoted, words)))
        case "file", _:
            return FileTarget(address["filename"], int(address.get("offset", 0)))
    raise UriFault(f"transport {address['transport']!r} cannot go through a gateway")


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def _harmless(option: str) -> bool:
    """Whether an option of a TCP address changes nothing for one who only uses HOST:PORT."""
    return option.partition("=")[0] in ("ipv4", "ipv6", "keep-alive", "numeric", "nodelay")


def _size(text: str, uri: str) -> int:
    if not text:
        return 0
    try:
        return int(text, 0)
    except ValueError:
        raise UriFault(f"{uri!r}: offset must be a number of bytes") from None
