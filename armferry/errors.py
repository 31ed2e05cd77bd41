"""The root of every error armferry raises on purpose.

A command ends with the `exit_code` of the error that stopped it; the message says what is
wrong, where, and what to do next. Rooms derive their own trees from these two.
"""

__all__ = ["ArmferryError", "EnvironmentFault"]


class ArmferryError(Exception):
    """Something the user gave is wrong: what, where, and what to do next are in the message."""

    exit_code: int = 3


class EnvironmentFault(ArmferryError):
    """The machine armferry runs on lacks something or fails: exit code 4."""

    exit_code: int = 4
