"""What can go wrong with a gateway, named for what the operator must do.

`GatewayError` is a bad address, option or credential; `NetworkFault` is a machine or network
that does not do its part; `Refused` is the decision itself. Faults of the stream's bytes are
`armferry.stream.StreamError`.
"""

from armferry.errors import ArmferryError, EnvironmentFault

__all__ = [
    "AddressError",
    "CredentialError",
    "GatewayError",
    "NetworkFault",
    "OversizedState",
    "Refused",
]


class GatewayError(ArmferryError):
    """An option of the gateway that cannot be honoured; the message says what to give instead."""


class AddressError(GatewayError):
    """Not an address, or one that may not be used this way."""


class CredentialError(GatewayError):
    """TLS credentials that are missing, unreadable or unusable."""


class NetworkFault(EnvironmentFault):
    """A connection that could not be made, or one that failed."""


class OversizedState(ArmferryError):
    """The device state is longer than the gateway may hold."""


class Refused(ArmferryError):
    """The decision refuses the move; the message names every register that stands in the way."""

    exit_code = 2
