"""What can be wrong with a stream, and where.

`StreamError` is always the peer's fault: the bytes are not what QEMU writes. A misuse of this
room by its caller is an ordinary ValueError and never reaches a user.
"""

from armferry.errors import ArmferryError

__all__ = [
    "CorruptStream",
    "NotAStream",
    "OversizedStream",
    "StreamError",
    "TruncatedStream",
    "UnsupportedStream",
]


class StreamError(ArmferryError):
    """A stream that cannot be understood.

    `offset` is in bytes from the start of the stream; `section` is a section's name and
    `instance` its instance id, where the fault lies inside one.
    """

    def __init__(
        self,
        problem: str,
        *,
        offset: int,
        section: str | None = None,
        instance: int | None = None,
        advice: str | None = None,
    ) -> None:
        self.problem = problem
        self.offset = offset
        self.section = section
        self.instance = instance
        self.advice = advice
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"at byte {self.offset}"
        if self.section is not None:
            where += f", section '{self.section}'"
            if self.instance is not None:
                where += f" instance {self.instance}"
        text = f"{self.problem} ({where})"
        return f"{text}; {self.advice}" if self.advice else text


class NotAStream(StreamError):
    """The bytes do not begin like a QEMU migration stream at all."""


class TruncatedStream(StreamError):
    """The stream ends before it is complete."""


class CorruptStream(StreamError):
    """The bytes contradict the format or each other."""


class OversizedStream(StreamError):
    """A length is beyond what any real machine writes; nothing was allocated for it."""


class UnsupportedStream(StreamError):
    """A well-formed stream that uses something armferry does not carry, named in the message."""
