"""Sockets that listen: on a TCP port, or at a path.

Knows names, address families and what lies at a path already; refuses to know who will connect.
Two programs differ in what they remove from a path: QEMU any old socket, the gateway one on which
nobody listens.
"""

import contextlib
import os
import socket
import stat

__all__ = ["listen_tcp", "listen_unix", "remove_socket", "remove_stale"]

_BACKLOG = 128


def listen_tcp(host: str, port: int | str) -> socket.socket:
    """A TCP socket that listens; port 0 is any free one.

    An empty host, or `::`, is every address, IPv4 included where the kernel has it so. Raises
    OSError, UnicodeError for what cannot be a host's name.
    """
    everywhere = host in ("", "::") and socket.has_dualstack_ipv6()
    family, _, _, _, where = socket.getaddrinfo(
        "::" if everywhere else host or None,
        port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )[0]
    # an IPv6 address of one link keeps its scope, which is behind the first two
    return socket.create_server(where, family=family, backlog=_BACKLOG, dualstack_ipv6=everywhere)


def listen_unix(path: str, *, mode: int | None = None) -> socket.socket:
    """A UNIX socket that listens at a path that nothing is at. Raises OSError.

    `mode` is that of the path (default: the umask decides); nobody can connect before it is set.
    """
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(path)
        if mode is not None:
            os.chmod(path, mode)
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def remove_socket(path: str) -> None:
    """Removes the socket at `path`, in use or not, as QEMU does; nothing else. Raises OSError."""
    if not path.startswith("\0"):  # of the abstract names nothing is left behind
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.unlink(path)


def remove_stale(path: str) -> None:
    """Removes a socket on which nobody listens any more, and nothing else. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # or a full backlog, of one who listens, would be waited for
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            except BlockingIOError:
                return
