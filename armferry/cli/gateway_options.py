"""Options of the two commands that carry live moves, `gateway` and `migrate`."""

import argparse
import contextlib
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from armferry.gateway import GatewayError, Log, connecting_context, listening_context

__all__ = ["Encryption", "add_log", "add_tls", "open_log", "positive_integer", "positive_seconds"]

_LONGEST = 1e6


def add_tls(parser: argparse.ArgumentParser) -> None:
    """TLS on either side, and the permission to do without."""
    group = parser.add_argument_group("encryption", "folders as of QEMU's tls-creds-x509")
    group.add_argument(
        "--tls-listen", metavar="FOLDER", type=Path, help="TLS from the source, ended here"
    )
    group.add_argument(
        "--tls-connect", metavar="FOLDER", type=Path, help="TLS to the destination, begun here"
    )
    group.add_argument(
        "--tls-hostname", metavar="NAME", help="whom the destination's certificate must name"
    )
    group.add_argument(
        "--tls-authorize",
        metavar="NAME",
        action="append",
        help="whom a source's certificate must name: its distinguished name, or its common name; "
        "may be given again (without: any certificate of the authority)",
    )
    group.add_argument(
        "--allow-plain",
        action="store_true",
        help="listen without TLS where other machines can connect",
    )


@dataclass(frozen=True, slots=True)
class Encryption:
    """The contexts of both sides, None for plain text, and the destination's name if given.

    `authorized` names the sources that may connect; None for all whom the authority has certified.
    """

    listening: ssl.SSLContext | None
    connecting: ssl.SSLContext | None
    host: str | None
    authorized: frozenset[str] | None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """As the options say. Raises CredentialError, GatewayError."""
        if arguments.tls_hostname is not None and arguments.tls_connect is None:
            raise GatewayError("--tls-hostname says nothing without --tls-connect FOLDER")
        names = arguments.tls_authorize
        if names is not None and arguments.tls_listen is None:
            raise GatewayError("--tls-authorize says nothing without --tls-listen FOLDER")
        return cls(
            arguments.tls_listen and listening_context(arguments.tls_listen),
            arguments.tls_connect and connecting_context(arguments.tls_connect),
            arguments.tls_hostname,
            None if names is None else frozenset(names),
        )


def add_log(parser: argparse.ArgumentParser) -> None:
    """`--log`."""
    parser.add_argument(
        "--log", metavar="FILE", help="append one JSON line for each event; - for standard error"
    )


@contextlib.contextmanager
def open_log(target: str | None) -> Iterator[Log]:
    """The log that `--log` names. Raises GatewayError."""
    if target is None:
        yield Log()
    elif target == "-":
        yield Log(sys.stderr)
    else:
        try:
            file = Path(target).open("a", encoding="utf-8")  # noqa: SIM115 - closed below
        except OSError as error:
            raise GatewayError(f"{target}: cannot be written: {error.strerror}") from error
        with contextlib.closing(file):
            yield Log(file)


def positive_integer(text: str) -> int:
    """For argparse: a number above zero."""
    number = int(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def positive_seconds(text: str) -> float:
    """For argparse: seconds above zero, fractions allowed."""
    seconds = float(text)
    if not 0 < seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text} is no time above 0 and up to {_LONGEST:g} s")
    return seconds
