"""The room's own data files: read once, when first needed."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

__all__ = ["load"]


@cache
def load(name: str) -> dict[str, Any]:
    """A JSON object of this package's data folder, by file name."""
    import json  # here: it takes longer to load than the whole room

    path = os.path.join(os.path.dirname(__file__), "data", name)
    with open(path, encoding="utf-8") as file:
        loaded: dict[str, Any] = json.load(file)
    return loaded
