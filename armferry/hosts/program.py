"""A program asked for a short answer: run, waited for no longer than a limit, never left behind.

What it prints goes into files, for a pipe that some grandchild holds open would be waited for
without end. Refuses to know what the answer means.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from armferry.errors import EnvironmentFault

__all__ = ["ProgramAnswer", "ProgramFault", "answer_of"]

_LONGEST = 1 << 20  # bytes of an answer that are read


class ProgramFault(EnvironmentFault):
    """A program that cannot be run, or does not end."""


@dataclass(frozen=True, slots=True)
class ProgramAnswer:
    """What a program printed, and its exit status: negative when a signal ended it."""

    status: int
    out: str
    err: str


def answer_of(
    program: Path | str, words: Sequence[str] = (), *, limit: float, given: bytes = b""
) -> ProgramAnswer:
    """What `program` says to `words` and to `given` on its standard input, in `limit` seconds.

    Text that is no UTF-8 is replaced. Raises ProgramFault.
    """
    with (
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        asked.write(given)
        asked.seek(0)
        try:
            process = subprocess.Popen(
                [program, *words], stdin=asked, stdout=out, stderr=err, start_new_session=True
            )
        except OSError as error:
            raise ProgramFault(f"{program}: cannot be run: {error.strerror}") from error
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            command = " ".join([str(program), *words])
            raise ProgramFault(f"{command} did not end in {limit:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # what it has started goes with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return ProgramAnswer(status, _start_of(out.fileno()), _start_of(err.fileno()))


def _start_of(descriptor: int) -> str:
    return os.pread(descriptor, _LONGEST, 0).decode("utf-8", "replace")
