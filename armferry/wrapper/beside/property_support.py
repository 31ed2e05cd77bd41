"""Which of armferry's properties the QEMU underneath has by itself: asked, never guessed.

A QEMU without a machine is started for it, which takes about 0.1 s; the answer is kept in the
cache for as long as the binary stays what it is. Only asked when a property is on the command
line. QMP: docs/interop/qmp-spec and qom-list-properties in qapi/qom.json.
"""

import contextlib
import hashlib
import json
from pathlib import Path

from armferry.cache import cache_folder
from armferry.hosts.files.atomic import write_whole
from armferry.hosts.program_identity import identity
from armferry.hosts.qmp.process import BARE, QemuProcess, RefusedByQemu
from armferry.wrapper.commandline.properties import NAMES

__all__ = ["binary_identity", "cached", "known_properties", "remember"]

_FOLDER = "wrapper"


def known_properties(program: Path, model: str, accelerator: str) -> frozenset[str]:
    """Those of the properties that `program`'s CPU `model` has under `accelerator`.

    An empty `model` is that of the machine's own choice; `max` then answers for it. Raises
    QemuProcessError when QEMU does not answer.
    """
    kind = f"{model or 'max'}-arm-cpu"
    key = f"{binary_identity(program)} {kind} {accelerator}"
    kept = cached("properties", key)
    if kept is None:
        kept = json.dumps(sorted(_ask(program, kind, accelerator)))
        remember("properties", key, kept)
    return frozenset(json.loads(kept))


def binary_identity(program: Path) -> str:
    """A QEMU that was updated, or another one at the end of the same links, is another one."""
    real = program.resolve()
    return f"{real} {identity(str(real))}"


def cached(what: str, key: str) -> str | None:
    """What was remembered under `key`; None when nothing was, or not all of it is there."""
    try:
        digest, _, text = _path(what, key).read_bytes().partition(b"\n")
    except OSError:
        return None
    return text.decode() if digest == _digest(text) else None


def remember(what: str, key: str, text: str) -> None:
    """Keeps `text` under `key`; a cache that cannot be written costs time, nothing else."""
    with contextlib.suppress(OSError):
        write_whole(_path(what, key), _digest(text.encode()).decode() + "\n" + text)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()


def _path(what: str, key: str) -> Path:
    return cache_folder(_FOLDER) / f"{what}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _ask(program: Path, kind: str, accelerator: str) -> frozenset[str]:
    words = ["-machine", "none", "-accel", accelerator, *BARE]
    with QemuProcess(program, words, paused=True) as qemu:
        try:
            listed = qemu.execute("qom-list-properties", {"typename": kind})
        except RefusedByQemu:
            return frozenset()  # a CPU that this QEMU does not have: it says so itself when started
    return frozenset(NAMES) & {entry["name"] for entry in listed}
