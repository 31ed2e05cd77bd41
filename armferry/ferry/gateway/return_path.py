"""What the destination answers on the return path, watched as it passes.

Each message is a be16 type, a be16 length and a payload (QEMU's docs/devel/migration/main.rst,
"Return path"). Only the last word is of interest: SHUT, a be32 that is 0 when the destination
has loaded everything. What does not look like messages is passed on all the same, unwatched.
"""

import struct

__all__ = ["ReturnPath"]

_HEAD = struct.Struct(">HH")
_SHUT = 1
_RECV_BITMAP = 5
_LAST_TYPE = 7
_MAX_LENGTH = 512


class ReturnPath:
    """Watches the bytes from the destination to the source."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._blind = False
        self.result: int | None = None
        """The destination's last word: 0 loaded, anything else failed, None not said yet."""

    def watch(self, data: bytes | memoryview) -> None:
        """Takes notice of `data`, in order; never raises."""
        if self._blind:
            return
        self._held += data
        while len(self._held) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._held)
            # a RECV_BITMAP is followed by a bitmap that its length does not count
            if not 0 < kind <= _LAST_TYPE or length > _MAX_LENGTH or kind == _RECV_BITMAP:
                self._blind = True
                self._held.clear()
                return
            if len(self._held) < _HEAD.size + length:
                return
            if kind == _SHUT and length == 4:
                self.result = int.from_bytes(self._held[4:8], "big")
            del self._held[: _HEAD.size + length]
