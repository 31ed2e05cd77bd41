"""`armferry ferry`: a saved state rewritten so that the destination accepts it."""

import argparse
import contextlib
import json
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from armferry.cli import render
from armferry.cli.judgement import (
    EXIT_CODES,
    Report,
    add_judgement,
    check_ends,
    command,
    document,
    judge_move,
)
from armferry.cli.options import add_json, add_loudness
from armferry.cli.overwriting import refuse_overwriting
from armferry.cli.progress import bytes_bar
from armferry.cli.snapshot_option import with_snapshot
from armferry.cli.trace import add_trace
from armferry.cli.verdict_text import show, show_answer
from armferry.decide import Answer
from armferry.errors import ArmferryError
from armferry.ferry.copy import Mark, copy_with_tail, send_with_tail, written_beside
from armferry.ferry.edits import edit_of
from armferry.ferry.pump import pump
from armferry.ferry.snapshot import rewrite_snapshot
from armferry.hosts.files.in_place import FileInPlace, finish, undo
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.files.qcow2.image import Image
from armferry.hosts.files.qcow2.state import SnapshotState
from armferry.hosts.files.saved_file import (
    Saved,
    head_in,
    named_state,
    opened_image,
    saved_of_snapshot,
)
from armferry.hosts.fingerprints.subject import (
    STANDARD_INPUT,
    naming,
    standard_input,
    state_in,
    stream_subject,
)
from armferry.printable import printable
from armferry.stream import StateEdit, rewrite_tail
from armferry.stream.save_image import SaveImage

__all__ = ["add_parsers"]

STANDARD_OUTPUT = "-"


class _Refused(ArmferryError):
    """The verdict is that it fails: told on standard error where the stream is on stdout."""

    exit_code = EXIT_CODES[Answer.FAILS]


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`ferry IN OUT --to DEST` and `ferry FILE --in-place --to DEST`."""
    parser = commands.add_parser("ferry")
    parser.add_argument(
        "source",
        metavar="IN",
        help="the saved state, - for standard input; IMAGE#NAME for a snapshot",
    )
    parser.add_argument(
        "target", metavar="OUT", nargs="?", help="where to write it, - for standard output"
    )
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="change the end of IN itself, under a journal; a compressed one is written beside and "
        "renamed",
    )
    recovery = parser.add_mutually_exclusive_group()
    recovery.add_argument(
        "--undo", action="store_true", help="put IN back after an interrupted --in-place"
    )
    recovery.add_argument(
        "--finish", action="store_true", help="complete an interrupted --in-place of IN"
    )
    add_judgement(parser, destination_required=False)
    add_loudness(parser)
    add_trace(parser)
    add_json(parser)
    parser.set_defaults(func=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Rewrites; 0 when it was done, whatever policy it took, and 2 when it was refused."""
    if arguments.undo or arguments.finish:
        if arguments.target is not None:
            arguments.usage_error("--undo and --finish take IN only")
        return _recover(arguments)
    if arguments.to is None:
        arguments.usage_error("the following arguments are required: --to")
    if arguments.in_place == (arguments.target is not None):
        arguments.usage_error("give either OUT or --in-place")
    if arguments.in_place and arguments.source == STANDARD_INPUT:
        arguments.usage_error("--in-place needs a file")
    check_ends(arguments)
    if arguments.target not in (None, STANDARD_OUTPUT):
        refuse_overwriting(
            arguments.target, (arguments.to, arguments.source_fingerprint, *arguments.policy)
        )
    if arguments.source == STANDARD_INPUT:
        return _through(arguments, standard_input(), Path(arguments.target))
    return _file(arguments)


def _recover(arguments: argparse.Namespace) -> int:
    path, _ = named_state(with_snapshot(arguments.source, arguments.snapshot))
    if arguments.undo:
        done, result = undo(path), "undone"
        words = "is as it was before the interrupted rewrite"
    else:
        done, result = finish(path), "finished"
        words = "has the rewritten state; the interrupted rewrite is complete"
    if arguments.json:
        settled = result if done else None
        print(json.dumps({"schema": 1, "file": arguments.source, "settled": settled}, indent=1))
    else:
        render.line(f"{path} {words}" if done else f"{path}: no rewrite in place was interrupted")
    return 0


def _file(arguments: argparse.Namespace) -> int:
    path, snapshot = named_state(arguments.source)
    with FileInPlace(path) if arguments.in_place else FileWindow(path) as window:
        with naming(arguments.source):
            image = opened_image(window, change=arguments.in_place)
            if image is not None:
                return _snapshot(arguments, window, image, snapshot)
            head = head_in(window)
        if head.codec is not None:
            # there is nothing in it that could be changed where it lies
            os.lseek(window.fileno(), 0, os.SEEK_SET)
            return _through(arguments, window.fileno(), Path(arguments.target or path))
        saved = state_in(window, snapshot)
        judgement = judge_move(arguments, stream_subject(arguments.source, saved))
        if judgement.verdict.answer is not Answer.FAILS:
            tail, size = rewrite_tail(saved.state, edit_of(judgement.verdict)), saved.state.size
            if isinstance(window, FileInPlace):
                if tail is not None:
                    window.rewrite(tail, size)
            elif arguments.target == STANDARD_OUTPUT:
                out = _standard_output()
                with bytes_bar(f"ferrying {path.name}", size) as bar:
                    send_with_tail(window, out, size, tail, bar)
            else:
                mark = _mark(head.image)
                with bytes_bar(f"ferrying {path.name}", size) as bar:
                    copy_with_tail(window, Path(arguments.target), size, tail, bar, mark=mark)
    return _report(arguments, judgement)


def _snapshot(arguments: argparse.Namespace, window: FileWindow, image: Image, name: str) -> int:
    """The state of a snapshot, in its image or out of it as a plain stream."""
    saved = saved_of_snapshot(image, name)
    assert saved.snapshot is not None
    judgement = judge_move(arguments, stream_subject(arguments.source, saved))
    if judgement.verdict.answer is not Answer.FAILS:
        tail = rewrite_tail(saved.state, edit_of(judgement.verdict))
        if isinstance(window, FileInPlace):
            if tail is not None:
                rewrite_snapshot(window, image, saved.snapshot, tail)
        else:
            state = SnapshotState(image, saved.snapshot)
            with (
                _output(arguments, window) as out,
                bytes_bar(f"ferrying {saved.snapshot.name}", state.size) as bar,
            ):
                send_with_tail(state, out, state.size, tail, bar)
    return _report(arguments, judgement)


@contextlib.contextmanager
def _output(arguments: argparse.Namespace, like: FileWindow) -> Iterator[int]:
    if arguments.target == STANDARD_OUTPUT:
        yield _standard_output()
        return
    with written_beside(Path(arguments.target), like=like.fileno()) as descriptor:
        yield descriptor


def _mark(image: SaveImage | None) -> Mark | None:
    if image is None:
        return None
    return Mark(image.header.encode(complete=False), image.header.encode(complete=True))


def _through(arguments: argparse.Namespace, source: int, target: Path) -> int:
    """A descriptor to a file or to standard output, memory bounded."""
    judgements: list[Report] = []

    def edits(saved: Saved) -> StateEdit:
        judgement = judge_move(arguments, stream_subject(arguments.source, saved))
        judgements.append(judgement)
        if judgement.verdict.answer is Answer.FAILS:
            raise _Refused
        return edit_of(judgement.verdict)

    with (
        contextlib.suppress(_Refused),  # the report says so
        naming(arguments.source),
        _bar_of(arguments.source, source) as step,
    ):
        if arguments.target == STANDARD_OUTPUT:
            pump(source, _standard_output(), edits, step)
        else:
            like = None if arguments.source == STANDARD_INPUT else source
            with written_beside(target, like=like) as descriptor:
                pump(source, descriptor, edits, step)
    return _report(arguments, judgements[0])


@contextlib.contextmanager
def _bar_of(name: str, source: int) -> Iterator[Callable[[], None] | None]:
    """A bar that follows how far `source` has been read, where that is a file."""
    about = os.fstat(source)
    size = about.st_size if stat.S_ISREG(about.st_mode) else 0
    with bytes_bar(f"ferrying {Path(name).name}", size) as bar:
        if bar is None:
            yield None
        else:
            yield lambda: bar(min(os.lseek(source, 0, os.SEEK_CUR), size), size)


def _standard_output() -> int:
    if sys.stdout.isatty():
        raise ArmferryError("standard output is a terminal; redirect it, or name OUT")
    return sys.stdout.fileno()


def _load_of(arguments: argparse.Namespace, judgement: Report, written: str) -> str:
    """How the state is loaded; one with pages at fixed offsets only by its name and when told."""
    saved, around = judgement.source.saved, judgement.source.around
    if around is not None and around.image is not None:
        return f"virsh restore {shlex.quote(written)}"
    if around is not None and around.snapshot is not None and arguments.in_place:
        return f"QEMU ... -loadvm {shlex.quote(around.snapshot.name)}"
    configuration = None if saved is None else saved.configuration
    if configuration is not None and "mapped-ram" in configuration.capabilities:
        return (
            "QEMU ... -incoming defer, then over QMP migrate-set-capabilities mapped-ram and "
            f"migrate-incoming file:{shlex.quote(written)}"
        )
    program = "cat" if around is None or around.codec is None else f"{around.codec.word} -dc"
    return f"QEMU ... -incoming 'exec:{program} {shlex.quote(written)}'"


def _result(arguments: argparse.Namespace, judgement: Report) -> str:
    """What was written, and in what it is."""
    around = judgement.source.around
    words = "rewritten" if judgement.verdict.changed else "unchanged"
    if around is None:
        return words
    if around.image is not None:
        words += f"; a libvirt save image, {around.image.header.compression.word}"
    elif around.codec is not None:
        words += f"; compressed with {around.codec.word}"
    elif around.snapshot is not None:
        words += ", in its image" if arguments.in_place else "; a plain stream"
    beside = arguments.in_place and around.codec is not None
    return f"{words}, written beside and renamed" if beside else words


def _report(arguments: argparse.Namespace, judgement: Report) -> int:
    """Tells on standard output, or on standard error when that carries the stream."""
    answer = judgement.verdict.answer
    written = None if answer is Answer.FAILS else arguments.target or arguments.source
    if arguments.target == STANDARD_OUTPUT:
        text = json.dumps({**document(judgement), "written": written}, indent=1)
        if arguments.json:
            print(printable(text), file=sys.stderr)
        elif answer is Answer.FAILS:
            refused = [o.name for d in judgement.verdict.decisions for o in d.refused]
            raise _Refused(
                f"refused: {', '.join(refused) or judgement.verdict.obstacles[0]}; "
                f"see {command('check', arguments)}"
            )
    elif arguments.json:
        print(json.dumps({**document(judgement), "written": written}, indent=1))
    elif arguments.quiet:
        show_answer(judgement.verdict)
    else:
        show(judgement, verbose=arguments.verbose)
        render.line()
        if written is None:
            render.line("nothing was written")
            render.next_step(command("check", arguments))
        else:
            render.line(f"{written}: {_result(arguments, judgement)}")
            render.next_step(_load_of(arguments, judgement, written))
    return EXIT_CODES[Answer.FAILS] if written is None else 0
