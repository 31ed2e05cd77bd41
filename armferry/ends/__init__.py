"""One side of a move, and the move between two: values only.

Knows what can be said of the guest that moves and of the place it moves to; refuses to know where
that was read (`hosts`) and what follows from it (`decide`). `guest` makes a side of the sections of
a stream, and is loaded for streams alone.
"""

from armferry.ends.end import End, HostFacts
from armferry.ends.move import Move
from armferry.ends.reset_knowledge import GuestHadRun, ResetKnowledge
from armferry.ends.unknown import UNKNOWN, NotKnown
from armferry.ends.vcpu import Destination, SourceFacts

__all__ = [
    "UNKNOWN",
    "Destination",
    "End",
    "GuestHadRun",
    "HostFacts",
    "Move",
    "NotKnown",
    "ResetKnowledge",
    "SourceFacts",
]
