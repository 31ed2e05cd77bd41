"""What can be wrong with a wrapped QEMU's command line or surroundings."""

from armferry.errors import ArmferryError, EnvironmentFault

__all__ = ["ArgumentFault", "SetUpFault", "UriFault"]


class ArgumentFault(ArmferryError):
    """An argument that cannot be honoured; worded as QEMU words its own."""


class UriFault(ArmferryError):
    """A migration address that cannot go through a gateway."""


class SetUpFault(EnvironmentFault):
    """The QEMU underneath, or something that the wrapper needs on this host, is missing."""
