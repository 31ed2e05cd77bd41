"""`--trace`: one line for each register that is not simply matched, as the decision meets it.

JSON lines for a program; on a terminal, where only a person reads, text.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from armferry.decide import TraceEvent, trace_line
from armferry.errors import ArmferryError, EnvironmentFault

__all__ = ["add_trace", "tracing"]

STANDARD_ERROR = "-"


def add_trace(parser: argparse.ArgumentParser) -> None:
    """`--trace FILE`."""
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="write one JSON line for each register that is not simply matched; - for standard "
        "error, as text on a terminal",
    )


@contextlib.contextmanager
def tracing(arguments: argparse.Namespace) -> Iterator[Callable[[TraceEvent], None] | None]:
    """What a decision is to call with each event; None when no trace is wanted.

    Raises ArmferryError or EnvironmentFault.
    """
    target = arguments.trace
    if target is None:
        yield None
        return
    if target == STANDARD_ERROR:
        shown = str if sys.stderr.isatty() else trace_line
        yield lambda event: print(shown(event), file=sys.stderr)
        return

    from armferry.cli.overwriting import refuse_losing_guest, refuse_overwriting

    refuse_overwriting(
        target,
        (
            arguments.source,
            getattr(arguments, "target", None),
            arguments.to,
            arguments.source_fingerprint,
            *arguments.policy,
        ),
    )
    refuse_losing_guest(target)
    try:
        file = Path(target).open("w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ArmferryError(f"{target}: cannot be written: {error.strerror}") from error
    try:
        with file:
            yield lambda event: print(trace_line(event), file=file)
    except OSError as error:
        raise EnvironmentFault(f"{target}: cannot be written: {error.strerror}") from error
