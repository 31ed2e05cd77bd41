"""Whether a QEMU lives that is nobody's child here.

It holds one end of a pipe without knowing it, from the process that was started on to whatever
processes it becomes; the other end tells.
"""

import select
import socket

__all__ = ["Life", "ready"]


class Life:
    """The life of one QEMU; calling it tells whether it goes on. From any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self) -> bool:
        return not ready(self._descriptor, 0)

    def wait(self) -> None:
        """Until it is over."""
        ready(self._descriptor, None)

    def accept(self, listening: socket.socket) -> socket.socket | None:
        """The next connection, or one that came before the end; None when it is over."""
        poll = select.poll()
        for descriptor in (self._descriptor, listening.fileno()):
            poll.register(descriptor, select.POLLIN)
        poll.poll()
        return listening.accept()[0] if ready(listening.fileno(), 0) else None


def ready(descriptor: int, limit: int | None) -> bool:
    """Whether there is something to read, an end included, within `limit` milliseconds."""
    poll = select.poll()  # one for each call: a poll object serves one thread at a time
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(limit))
