"""Device state held by all moves of a process, counted together.

Each move pays for what it holds before it holds more; one that the budget cannot take fails by
name and the others go on. Also knows whose turn it is to take a state apart, which needs several
times its size for as long as that lasts.
"""

import threading

from armferry.gateway.errors import OversizedState

__all__ = ["DEFAULT_STATE_TOTAL", "Budget", "Share"]

DEFAULT_STATE_TOTAL = 64 << 20
"""Bytes of device state that all moves of a process hold at most."""


class Budget:
    """`total` bytes of device state. Used from any thread."""

    def __init__(self, total: int = DEFAULT_STATE_TOTAL) -> None:
        self.total = total
        self.turn = threading.Lock()
        """Held while a state is taken apart or decided on: one at a time in a process."""
        self._lock = threading.Lock()
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes that all shares hold now."""
        return self._held

    def share(self) -> "Share":
        """What one move may hold, nothing yet."""
        return Share(self)

    def _change(self, count: int) -> None:
        with self._lock:
            if count > 0 and self._held + count > self.total:
                raise OversizedState(
                    f"all moves together would hold more than {self.total} bytes of device state; "
                    "try again when another one has ended, or raise --state-total"
                )
            self._held += count


class Share:
    """One move's part of a budget; used by one thread at a time."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    def hold(self, count: int) -> None:
        """Holds `count` bytes at least. Raises OversizedState."""
        if count > self._held:
            self._budget._change(count - self._held)
            self._held = count

    def give_back(self) -> None:
        """Holds nothing any more."""
        self._budget._change(-self._held)
        self._held = 0
