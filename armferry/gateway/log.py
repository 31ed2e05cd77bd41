"""What happened, one JSON object a line, for a log that programs read.

A log that cannot be written, on a disk that is full, never ends a move.
"""

import contextlib
import datetime
import json
import threading
from typing import TextIO

__all__ = ["Log"]


class Log:
    """Writes events to `stream`; to nobody when there is none. Used from any thread."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, event: str, **facts: object) -> None:
        """One line: `time` (UTC, ISO 8601), `event`, and the facts."""
        if self._stream is None:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, **facts}, default=str)
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()
