"""The program `armferry`: one command run, and how every error ends.

Exit codes: 0 works, 1 works with armferry, 2 will not work, 3 bad usage or input,
4 broken environment, 5 an error that armferry did not expect. An error is one line on standard
error; a traceback comes with --debug only.
"""

import gc
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from armferry.cli.parser import DEBUG, make_parser
from armferry.errors import UNFORESEEN, ArmferryError, EnvironmentFault, unforeseen
from armferry.printable import printable

__all__ = ["main"]

_LONGEST = 500  # letters of a command line that is repeated


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # not the default, so that temporary files are removed; nohup's choice stays
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    if sys.stderr is None:
        # else what belongs there would go to standard output, into the middle of a stream
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the program runs
    try:
        if sys.stdout is None:
            raise EnvironmentFault("standard output is closed")
        words = sys.argv[1:] if words is None else words
        # Before a command stand --debug, or --help and --version, which end the program.
        command = next((word for word in words if word != DEBUG), None)
        if "_ARGCOMPLETE" in os.environ:
            from armferry.cli.completion import complete

            complete()
        # what is loaded here stays: to look through it for rubbish would take a tenth of the time
        gc.disable()
        try:
            arguments = make_parser(command).parse_args(words)
        finally:
            gc.freeze()
            gc.enable()
        code: int = arguments.func(arguments)
        sys.stdout.flush()
    except ArmferryError as error:
        print(printable(f"armferry: {error}"), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # the reader of our output has gone; writing the rest would only repeat the error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        print(printable(f"armferry: {place}{error.strerror or error}"), file=sys.stderr)
        return EnvironmentFault.exit_code
    except Exception as error:
        return _report(error, list(words or ()))
    return code


def _report(error: Exception, words: list[str]) -> int:
    """Says what nobody expected to go wrong; the exit code for it."""
    if DEBUG in words[:1]:
        import traceback

        traceback.print_exc()
        how = "with the lines above"
    else:
        again = shlex.join(["armferry", DEBUG, *words])
        how = (
            f"with what this prints: {again if len(again) < _LONGEST else f'armferry {DEBUG} ...'}"
        )
    print(printable(f"armferry: {unforeseen(error)}; please report it {how}"), file=sys.stderr)
    return UNFORESEEN


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
