"""Sockets that listen where QEMU would have listened, in the way in which QEMU does."""

import contextlib
import os
import socket
import stat

__all__ = ["bound", "listening_tcp", "listening_unix"]

_BACKLOG = 16


def listening_tcp(host: str, port: str) -> socket.socket:
    """A TCP socket that listens. Raises OSError.

    An empty host, or `::`, is every address, as for QEMU.
    """
    everywhere = host in ("", "::") and socket.has_dualstack_ipv6()
    found = socket.getaddrinfo(
        "::" if everywhere else host or None,
        port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )
    family, _, _, _, where = found[0]
    return socket.create_server(
        (str(where[0]), int(where[1])),
        family=family,
        backlog=_BACKLOG,
        dualstack_ipv6=everywhere,
    )


def listening_unix(path: str) -> socket.socket:
    """A UNIX socket that listens, an old one at that path removed, as QEMU does. Raises OSError."""
    if not path.startswith("\0"):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.unlink(path)
    return bound(path)


def bound(path: str) -> socket.socket:
    """A UNIX socket that listens at a path that nothing is at. Raises OSError."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(path)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
