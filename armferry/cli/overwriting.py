"""An output never replaces what the same command reads: a guest is not lost to a wrong word."""

import os
from collections.abc import Iterable
from pathlib import Path

from armferry.errors import ArmferryError

__all__ = ["refuse_overwriting"]


def refuse_overwriting(output: str, inputs: Iterable[str | Path | None]) -> None:
    """Raises ArmferryError when the file `output` is one of `inputs`, by whatever name."""
    place = os.path.realpath(output)
    for name in inputs:
        if name is not None and os.path.realpath(name) == place:
            raise ArmferryError(
                f"{output}: this command uses that file for something else; name another one"
            )
