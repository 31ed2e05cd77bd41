"""What can be wrong with a policy that a person wrote.

Every message quotes the offending text, says where it stood and what is accepted instead. All of
them are the user's to correct, hence exit code 3.
"""

from armferry.errors import ArmferryError

__all__ = [
    "DocumentError",
    "MachineError",
    "PolicyError",
    "PropertyError",
    "RuleError",
]


class PolicyError(ArmferryError):
    """Something in a policy cannot be understood."""


class PropertyError(PolicyError):
    """The text of a QEMU property, or of the option that stands for it, cannot be read."""


class RuleError(PolicyError):
    """The text of a tolerance cannot be read."""


class DocumentError(PolicyError):
    """A policy file cannot be read: the message begins with the file and the key or line."""


class MachineError(PolicyError):
    """A versioned machine type whose compat level nobody declared."""
