"""What the destination answers on the return path, watched as it passes.

Each message is a be16 type, a be16 length and a payload (QEMU's docs/devel/migration/main.rst,
"Return path"). Only the last word is of interest: SHUT, a be32 that is 0 when the destination
has loaded everything. A RECV_BITMAP, of a postcopy move that is recovered, is followed by what its
length does not count: a be64, so many bytes of a bitmap, and a be64 that marks its end. What does
not look like messages is passed on all the same, unwatched.
"""

import struct

from armferry.stream.wire import BE64

__all__ = ["ReturnPath"]

_HEAD = struct.Struct(">HH")
_SHUT = 1
_RECV_BITMAP = 5
_LAST_TYPE = 7
_MAX_LENGTH = 512
_MAX_BITMAP = 1 << 40  # bytes, a bit for each page
_END_MARK = 8


class ReturnPath:
    """Watches the bytes from the destination to the source."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._skip = 0
        self._blind = False
        self.result: int | None = None
        """The destination's last word: 0 loaded, anything else failed, None not said yet."""

    def watch(self, data: bytes | memoryview) -> None:
        """Takes notice of `data`, in order; never raises."""
        if self._blind:
            return
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._held += data[skipped:]
        while self._message():
            pass

    def _message(self) -> bool:
        """Whether a whole message was taken from what is held."""
        if len(self._held) < _HEAD.size:
            return False
        kind, length = _HEAD.unpack_from(self._held)
        if not 0 < kind <= _LAST_TYPE or length > _MAX_LENGTH:
            return self._look_away()
        end = _HEAD.size + length
        bitmap = 0
        if kind == _RECV_BITMAP:
            end += BE64.size
            if len(self._held) >= end:
                (size,) = BE64.unpack_from(self._held, end - BE64.size)
                if size > _MAX_BITMAP:
                    return self._look_away()
                bitmap = size + _END_MARK
        if len(self._held) < end:
            return False
        if kind == _SHUT and length == 4:
            self.result = int.from_bytes(self._held[4:8], "big")
        self._skip = max(0, end + bitmap - len(self._held))
        del self._held[: end + bitmap]
        return True

    def _look_away(self) -> bool:
        self._blind = True
        self._held.clear()
        return False
