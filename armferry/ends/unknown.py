"""What is not known, as a value of its own: it is never taken for none, nothing or empty."""

import enum
from typing import Final

__all__ = ["UNKNOWN", "NotKnown"]


class NotKnown(enum.Enum):
    """The type of `UNKNOWN`, its only member; false, and the word `unknown` as text."""

    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return self.value


UNKNOWN: Final = NotKnown.UNKNOWN
"""Nobody recorded it. A test for it is `is UNKNOWN`, which type checkers follow."""
