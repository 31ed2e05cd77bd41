"""The root of every error armferry raises on purpose.

A command ends with the `exit_code` of the error that stopped it; the message says what is
wrong, where, and what to do next. Rooms derive their own trees from these two. Any other exception
is a fault of armferry itself: `unforeseen` words it, and the exit code is `UNFORESEEN`.
"""

__all__ = ["UNFORESEEN", "ArmferryError", "EnvironmentFault", "unforeseen"]

UNFORESEEN = 5
"""The exit code for an error that armferry did not expect."""
_LONGEST_SHOWN = 200


class ArmferryError(Exception):
    """Something the user gave is wrong: what, where, and what to do next are in the message."""

    exit_code: int = 3


class EnvironmentFault(ArmferryError):
    """The machine armferry runs on lacks something or fails: exit code 4."""

    exit_code: int = 4


def unforeseen(error: BaseException) -> str:
    """An error that armferry did not expect, in one line of bounded length."""
    words = " ".join(str(error).split())
    if len(words) > _LONGEST_SHOWN:
        words = f"{words[:_LONGEST_SHOWN]}..."
    kind = type(error).__name__
    return f"unforeseen: {kind}: {words}" if words else f"unforeseen: {kind}"
