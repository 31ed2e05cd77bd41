"""What tells one build of a program from the next. Imports nothing but os: libvirt's hook waits."""

import os

__all__ = ["identity"]


def identity(path: str) -> "list[int] | None":
    """What changes when a program is replaced; None when it is not there."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]
