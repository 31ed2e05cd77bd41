"""QEMU's own locks on an image, so that neither touches it while the other does.

For every permission that a QEMU uses it holds a shared lock on one byte from 100 on, and for
every one that it lets nobody else have, on one byte from 200 on. They belong to the open file and
end with it. Source: QEMU's block/file-posix.c, the same from 2.10 to 11.1 [measured: a running
guest, qemu-img]. QEMU takes none where the system knows no such locks, as on macOS; nor does this.
"""

import enum
import errno
import fcntl
import os
import struct

from armferry.errors import ArmferryError

__all__ = ["ImageInUse", "lock_image"]

_HELD = 100
_NOT_SHARED = 200
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_FLOCK = struct.Struct("@hhqqi0q")  # l_type, l_whence, l_start, l_len, l_pid, padding


class ImageInUse(ArmferryError):
    """An image that a QEMU, or one of its tools, has open."""


class _Permission(enum.IntEnum):
    CONSISTENT_READ = 0
    WRITE = 1
    WRITE_UNCHANGED = 2
    RESIZE = 3


_CHANGES = (_Permission.WRITE, _Permission.RESIZE)


def lock_image(descriptor: int, name: str, *, change: bool) -> None:
    """Locks the image open as `descriptor` as QEMU would, to read or to change it.

    Held until the descriptor is closed. Raises ImageInUse, with `name` in it.
    """
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return
    held = (_Permission.CONSISTENT_READ, *(_CHANGES if change else ()))
    refused = tuple(_Permission) if change else _CHANGES
    try:
        for byte in (*(_HELD + one for one in held), *(_NOT_SHARED + one for one in refused)):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_RDLCK, byte))
        for byte in (*(_NOT_SHARED + one for one in held), *(_HELD + one for one in refused)):
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, byte))
            if _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK:
                raise ImageInUse(
                    f"{name}: in use by a QEMU; shut the guest down, or wait until the program "
                    "that has the image open has ended"
                )
    except OSError as error:
        # where nothing can be locked, QEMU locks nothing either; to change needs more than that
        if error.errno not in _NO_LOCKS or change:
            raise ImageInUse(f"{name}: cannot be locked as QEMU would: {error.strerror}") from error


def _flock(kind: int, byte: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)
