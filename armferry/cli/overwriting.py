"""An output never replaces what the same command reads: a guest is not lost to a wrong word."""

import os
from collections.abc import Iterable
from pathlib import Path

from armferry.errors import ArmferryError
from armferry.hosts.files.qcow2.format import MAGIC, is_qcow2
from armferry.hosts.files.saved_file import named_state

__all__ = ["refuse_overwriting"]


def refuse_overwriting(output: str, inputs: Iterable[str | Path | None]) -> None:
    """Raises ArmferryError when `output` is one of `inputs`, by whatever name, or a disk image."""
    path, snapshot = named_state(output)
    if snapshot or _is_image(path):
        raise ArmferryError(
            f"{output}: a disk image: nothing is written over it. Give --in-place to change the "
            "state in one, or another name for a file"
        )
    place = os.path.realpath(output)
    for name in inputs:
        if name is not None and os.path.realpath(named_state(str(name))[0]) == place:
            raise ArmferryError(
                f"{output}: this command uses that file for something else; name another one"
            )


def _is_image(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return is_qcow2(file.read(len(MAGIC)))
    except OSError:
        return False
