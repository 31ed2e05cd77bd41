"""The command line of a QEMU that runs on this host, found through its QMP socket.

The kernel says which process holds the other end of a UNIX socket (SO_PEERCRED), and what that
process was started with (/proc). Nothing is asked of the QEMU itself.
"""

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from armferry.errors import ArmferryError, EnvironmentFault

__all__ = ["RunningCommand", "running_command"]

_LIMIT = 20.0
_CREDENTIALS = struct.Struct("3i")  # process, user, group


@dataclass(frozen=True, slots=True)
class RunningCommand:
    """The program and the words after it of a running QEMU."""

    program: Path
    words: tuple[str, ...]


def running_command(address: str) -> RunningCommand:
    """What the QEMU behind `unix:PATH` was started with.

    Raises ArmferryError for an address that is no UNIX socket, EnvironmentFault where this process
    may not see it.
    """
    kind, _, path = address.partition(":")
    if kind != "unix" or not path:
        raise ArmferryError(
            f"{address!r}: the command line of a QEMU is found through a UNIX socket on its own "
            "host; give unix:PATH, or the command line itself after --"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
        there.settimeout(_LIMIT)
        try:
            there.connect(path)
            said = there.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError as error:
            raise EnvironmentFault(f"{address}: cannot be reached: {error.strerror}") from error
    process = Path("/proc") / str(_CREDENTIALS.unpack(said)[0])
    try:
        words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        program = (process / "exe").readlink()
    except OSError as error:
        raise EnvironmentFault(
            f"{address}: the process behind it cannot be looked at ({error.strerror}); be root, or "
            "give the command line after --"
        ) from error
    plain = [word.decode("utf-8", "surrogateescape") for word in words]
    # before it may stand a loader, or whatever else starts it
    at = next((at for at, word in enumerate(plain) if _is_qemu(word)), 0)
    return RunningCommand(
        program if _is_qemu(program.name) else Path(plain[at]), tuple(plain[at + 1 :])
    )


def _is_qemu(word: str) -> bool:
    return Path(word).name.startswith("qemu-")
