"""The live migration gateway: between two unmodified QEMUs, the device state decided on.

`Gateway` carries moves from a `Listener` to a `Dialer`'s destination; a `Judge` decides; each
ends as an `Outcome`. `Session` is the main channel without any I/O.
"""

from armferry.ferry.gateway.address import Address, parse_address
from armferry.ferry.gateway.credentials import connecting_context, listening_context
from armferry.ferry.gateway.endpoint import Dialer, Listener
from armferry.ferry.gateway.errors import (
    AddressError,
    CredentialError,
    GatewayError,
    NetworkFault,
    OversizedState,
    Refused,
)
from armferry.ferry.gateway.gateway import Gateway
from armferry.ferry.gateway.judge import Judge, Judgement, PolicyFor
from armferry.ferry.gateway.log import Log
from armferry.ferry.gateway.move import Limits, Move
from armferry.ferry.gateway.outcome import Ending, Outcome
from armferry.ferry.gateway.session import DEFAULT_STATE_LIMIT, Session

__all__ = [
    "DEFAULT_STATE_LIMIT",
    "Address",
    "AddressError",
    "CredentialError",
    "Dialer",
    "Ending",
    "Gateway",
    "GatewayError",
    "Judge",
    "Judgement",
    "Limits",
    "Listener",
    "Log",
    "Move",
    "NetworkFault",
    "Outcome",
    "OversizedState",
    "PolicyFor",
    "Refused",
    "Session",
    "connecting_context",
    "listening_context",
    "parse_address",
]
