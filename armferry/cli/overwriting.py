"""An output never replaces what the same command reads: a guest is not lost to a wrong word."""

import os
from collections.abc import Iterable
from pathlib import Path

from armferry.errors import ArmferryError
from armferry.hosts.files.compression import MAGIC_BYTES, codec_of
from armferry.hosts.files.qcow2.format import MAGIC, is_qcow2
from armferry.hosts.files.state_name import named_state
from armferry.stream.save_image import IMAGE_MAGIC_BYTES, is_save_image
from armferry.stream.wire import MAGIC as STREAM_MAGIC

__all__ = ["refuse_losing_guest", "refuse_overwriting"]


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


def refuse_losing_guest(output: str) -> None:
    """Raises ArmferryError when `output`, which a document is to be written to, holds a guest."""
    begin = _begin(Path(output))
    if begin.startswith(STREAM_MAGIC) or is_save_image(begin) or codec_of(begin) is not None:
        what = "a saved guest" if codec_of(begin) is None else "something compressed"
        raise ArmferryError(f"{output}: holds {what}, which would be lost; name another file")


def _is_image(path: Path) -> bool:
    return is_qcow2(_begin(path))


def _begin(path: Path) -> bytes:
    try:
        if not path.is_file() and not path.is_block_device():
            return b""  # a pipe, which has nothing to lose, would be waited for
        with open(path, "rb") as file:
            return file.read(max(len(MAGIC), IMAGE_MAGIC_BYTES, MAGIC_BYTES))
    except OSError:
        return b""
