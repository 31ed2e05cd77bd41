"""The room's own data files: read once, when first needed."""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["load"]


@cache
def load(name: str) -> dict[str, Any]:
    """A JSON object of this package's data folder, by file name."""
    # Imported here: together they take longer to load than the whole room.
    import json
    from importlib.resources import files

    text = files(__package__).joinpath("data", name).read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
