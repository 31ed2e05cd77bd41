"""Where a channel comes from or goes to, as text and as a value.

Knows the forms `tcp:HOST:PORT` (IPv6 in brackets), `unix:PATH`, `exec:COMMAND`, `fd:NUMBER` and
`systemd:` or `systemd:NAME` (sockets that the service manager opened: sd_listen_fds(3)). Refuses
to know how they are opened (`endpoint`).
"""

import re
from dataclasses import dataclass

from armferry.gateway.errors import AddressError

__all__ = [
    "Address",
    "ExecAddress",
    "FdAddress",
    "SystemdAddress",
    "TcpAddress",
    "UnixAddress",
    "parse_address",
]

_PORT = re.compile(r"[0-9]{1,5}")
_ACCEPTED = "accepted: tcp:HOST:PORT, tcp:[IPV6]:PORT, unix:PATH, exec:COMMAND, fd:NUMBER, systemd:"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP port; an empty `host` is every address of this machine. Port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A UNIX socket at `path`."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class ExecAddress:
    """A shell command whose standard input and output are the channel."""

    command: str

    def __str__(self) -> str:
        return f"exec:{self.command}"


@dataclass(frozen=True, slots=True)
class FdAddress:
    """A socket that was inherited under this number."""

    number: int

    def __str__(self) -> str:
        return f"fd:{self.number}"


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """A socket that systemd opened: the one called `name`, or the only one."""

    name: str = ""

    def __str__(self) -> str:
        return f"systemd:{self.name}"


Address = TcpAddress | UnixAddress | ExecAddress | FdAddress | SystemdAddress


def parse_address(text: str) -> Address:
    """The address in `text`. Raises AddressError."""
    kind, colon, rest = text.partition(":")
    if not colon:
        raise AddressError(f"{text!r} is no address; {_ACCEPTED}")
    match kind:
        case "tcp":
            return _tcp(text, rest)
        case "unix" if rest:
            return UnixAddress(rest)
        case "exec" if rest:
            return ExecAddress(rest)
        case "fd" if rest.isascii() and rest.isdigit() and len(rest) < 10:
            return FdAddress(int(rest))
        case "systemd":
            return SystemdAddress(rest)
        case "rdma":
            raise AddressError(
                f"{text!r}: RDMA writes guest memory past any gateway; migrate over tcp: or unix:"
            )
    raise AddressError(f"{text!r} is no address; {_ACCEPTED}")


def _tcp(text: str, rest: str) -> TcpAddress:
    host, colon, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise AddressError(f"{text!r}: write an IPv6 address in brackets, tcp:[ADDRESS]:PORT")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65_535:
        raise AddressError(f"{text!r}: the port must be a number from 0 to 65535")
    return TcpAddress(host, int(port))
