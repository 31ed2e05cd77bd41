"""Where the lab keeps what is slow to make: installed QEMUs, built guests, downloaded kernels.

Nothing in the cache is precious; all of it can be made again. The place follows the XDG base
directory specification unless `ARMFERRY_CACHE` names another one.
"""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(*parts: str) -> Path:
    """The cache, or the folder `parts` below it, created when it is not there.

    In order: `$ARMFERRY_CACHE`, `$XDG_CACHE_HOME/armferry`, `~/.cache/armferry`. A relative
    `XDG_CACHE_HOME` is ignored, as the specification asks.
    """
    folder = _root().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _root() -> Path:
    own = os.environ.get("ARMFERRY_CACHE")
    if own:
        return Path(own).absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):
        return Path(shared) / "armferry"
    return Path.home() / ".cache" / "armferry"
