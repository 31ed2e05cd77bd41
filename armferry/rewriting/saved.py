"""A saved state in a file rewritten: beside it, to a descriptor, or where it lies.

Knows what each way of storing a state needs: QEMU's own stream, a libvirt save image, a compressed
one, a snapshot in a qcow2 image. Refuses to know what may differ: it asks, once, with the state.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from armferry.hosts.files.in_place import FileInPlace
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.files.qcow2.image import Image
from armferry.hosts.files.qcow2.state import SnapshotState
from armferry.hosts.files.saved_file import Saved, head_in, opened_image, saved_of_snapshot
from armferry.hosts.files.state_name import named_state
from armferry.hosts.fingerprints.naming import naming
from armferry.hosts.fingerprints.open_subject import STANDARD_INPUT
from armferry.hosts.fingerprints.saved_subject import state_in
from armferry.rewriting.copy import Mark, copy_with_tail, send_with_tail, written_beside
from armferry.rewriting.pump import pump
from armferry.rewriting.snapshot import rewrite_snapshot
from armferry.stream import StateEdit, rewrite_tail
from armferry.stream.save_image import SaveImage

__all__ = ["Bar", "Decide", "ferry_file", "ferry_through"]

Decide = Callable[[Saved], StateEdit | None]
"""What becomes of a state; None refuses it, and nothing is written then."""

Bar = Callable[[str, int], AbstractContextManager[Callable[[int, int], None] | None]]
"""From what is done and how many bytes there are to a function of bytes done and in all."""


def _no_bar(what: str, total: int) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


class _Refused(Exception):
    """Nothing is to be written; never leaves this module."""


def ferry_file(name: str, target: Path | int | None, decide: Decide, bar: Bar = _no_bar) -> None:
    """Rewrites the state in `name`, a file or IMAGE#SNAPSHOT, as `decide` says.

    `target` is a file, which appears when it is whole, a descriptor, or None for the place where
    the state lies. Raises ArmferryError for what cannot be read or written.
    """
    path, snapshot = named_state(name)
    with FileWindow(path) if target is not None else FileInPlace(path) as window:
        with naming(name):
            image = opened_image(window, change=target is None)
            if image is not None:
                _snapshot(window, image, snapshot, target, decide, bar)
                return
            head = head_in(window)
        if head.codec is not None:
            # there is nothing in it that could be changed where it lies
            os.lseek(window.fileno(), 0, os.SEEK_SET)
            ferry_through(name, window.fileno(), path if target is None else target, decide, bar)
            return
        saved = state_in(window, snapshot)
        edit = decide(saved)
        if edit is None:
            return
        tail, size = rewrite_tail(saved.state, edit), saved.state.size
        if isinstance(window, FileInPlace):
            if tail is not None:
                window.rewrite(tail, size)
            return
        with bar(f"ferrying {path.name}", size) as step:
            if isinstance(target, int):
                send_with_tail(window, target, size, tail, step)
            elif target is not None:
                copy_with_tail(window, target, size, tail, step, mark=_mark(head.image))


def ferry_through(
    name: str, source: int, target: Path | int, decide: Decide, bar: Bar = _no_bar
) -> None:
    """The same for a state that can only be read from its begin, memory bounded.

    `source` is a descriptor, of a file or a pipe, and `name` what it is called.
    """

    def edits(saved: Saved) -> StateEdit:
        edit = decide(saved)
        if edit is None:
            raise _Refused
        return edit

    with contextlib.suppress(_Refused), naming(name), _reading(name, source, bar) as step:
        if isinstance(target, int):
            pump(source, target, edits, step)
        else:
            like = None if name == STANDARD_INPUT else source
            with written_beside(target, like=like) as descriptor:
                pump(source, descriptor, edits, step)


def _snapshot(
    window: FileWindow | FileInPlace,
    image: Image,
    name: str,
    target: Path | int | None,
    decide: Decide,
    bar: Bar,
) -> None:
    """The state of a snapshot, in its image or out of it as a plain stream."""
    saved = saved_of_snapshot(image, name)
    assert saved.snapshot is not None
    edit = decide(saved)
    if edit is None:
        return
    tail = rewrite_tail(saved.state, edit)
    if isinstance(window, FileInPlace):
        if tail is not None:
            rewrite_snapshot(window, image, saved.snapshot, tail)
        return
    assert target is not None
    state = SnapshotState(image, saved.snapshot)
    with (
        _descriptor(target, window) as out,
        bar(f"ferrying {saved.snapshot.name}", state.size) as step,
    ):
        send_with_tail(state, out, state.size, tail, step)


@contextlib.contextmanager
def _descriptor(target: Path | int, like: FileWindow) -> Iterator[int]:
    if isinstance(target, int):
        yield target
        return
    with written_beside(target, like=like.fileno()) as descriptor:
        yield descriptor


def _mark(image: SaveImage | None) -> Mark | None:
    if image is None:
        return None
    return Mark(image.header.encode(complete=False), image.header.encode(complete=True))


@contextlib.contextmanager
def _reading(name: str, source: int, bar: Bar) -> Iterator[Callable[[], None] | None]:
    """A bar that follows how far `source` has been read, where that is a file."""
    about = os.fstat(source)
    size = about.st_size if stat.S_ISREG(about.st_mode) else 0
    with bar(f"ferrying {Path(name).name}", size) as step:
        if step is None:
            yield None
        else:
            yield lambda: step(min(os.lseek(source, 0, os.SEEK_CUR), size), size)
