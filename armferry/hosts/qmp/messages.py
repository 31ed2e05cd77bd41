"""QMP's bytes cut into messages, in either direction.

Bytes in, pieces out; joined, the pieces are the bytes that came. Knows JSON's outer shape only:
where a value ends (brackets outside of strings, both of the quotes that QEMU's parser takes), for
messages need not be separated by anything. A byte that cannot stand in JSON (0xFF) resets QEMU's
parser and so resets this one. Format: docs/interop/qmp-spec.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Piece", "Splitter", "read_message"]

_MARK = re.compile(rb"[\"'\[\]{}\\\xff]")
_LIMIT = 64 << 20  # QEMU's own limit for one value


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to pass on. `whole` says that they are one whole JSON object."""

    data: bytes
    whole: bool


class Splitter:
    """Cuts one direction of a monitor. What is between messages is passed on unchanged."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._depth = 0
        self._quote = 0
        self._escaped = False

    def feed(self, data: bytes) -> list[Piece]:
        """The pieces that `data` completes, in order."""
        pieces: list[Piece] = []
        begin = at = 0
        if self._escaped and data:
            self._escaped = False
            at = 1
        while mark := _MARK.search(data, at):
            byte, at = data[mark.start()], mark.end()
            if byte == 0xFF:
                self._depth = self._quote = 0
                pieces.append(Piece(self._whole(data[begin:at]), False))
                begin = at
            elif self._quote:
                if byte == self._quote:
                    self._quote = 0
                elif byte == 0x5C:
                    self._escaped = at == len(data)
                    at += 1
            elif byte in b"\"'":
                # a string outside of any object is an error that QEMU reports: never held
                self._quote = byte if self._depth else 0
            elif byte in b"{[":
                if not self._depth and mark.start() > begin:
                    pieces.append(Piece(data[begin : mark.start()], False))
                    begin = mark.start()
                self._depth += 1
            elif byte in b"}]" and self._depth:
                self._depth -= 1
                if not self._depth:
                    whole = self._whole(data[begin:at])
                    pieces.append(Piece(whole, whole.startswith(b"{")))
                    begin = at
        self._keep(data[begin:], pieces)
        return pieces

    def close(self) -> bytes:
        """What was held of a message that never ended."""
        return self._whole(b"")

    def _whole(self, end: bytes) -> bytes:
        whole = bytes(self._held) + end
        self._held.clear()
        return whole

    def _keep(self, rest: bytes, pieces: list[Piece]) -> None:
        if not self._depth:
            if rest:
                pieces.append(Piece(rest, False))
            return
        self._held += rest
        if len(self._held) > _LIMIT:
            pieces.append(Piece(self._whole(b""), False))


def read_message(data: bytes) -> Mapping[str, Any] | None:
    """The object in `data`, strings in single quotes too, as QEMU takes them; else None."""
    for text in (data, data.replace(b"'", b'"')):
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):  # a thousand brackets deep is nothing of QMP's
            continue
        return message if isinstance(message, dict) else None
    return None
