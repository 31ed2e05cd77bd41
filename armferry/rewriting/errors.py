"""What can go wrong while a stream is rewritten."""

from armferry.errors import ArmferryError, EnvironmentFault

__all__ = ["FerryError", "WriteFault"]


class FerryError(ArmferryError):
    """A rewrite that was not done; the message says why, and the files are as they were."""


class WriteFault(FerryError, EnvironmentFault):
    """The disk is full, the reader of a pipe has gone: writing stopped on the way."""

    exit_code = EnvironmentFault.exit_code
