"""`armferry ferry`: a saved state rewritten so that the destination accepts it."""

import argparse
import json
import os
import shlex
import sys
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
from armferry.hosts.files.in_place import finish, undo
from armferry.hosts.files.saved_file import Saved
from armferry.hosts.files.state_name import named_state
from armferry.hosts.fingerprints.open_subject import STANDARD_INPUT, standard_input
from armferry.hosts.fingerprints.saved_subject import stream_subject
from armferry.printable import printable
from armferry.rewriting.blocks import without_blocks
from armferry.rewriting.edits import edit_of
from armferry.rewriting.saved import ferry_file, ferry_through
from armferry.stream import StateEdit

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
    parser.add_argument(
        "--leave-out",
        metavar="BLOCK",
        action="append",
        default=[],
        help="leave a block of guest memory out, such as mach-virt.tag, that the guest never "
        "touched; may be given again",
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
    if arguments.leave_out and (arguments.in_place or arguments.source == STANDARD_INPUT):
        arguments.usage_error("--leave-out goes from a file IN to OUT")
    if arguments.target not in (None, STANDARD_OUTPUT):
        _refuse_same_file(arguments.source, arguments.target)
        refuse_overwriting(
            arguments.target, (arguments.to, arguments.source_fingerprint, *arguments.policy)
        )
    return _rewrite(arguments)


def _refuse_same_file(source: str, target: str) -> None:
    if source != STANDARD_INPUT and os.path.realpath(source) == os.path.realpath(target):
        raise ArmferryError(
            f"{target}: IN and OUT are the same file; use --in-place, which keeps a journal"
        )


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


def _rewrite(arguments: argparse.Namespace) -> int:
    """Reads, decides and writes; what is refused is not written."""
    judgements: list[Report] = []

    def decide(saved: Saved) -> StateEdit | None:
        judgement = judge_move(arguments, stream_subject(arguments.source, saved))
        judgements.append(judgement)
        fails = judgement.verdict.answer is Answer.FAILS
        return None if fails else edit_of(judgement.verdict)

    target = _target(arguments)
    if arguments.source == STANDARD_INPUT:
        assert target is not None
        ferry_through(STANDARD_INPUT, standard_input(), target, decide, bytes_bar)
    elif arguments.leave_out:
        folder = target.parent if isinstance(target, Path) else None
        path, names = Path(arguments.source), frozenset(arguments.leave_out)
        with without_blocks(path, names, folder) as stripped:
            ferry_file(str(stripped), target, decide, bytes_bar)
    else:
        ferry_file(arguments.source, target, decide, bytes_bar)
    return _report(arguments, judgements[0])


def _target(arguments: argparse.Namespace) -> Path | int | None:
    if arguments.target == STANDARD_OUTPUT:
        return _standard_output()
    return None if arguments.target is None else Path(arguments.target)


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
    return f"QEMU ... -incoming {shlex.quote(f'exec:{program} {shlex.quote(written)}')}"


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
        done = {"written": written, "left_out": sorted(arguments.leave_out)}
        text = json.dumps({**document(judgement), **done}, indent=1)
        if arguments.json:
            print(printable(text), file=sys.stderr)
        elif answer is Answer.FAILS:
            refused = [o.name for d in judgement.verdict.decisions for o in d.refused]
            raise _Refused(
                f"refused: {', '.join(refused) or judgement.verdict.obstacles[0]}; "
                f"see {command('check', arguments)}"
            )
    elif arguments.json:
        done = {"written": written, "left_out": sorted(arguments.leave_out)}
        print(json.dumps({**document(judgement), **done}, indent=1))
    elif arguments.quiet:
        show_answer(judgement.verdict)
    else:
        show(judgement, verbose=arguments.verbose)
        render.line()
        if written is None:
            render.line("nothing was written")
            render.next_step(command("check", arguments))
        else:
            for name in arguments.leave_out:
                render.line(f"left out: memory block {name}, every page of which is zero")
            render.line(f"{written}: {_result(arguments, judgement)}")
            render.next_step(_load_of(arguments, judgement, written))
    return EXIT_CODES[Answer.FAILS] if written is None else 0
