"""How long to wait for what an emulated machine does, on a computer that has other work too."""

import os

__all__ = ["patient"]

_QUIET = 2.0


def patient(seconds: float) -> float:
    """A limit of `seconds` on a quiet computer, longer in the measure that this one is busy.

    Twice the time always, for work that begins while it waits.
    """
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    return seconds * max(_QUIET, 2 * busy)
