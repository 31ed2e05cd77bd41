"""The library preloaded into QEMU under KVM, the table that it obeys, and what it reports.

`boundary.c` is the library. This room writes its table (`rules`, `table`), decides one for a guest
that is born as on another host (`birth`), hands both to a QEMU that is about to start (`preload`),
and reads its reports (`events`). Everything meant for the other rooms is named here.
"""

from .birth import Birth, Obstacle, birth
from .essential import essential
from .events import Event, EventKind, events_of, lines_of
from .preload import BoundaryFault, Preload, library, why_not
from .rules import ALL_BITS, Action, Rule, carry, hide, pin, take
from .table import Table, TableError

__all__ = [
    "ALL_BITS",
    "Action",
    "Birth",
    "BoundaryFault",
    "Event",
    "EventKind",
    "Obstacle",
    "Preload",
    "Rule",
    "Table",
    "TableError",
    "birth",
    "carry",
    "essential",
    "events_of",
    "hide",
    "library",
    "lines_of",
    "pin",
    "take",
    "why_not",
]
