"""`armferry atlas`: the recorded fingerprints that come with armferry."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from armferry.cli import diff, render, words
from armferry.cli.options import add_json
from armferry.cli.render import Cell, Table
from armferry.errors import ArmferryError, EnvironmentFault
from armferry.facts import Condition, condition_of
from armferry.hosts.fingerprints.atlas import (
    Entry,
    Span,
    history,
    pack,
    read_atlas,
)
from armferry.registers import (
    Accelerator,
    Kind,
    describe,
    explain_value,
    kind,
    name,
    parse_register,
)

__all__ = ["add_parsers"]

SCHEMA_VERSION = 1


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`atlas list|show|diff|why|record`."""
    parser = commands.add_parser("atlas")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=type(parser))

    lister = verbs.add_parser("list", help="the entries: kernels by CPU, QEMUs by machine and CPU")
    lister.add_argument(
        "filter",
        nargs="?",
        default="",
        metavar="TEXT",
        help="only entries with a part that begins so: 6.12, neoverse-n1, qemu-10.0",
    )
    add_json(lister)
    lister.set_defaults(func=run_list)

    shower = verbs.add_parser("show", help="where an entry came from and how to make it again")
    shower.add_argument("entry", metavar="ENTRY", help="such as 6.12/neoverse-n1")
    add_json(shower)
    shower.set_defaults(func=run_show)

    differ = verbs.add_parser("diff", help="what each of two entries has alone, values that differ")
    differ.add_argument("a", metavar="A", help="such as 6.12/neoverse-n1")
    differ.add_argument("b", metavar="B", help="such as 6.17/neoverse-n1")
    add_json(differ)
    differ.set_defaults(func=run_diff)

    why = verbs.add_parser("why", help="since which kernel a register is there, and on what it is")
    why.add_argument("register", metavar="REGISTER", help="a name (TCR2_EL1) or an index")
    add_json(why)
    why.set_defaults(func=run_why)

    recorder = verbs.add_parser("record", help="record entries in the lab and pack an atlas")
    recorder.add_argument(
        "--kernels", nargs="+", default=[], metavar="KERNEL", help="series (6.12) or releases"
    )
    recorder.add_argument(
        "--qemus", nargs="+", default=[], metavar="RELEASE", help="releases of lab qemu list"
    )
    recorder.add_argument(
        "--machines", nargs="+", default=[], metavar="M", help="machine types for --qemus"
    )
    recorder.add_argument(
        "--kvm-qemus",
        nargs="+",
        default=[],
        metavar="RELEASE",
        help="releases to record under the KVM of a lab host",
    )
    recorder.add_argument("--cpus", nargs="+", required=True, metavar="CPU", help="CPU models")
    recorder.add_argument(
        "--folder",
        type=Path,
        required=True,
        help="one file for each entry; what is there is not recorded again",
    )
    recorder.add_argument("-o", "--output", type=Path, metavar="FILE", help="pack the folder to it")
    recorder.set_defaults(func=run_record)


def run_list(arguments: argparse.Namespace) -> int:
    """Prints the names."""
    wanted = arguments.filter.removeprefix("atlas:").split("/")
    entries = [
        entry
        for entry in read_atlas().entries
        if all(
            any(p.startswith(w) for p in (*entry.name.split("/"), entry.release)) for w in wanted
        )
    ]
    if not entries:
        raise ArmferryError(f"the atlas has no entry with a part that begins {arguments.filter!r}")
    if arguments.json:
        print(json.dumps({"schema": SCHEMA_VERSION, "entries": [_about(e) for e in entries]}))
        return 0
    render.table(
        Table(
            ("entry", "registers", "made from"),
            [
                (
                    Cell(f"atlas:{entry.name}"),
                    Cell(str(entry.length)),
                    Cell(entry.made["package"]),
                )
                for entry in entries
            ],
        )
    )
    render.next_step(f"armferry check SOURCE --to atlas:{entries[0].name}")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Prints one entry."""
    entry = read_atlas().find(arguments.entry)
    if arguments.json:
        print(json.dumps({**_about(entry), "fingerprint": entry.document}, indent=1))
        return 0
    render.facts(
        [
            ("entry", f"atlas:{entry.name}"),
            ("holds", words.end(entry.fingerprint)),
            ("hardware", entry.fingerprint.provenance.hardware),
            ("registers", str(entry.length)),
            *entry.made.items(),
        ]
    )
    render.next_step(f"armferry inspect atlas:{entry.name}")
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Prints what differs, as `armferry diff` does."""
    arguments.a, arguments.b = (
        f"atlas:{end.removeprefix('atlas:')}" for end in (arguments.a, arguments.b)
    )
    return diff.run(arguments)


def run_why(arguments: argparse.Namespace) -> int:
    """Prints the history of a register."""
    index = parse_register(arguments.register)
    spans = history(index, read_atlas().kernels)
    emulated = history(index, read_atlas().emulated)
    condition = condition_of(index)
    if arguments.json:
        found = _why(index, spans, emulated, condition)
        members = _members(name(index, Accelerator.KVM), spans)
        found["members"] = [f"{one:#018x}" for one in members]
        print(json.dumps(found, indent=1))
        return 0
    register = describe(index, Accelerator.KVM)
    render.line(f"{register.name} ({index:#018x}), {register.kind}", "head")
    members = _members(register.name, spans)
    if members:
        names = ", ".join(name(one, Accelerator.KVM) for one in members)
        render.prose(f"under KVM it comes as {len(members)} registers: {names}", indent=0, hang=2)
        render.next_step(f"armferry atlas why {name(members[0], Accelerator.KVM)}")
        return 0
    _show_history("under KVM: Linux on", "no kernel of the atlas lists it", index, spans)
    if condition is not None:
        render.prose(f"condition: {_condition(condition)}", indent=0, hang=2)
        render.prose(condition.source, "faint")
    _show_history("under TCG: QEMU with", "no QEMU of the atlas lists it", index, emulated)
    change = next((span for span in spans if span.before), None)
    if change is not None:  # what else changed there
        ends = (f"{release}/{change.cpu}" for release in (change.before, change.first))
        render.next_step(f"armferry atlas diff {' '.join(ends)}")
    return 0


def _members(family: str, spans: Sequence[Span]) -> list[int]:
    """What KVM lists in the place of one register that selects others, such as CCSIDR."""
    if any(span.value is not None for span in spans):
        return []
    listed = {index for one in read_atlas().kernels for index in one.fingerprint.cpus[0]}
    return sorted(one for one in listed if name(one, Accelerator.KVM).startswith(f"{family}_"))


def _show_history(where: str, nowhere: str, index: int, spans: Sequence[Span]) -> None:
    """The releases that list a register, CPU models that agree together."""
    if all(span.value is None for span in spans):
        render.line(nowhere)
        return
    listing = {span.cpu for span in spans if span.value is not None}
    for cpus, lines in _grouped(index, [span for span in spans if span.cpu in listing]):
        render.prose(f"{where} {', '.join(cpus)}:", indent=0, hang=4)
        for line in lines:
            render.line(f"  {line}")
    others = list(dict.fromkeys(span.cpu for span in spans if span.cpu not in listing))
    if others:
        render.prose(f"{where} {', '.join(others)}: never", indent=0, hang=4)


def run_record(arguments: argparse.Namespace) -> int:
    """Records what is not in the folder yet, then packs it."""
    from armferry.lab.atlas_record import KvmEntry, LayoutEntry, QemuEntry, record
    from armferry.lab.kernels import KernelStore
    from armferry.lab.qemu_install import resolve

    if arguments.qemus and not arguments.machines:
        raise ArmferryError("--qemus needs --machines: the machine types to record")
    entries: list[KvmEntry | LayoutEntry | QemuEntry] = [
        KvmEntry(kernel, cpu)
        for cpu in arguments.cpus
        for kernel in [KernelStore().get(request).release for request in arguments.kernels]
    ]
    entries += [
        QemuEntry(resolve(release), machine, cpu)
        for release in arguments.qemus
        for machine in arguments.machines
        for cpu in arguments.cpus
    ]
    entries += [
        LayoutEntry(resolve(release), cpu)
        for release in arguments.kvm_qemus
        for cpu in arguments.cpus
    ]
    failed = record(entries, arguments.folder, _progress)
    if arguments.output is not None:
        arguments.output.write_bytes(pack(arguments.folder))
    return EnvironmentFault.exit_code if failed else 0


def _progress(entry: str, fault: str) -> None:
    print(f"{entry}: {fault or 'recorded'}", file=sys.stderr)


def _about(entry: Entry) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "name": entry.name,
        "registers": entry.length,
        "made": dict(entry.made),
    }


def _grouped(index: int, spans: Sequence[Span]) -> Iterator[tuple[list[str], list[str]]]:
    """CPU models whose history reads the same, together."""
    told: dict[str, list[str]] = {}
    for span in spans:
        told.setdefault(span.cpu, []).append(_span(index, span))
    groups: dict[tuple[str, ...], list[str]] = {}
    for cpu, lines in told.items():
        groups.setdefault(tuple(lines), []).append(cpu)
    for lines_of, cpus in groups.items():
        yield cpus, list(lines_of)


def _span(index: int, span: Span) -> str:
    when = span.first if span.first == span.last else f"{span.first} to {span.last}"
    if span.value is None:
        return f"{when}: {'gone' if span.before else 'not there'}"
    if kind(index) is Kind.RUNNING_COUNTER:
        return f"{when}: there, and runs on"
    meaning = explain_value(index, span.value) or words.fields(index, span.value)
    return f"{when}: {span.value:#x}" + (f" ({meaning})" if meaning else "")


def _fields(condition: Condition) -> list[str]:
    return [f"{name(on, Accelerator.KVM)}.{field}" for on, field in condition.fields]


def _condition(condition: Condition) -> str:
    return (
        f"from {condition.since} on it is there only where {' or '.join(_fields(condition))} is"
        f" not 0; {condition.before}"
    )


def _span_document(span: Span) -> dict[str, Any]:
    return {
        "cpu": span.cpu,
        "first": span.first,
        "last": span.last,
        "before": span.before,
        "value": None if span.value is None else f"{span.value:#x}",
    }


def _why(
    index: int, spans: Sequence[Span], emulated: Sequence[Span], condition: Condition | None
) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "index": f"{index:#018x}",
        "name": name(index, Accelerator.KVM),
        "spans": [_span_document(span) for span in spans],
        "tcg_spans": [_span_document(span) for span in emulated],
        "condition": None
        if condition is None
        else {
            "fields": _fields(condition),
            "since": condition.since,
            "before": condition.before,
            "source": condition.source,
        },
    }
