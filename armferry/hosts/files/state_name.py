"""How a person names a saved state: a file, and the snapshot in it where that is a disk image."""

import os
from pathlib import Path

__all__ = ["named_state"]


def named_state(text: str) -> tuple[Path, str]:
    """The file that `text` names and the snapshot in it: `disk.qcow2#NAME`.

    Empty for none. A file whose own name has a # goes first: of several that are there, the one
    with the longest name.
    """
    at = -1 if os.path.exists(text) else text.rfind("#")
    while at > 0:
        if os.path.exists(text[:at]):
            return Path(text[:at]), text[at + 1 :]
        at = text.rfind("#", 0, at)
    return Path(text), ""
