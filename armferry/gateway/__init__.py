"""The live migration gateway: between two unmodified QEMUs, the device state decided on.

`Gateway` carries moves from a `Listener` to a `Dialer`'s destination; a `Judge` decides; each
ends as a `TransferReport`. `Session` is the main channel without any I/O.
"""

from armferry.gateway.address import Address, parse_address
from armferry.gateway.credentials import connecting_context, listening_context
from armferry.gateway.endpoint import Dialer, Listener
from armferry.gateway.errors import (
    AddressError,
    CredentialError,
    GatewayError,
    NetworkFault,
    OversizedState,
    Refused,
)
from armferry.gateway.gateway import Gateway
from armferry.gateway.judge import Judge, Judgement, PolicyFor
from armferry.gateway.limits import Limits
from armferry.gateway.log import Log
from armferry.gateway.report import Ending, TransferReport
from armferry.gateway.session import DEFAULT_STATE_LIMIT, Session
from armferry.gateway.transfer import Transfer

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
    "NetworkFault",
    "OversizedState",
    "PolicyFor",
    "Refused",
    "Session",
    "Transfer",
    "TransferReport",
    "connecting_context",
    "listening_context",
    "parse_address",
]
