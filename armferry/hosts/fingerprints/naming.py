"""Faults of a stream with the name of the file that it is in."""

import contextlib
from collections.abc import Iterator

from armferry.errors import ArmferryError
from armferry.hosts.files.qcow2.image import NoSuchSnapshot
from armferry.stream import StreamError

__all__ = ["BadStream", "naming"]


class BadStream(ArmferryError):
    """A stream that cannot be understood, and the name of the file it is in."""


@contextlib.contextmanager
def naming(text: str) -> Iterator[None]:
    """Gives every fault of a stream that the block reads the name of its file."""
    try:
        yield
    except (StreamError, NoSuchSnapshot) as fault:
        raise BadStream(f"{text}: {fault}") from fault
