"""The library put into a QEMU that is about to start, and the end that its reports come to.

Knows where the library lies, how a table is sealed, and how to find out whether a program can be
preloaded: by doing it once. Sources: ld.so(8), memfd_create(2), fcntl(2) on file sealing.
"""

import contextlib
import fcntl
import os
import socket
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from armferry.boundary.events import EventKind, events_of
from armferry.boundary.table import Table
from armferry.errors import EnvironmentFault

__all__ = ["LIBRARY", "VARIABLE", "BoundaryFault", "Preload", "library", "why_not"]

LIBRARY = "libarmferry-boundary.so"
VARIABLE = "ARMFERRY_BOUNDARY"

_PRELOAD = "LD_PRELOAD"
_ROOM = 4 << 20  # bytes of reports that may wait
_LIMIT = 60.0
_MFD_NOEXEC_SEAL = 0x8
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class BoundaryFault(EnvironmentFault):
    """The library cannot be put into this QEMU on this host."""


def library() -> Path | None:
    """The library that came with this armferry; None where none did."""
    path = Path(__file__).with_name(LIBRARY)
    return path if path.is_file() else None


@dataclass(frozen=True, slots=True)
class Preload:
    """A sealed table and a socket, both inherited by the next program of this process.

    `reports` is the end to read messages from; `table` and `writing` are descriptors for QEMU.
    """

    path: Path
    table: int
    writing: int
    reports: socket.socket

    @classmethod
    def of(cls, table: bytes, path: Path) -> "Preload":
        """`table`, packed, for the library at `path`. Raises BoundaryFault."""
        reports, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo:
            undo.callback(reports.close)
            undo.callback(writing.close)
            try:
                # more than the limit only with a privilege; what is given is enough for a start
                writing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
                number = _sealed(table)
            except OSError as error:
                raise BoundaryFault(
                    f"the table of the KVM boundary cannot be made: {error.strerror}"
                ) from error
            os.set_inheritable(writing.fileno(), True)
            undo.pop_all()
            return cls(path, number, writing.detach(), reports)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with what the library needs, which takes all of it out again at the first VM."""
        others = base.get(_PRELOAD, "")
        names = f"{self.path}:{others}" if others else str(self.path)
        return {**base, _PRELOAD: names, VARIABLE: f"{self.table} {self.writing}"}

    def close_for_qemu(self) -> None:
        """Gives back what only QEMU needs."""
        os.close(self.table)
        os.close(self.writing)


def why_not(program: Path, path: Path | None = None) -> str:
    """Why `program` cannot be preloaded with the library; empty when it can.

    It is run once for its version. Raises BoundaryFault when it cannot be run at all.
    """
    path = path or library()
    if path is None:
        return "this armferry came without its library; the package for aarch64 has it"
    if any(separator in str(path) for separator in ": \t\n"):
        return f"the library's path has a character that separates names in LD_PRELOAD: {path}"
    preload = Preload.of(Table(()).packed(), path)
    with preload.reports:
        try:
            done = subprocess.run(
                [str(program), "-version"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=preload.environment(os.environ),
                pass_fds=(preload.table, preload.writing),
                timeout=_LIMIT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BoundaryFault(f"{program}: cannot be run: {error}") from error
        finally:
            preload.close_for_qemu()
        preload.reports.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            if any(one.kind is EventKind.STARTED for one in events_of(preload.reports.recv(4096))):
                return ""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return _guess(program) or (said[0] if said else "the library was not loaded")


def _sealed(content: bytes) -> int:
    """A memfd with `content` that nobody can change, inherited by the next program."""
    name = "armferry-boundary"
    try:
        number = os.memfd_create(name, os.MFD_ALLOW_SEALING | _MFD_NOEXEC_SEAL)
    except OSError:  # before Linux 6.3
        number = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    os.set_inheritable(number, True)
    os.write(number, content)
    fcntl.fcntl(number, fcntl.F_ADD_SEALS, _SEALS)
    return number


def _guess(program: Path) -> str:
    """What about the file keeps libraries from being preloaded; empty when nothing is seen."""
    if stat.S_IMODE(program.stat().st_mode) & (stat.S_ISUID | stat.S_ISGID):
        return "the program changes its user or group when it starts (setuid)"
    with program.open("rb") as file:
        start = file.read(1 << 16)
    if start.startswith(b"\x7fELF") and not _names_an_interpreter(start):
        return "the program is linked statically"
    with contextlib.suppress(OSError):
        os.getxattr(program, "security.capability")
        return "the program has file capabilities"
    return ""


def _names_an_interpreter(start: bytes) -> bool:
    """Whether a 64-bit little-endian ELF file has a PT_INTERP (3) program header: elf(5)."""
    offset = int.from_bytes(start[32:40], "little")
    size, count = (int.from_bytes(start[at : at + 2], "little") for at in (54, 56))
    headers = (offset + number * size for number in range(count))
    return any(start[at : at + 4] == b"\x03\x00\x00\x00" for at in headers)
