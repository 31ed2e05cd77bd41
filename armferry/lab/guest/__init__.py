"""A bare-metal arm64 guest that notices when a move loses something, and the reader of its log.

The guest is assembly (`guest.s`, `guest.ld`), built by `build()`; what it prints is described
there and read by `GuestLog`.
"""

from armferry.lab.guest.build import build
from armferry.lab.guest.log import GuestLog, Loss, Tick

__all__ = ["GuestLog", "Loss", "Tick", "build"]
