"""What happened, one JSON object a line, for a log that programs read.

A log that cannot be written, on a disk that is full, never ends a move. A line is written at once
and by one thread at a time, so that no two of them are ever torn.
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
        self.line(json.dumps({"time": now, "event": event, **facts}, default=str))

    def line(self, text: str) -> None:
        """One line as it is."""
        if self._stream is None:
            return
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(text + "\n")
            self._stream.flush()
