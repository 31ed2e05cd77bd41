"""`-loadvm NAME`: the state in the image made one that this QEMU accepts, before QEMU starts.

QEMU keeps a machine's state in one of its images: of those on the command line, the one with a
snapshot of that name that holds a state. Refuses to know how the decision is made.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from armferry.errors import ArmferryError
from armferry.gateway import Judge
from armferry.hosts.files.in_place import FileInPlace
from armferry.hosts.files.qcow2.format import MAGIC, is_qcow2
from armferry.hosts.files.qcow2.image import NoSuchSnapshot
from armferry.hosts.files.qcow2.locks import ImageInUse
from armferry.hosts.files.saved_file import opened_image, saved_of_snapshot
from armferry.hosts.qmp.options import options_of
from armferry.option_text import keyed
from armferry.rewriting.edits import edit_of
from armferry.rewriting.snapshot import rewrite_snapshot
from armferry.stream import rewrite_tail
from armferry.wrapper.errors import SetUpFault

__all__ = ["carry_snapshot", "images_of"]

_WHOLE_VALUE = ("", "hda", "hdb", "hdc", "hdd", "mtdblock", "pflash", "sd")
"""Options whose value is the name of an image."""
_FILE_KEYS = ("file", "filename", "file.filename")


def carry_snapshot(words: Sequence[str], judge: Callable[[], Judge]) -> Iterator[str]:
    """Rewrites the state that `-loadvm` of the command line `words` names; yields what was done.

    An image that a QEMU has open is left to QEMU, which says so in its own words. Raises
    SetUpFault for a state that must not be loaded here, and what a rewrite in place raises.
    """
    options = options_of(list(words))
    names = [option.value for option in options if option.name == "loadvm" and option.value]
    if not names or any(option.name == "snapshot" for option in options):
        return  # with -snapshot, QEMU loads none
    name = names[-1]
    for path in images_of(words):
        try:
            yield from _carry(path, name, judge)
        except (NoSuchSnapshot, ImageInUse):
            continue
        except ArmferryError as fault:
            raise SetUpFault(f"-loadvm {name}: {path}: {fault}") from fault


def images_of(words: Sequence[str]) -> list[Path]:
    """The qcow2 images that a command line names, in order, each once."""
    found: dict[Path, None] = {}
    for option in options_of(list(words)):
        value = option.value or ""
        names: list[str] = []
        if option.name in _WHOLE_VALUE:
            names = [value]
        elif option.name == "drive":
            names = [text for key, text in keyed(value) if key in _FILE_KEYS]
        elif option.name == "blockdev":
            names = list(_file_names(_node(value)))
        found |= {Path(name): None for name in names if _is_image(name)}
    return list(found)


def _carry(path: Path, name: str, judge: Callable[[], Judge]) -> Iterator[str]:
    with FileInPlace(path) as file:
        image = opened_image(file, change=True)
        assert image is not None
        saved = saved_of_snapshot(image, name)
        assert saved.snapshot is not None
        judgement = judge()(saved.state.machine, saved.state.sections)
        if not judgement.accepted:
            raise SetUpFault(f"this QEMU cannot be given the state: {judgement.reason}")
        tail = rewrite_tail(saved.state, edit_of(judgement.verdict))
        if tail is None:
            return
        rewrite_snapshot(file, image, saved.snapshot, tail)
    verdict = judgement.verdict
    changed = sorted({event.outcome.name for event in verdict.events})
    yield (
        f"-loadvm {name}: the state in {path} was rewritten for this QEMU, risk {verdict.risk}: "
        f"{', '.join(changed) or 'the CPU section'}"
    )


def _node(value: str) -> Any:
    """A block node, as JSON or as options."""
    if not value.startswith("{"):
        return dict(keyed(value))
    try:
        return json.loads(value)
    except ValueError:
        return {}  # QEMU says what is wrong with it


def _file_names(node: Any) -> Iterator[str]:
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            for key, value in one.items():
                if key in _FILE_KEYS and isinstance(value, str):
                    yield value
                pending.append(value)


def _is_image(name: str) -> bool:
    try:
        with open(name.removeprefix("file:"), "rb") as file:
            return is_qcow2(file.read(len(MAGIC)))
    except (OSError, ValueError):
        return False
