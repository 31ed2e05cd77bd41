"""What a move can cost the guest, in rising order."""

import enum

__all__ = ["Risk"]


class Risk(enum.IntEnum):
    """What a move costs the guest, in rising order.

    NONE: nothing changes. LOSSLESS: every register reads as before, or was never written.
    GUEST_VISIBLE: what the host or the firmware says of itself changes under a running guest.
    LOSSY: a value that the guest wrote is gone. BREAKS: an instruction, a register or a behaviour
    that the guest may be using is gone.
    """

    NONE = 0
    LOSSLESS = 1
    GUEST_VISIBLE = 2
    LOSSY = 3
    BREAKS = 4

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")
