"""`armferry inspect`: what a stream holds."""

import argparse
import json
import os
import shlex
from collections.abc import Mapping
from typing import Any

from armferry.cli import render, words
from armferry.cli.options import add_json
from armferry.cli.render import Cell, Table
from armferry.cli.snapshot_option import add_snapshot, with_snapshot
from armferry.cli.snapshots import print_snapshots, snapshot_words
from armferry.errors import ArmferryError
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.files.saved_file import opened_image
from armferry.hosts.files.state_name import named_state
from armferry.hosts.fingerprints.naming import naming
from armferry.hosts.fingerprints.open_subject import STANDARD_INPUT, open_subject
from armferry.hosts.fingerprints.subject import Subject
from armferry.registers import Kind, decode_fields, describe, kind, parse_register
from armferry.stream import SavedState

__all__ = ["add_parsers"]

SCHEMA_VERSION = 1


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`inspect FILE`."""
    parser = commands.add_parser("inspect")
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a stream, a fingerprint or a qcow2 image with snapshots, - for stdin",
    )
    add_snapshot(parser, "FILE")
    parser.add_argument(
        "--cpu",
        type=int,
        default=0,
        metavar="N",
        help="show the registers of this vCPU (default: 0); --json has all",
    )
    parser.add_argument(
        "--registers", action="store_true", help="list every register with its fields"
    )
    parser.add_argument(
        "--register",
        metavar="NAME|KIND",
        action="append",
        default=[],
        help="list this register, or those of this kind; may be given again",
    )
    add_json(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints what the file holds; of a qcow2 image its snapshots, unless one is meant."""
    text = with_snapshot(arguments.file, arguments.snapshot)
    if text != STANDARD_INPUT and _listed(text, as_json=arguments.json):
        return 0
    subject = open_subject(text)
    count = len(subject.lists)
    if not 0 <= arguments.cpu < count:
        raise ArmferryError(f"{subject.text}: there is no vCPU {arguments.cpu}; it has {count}")
    if arguments.json:
        print(json.dumps(_document(subject), indent=1))
    else:
        _show(subject, arguments.cpu, _wanted(arguments, subject))
    return 0


def _wanted(arguments: argparse.Namespace, subject: Subject) -> Mapping[int, int] | None:
    """The registers to list of the vCPU that is meant, None for a summary of them."""
    registers: Mapping[int, int] = subject.lists[arguments.cpu]
    if arguments.registers:
        return registers
    if not arguments.register:
        return None
    kinds = {kind.value: kind for kind in Kind}
    wanted: dict[int, int] = {}
    for text in arguments.register:
        if text in kinds:
            found = [one for one in registers if kind(one) is kinds[text]]
        else:
            index = parse_register(text, subject.accelerator)
            found = [index] if index in registers else []
        if not found:
            raise ArmferryError(f"{subject.text}: vCPU {arguments.cpu} has no register {text}")
        wanted |= {index: registers[index] for index in found}
    return wanted


def _listed(text: str, *, as_json: bool) -> bool:
    """Whether `text` is a qcow2 image without a name, and not the one state in it: then listed."""
    path, snapshot = named_state(text)
    if snapshot or not os.path.exists(path):
        return False
    with FileWindow(path) as window, naming(text):
        image = opened_image(window)
        if image is None or len(image.states) == 1:
            return False
        print_snapshots(text, image, as_json=as_json)
    return True


def _show(subject: Subject, vcpu: int, wanted: Mapping[int, int] | None) -> None:
    saved = subject.saved
    render.facts(
        [
            ("file", subject.text),
            ("holds", words.end(subject.fingerprint)),
            ("in", _around(subject)),
            ("guest", words.guest(saved) if saved else ""),
            ("memory", _memory(saved) if saved else ""),
            ("bytes", f"{saved.size:,}" if saved else ""),
        ]
    )
    if saved is not None and (wanted is None or len(wanted) == len(subject.lists[vcpu])):
        render.heading("Device state")
        render.table(
            Table(
                ("section", "instance", "version", "bytes", "parts"),
                [
                    (
                        Cell(section.name),
                        Cell(str(section.instance)),
                        Cell(str(section.version)),
                        Cell(str(len(section.payload))),
                        Cell(_parts(section.layout.state.subsections if section.layout else ())),
                    )
                    for section in saved.sections
                ],
            )
        )
    if wanted is None:
        _summarize(subject)
    else:
        _list(subject, vcpu, wanted)
    render.next_step(f"armferry check {shlex.quote(subject.text)} --to DEST")


def _summarize(subject: Subject) -> None:
    """How many registers of each kind there are."""
    counts = [len(registers) for registers in subject.lists]
    alike = len(set(counts)) == 1
    where = f"on each of {len(counts)} vCPUs" if len(counts) > 1 else "on 1 vCPU"
    many = str(counts[0]) if alike else " ".join(map(str, counts))
    render.heading(f"{many} registers {where}")
    kinds: dict[str, list[str]] = {}
    for index in subject.lists[0]:
        register = describe(index, subject.accelerator)
        kinds.setdefault(str(register.kind), []).append(register.name)
    render.table(
        Table(
            ("kind", "registers", "such as"),
            [
                (Cell(name), Cell(f"{len(names):>9}"), Cell(", ".join(names[:3]), "faint"))
                for name, names in sorted(kinds.items(), key=lambda one: -len(one[1]))
            ],
        )
    )
    render.prose("--registers lists them, --register NAME or --register KIND some", indent=0)


def _list(subject: Subject, vcpu: int, registers: Mapping[int, int]) -> None:
    several = "" if len(registers) == 1 else "s"
    render.heading(f"vCPU {vcpu}: {len(registers)} register{several}")
    render.table(
        Table(
            ("register", "index", "kind", "value", "fields"),
            [
                (
                    Cell(describe(index, subject.accelerator).name),
                    Cell(f"{index:#018x}", "faint"),
                    Cell(str(describe(index, subject.accelerator).kind)),
                    Cell(words.value(number)),
                    Cell(words.fields(index, number)),
                )
                for index, number in registers.items()
            ],
            unnamed=("index", "kind"),
        )
    )


def _around(subject: Subject) -> str:
    around = subject.around
    if around is None:
        return ""
    if around.image is not None:
        return words.image(around.image)
    if around.snapshot is not None:
        return snapshot_words(around.snapshot)
    return f"compressed with {around.codec.word}" if around.codec else ""


def _memory(saved: SavedState) -> str:
    total = sum(block.length for block in saved.blocks)
    return f"{total >> 20} MiB in {len(saved.blocks)} blocks"


def _parts(subsections: Any) -> str:
    return " ".join(part.name for part in subsections)


def _document(subject: Subject) -> dict[str, Any]:
    saved, around = subject.saved, subject.around
    about = subject.fingerprint.provenance
    document: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "file": subject.text,
        "machine": subject.machine,
        "accelerator": subject.accelerator.value,
        "qemu": about.qemu,
        "kernel": about.kernel,
        "cpu": about.cpu,
        "at_reset": subject.fingerprint.at_reset,
    }
    if saved is not None:
        document |= {
            "run_state": saved.run_state,
            "bytes": saved.size,
            "image": subject.image.header.compression.word if subject.image else None,
            "compression": around.codec.word if around and around.codec else None,
            "snapshot": around.snapshot.name if around and around.snapshot else None,
            "memory": [{"name": block.name, "bytes": block.length} for block in saved.blocks],
            "sections": [
                {
                    "name": section.name,
                    "instance": section.instance,
                    "version": section.version,
                    "offset": section.offset,
                    "bytes": len(section.payload),
                    "subsections": [part.name for part in section.layout.state.subsections]
                    if section.layout
                    else [],
                }
                for section in saved.sections
            ],
        }
    document["cpus"] = [
        {"registers": [_register(index, number, subject) for index, number in registers.items()]}
        for registers in subject.lists
    ]
    return document


def _register(index: int, number: int, subject: Subject) -> dict[str, Any]:
    register = describe(index, subject.accelerator)
    return {
        "index": f"{index:#018x}",
        "name": register.name,
        "encoding": register.encoding,
        "kind": str(register.kind),
        "value": f"{number:#x}",
        "fields": {field.name: amount for field, amount in decode_fields(index, number)},
    }
