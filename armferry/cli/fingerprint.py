"""`armferry fingerprint`: what a host would accept, as a document.

Each kind imports what it needs when it runs: a host that only asks its kernel has to load neither
the stream nor the decision.
"""

import argparse
import contextlib
import json
import math
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from armferry.cli.progress import working
from armferry.cli.qemu_program import QEMU_HELP, qemu_program
from armferry.cli.snapshot_option import add_snapshot, with_snapshot
from armferry.errors import ArmferryError
from armferry.hosts.fingerprints.fingerprint import Fingerprint, dump

if TYPE_CHECKING:
    from armferry.hosts.libvirt.native import DomainCommand

__all__ = ["add_parsers"]

_WRAPPER = "armferry-qemu"


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fingerprint qemu|kvm|stream`."""
    parser = commands.add_parser("fingerprint")
    kinds = parser.add_subparsers(metavar="KIND", required=True, parser_class=type(parser))

    qemu = kinds.add_parser("qemu", help="probe a QEMU on this host")
    qemu.add_argument("--machine", help="the guest's machine type: virt-10.0")
    qemu.add_argument("--cpu", help="the guest's CPU: host, cortex-a57, max")
    qemu.add_argument(
        "--accel", choices=("tcg", "kvm", "hvf"), default="tcg", help="accelerator (default: tcg)"
    )
    qemu.add_argument("--smp", type=int, default=1, help="number of vCPUs (default: 1)")
    qemu.add_argument("--memory", type=int, default=64, help="MiB of memory (default: 64)")
    qemu.add_argument("--qemu", metavar="QEMU", help=QEMU_HELP)
    qemu.add_argument(
        "--time-limit", type=_seconds, default=60.0, metavar="S", help="seconds (default: 60)"
    )
    qemu.add_argument(
        "--extra", action="append", default=[], metavar="WORD", help="one more word for QEMU"
    )
    guest = qemu.add_argument_group(
        "one guest",
        "with its own memory, vCPUs and devices; nothing of the host is opened or taken",
    )
    guest.add_argument(
        "words", metavar="-- QEMU-ARGUMENTS", nargs="*", help="the guest's own command line"
    )
    guest.add_argument("--from-domain", metavar="XML", type=Path, help="that of a libvirt domain")
    guest.add_argument(
        "--from-qmp", metavar="unix:PATH", help="that of the QEMU with this QMP socket, which runs"
    )
    _add_output(qemu)
    qemu.set_defaults(func=run_qemu, usage_error=qemu.error)

    kvm = kinds.add_parser("kvm", help="ask this host's /dev/kvm directly")
    kvm.add_argument(
        "--nested", action="store_true", help="of vCPUs with EL2, for guests that are hosts"
    )
    _add_output(kvm)
    kvm.set_defaults(func=run_kvm)

    stream = kinds.add_parser("stream", help="from a stream recorded on that host")
    stream.add_argument(
        "file", metavar="FILE", help="the stream, or a list of registers; - for standard input"
    )
    stream.add_argument(
        "--masks-from",
        metavar="ATLAS-ENTRY",
        help="which fields that kernel lets be set, for a list that does not say: 6.1/neoverse-n1",
    )
    add_snapshot(stream, "FILE")
    _add_output(stream)
    stream.set_defaults(func=run_stream)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="where to write it (default: standard output)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="with -o, say what was written as JSON; a fingerprint itself always is",
    )


def run_qemu(arguments: argparse.Namespace) -> int:
    """Probes a QEMU."""
    ways = [bool(arguments.words), bool(arguments.from_domain), bool(arguments.from_qmp)]
    kind = bool(arguments.machine or arguments.cpu)
    if sum(ways) + kind != 1:
        arguments.usage_error(
            "give --machine and --cpu, or the guest's command line after --, or --from-domain, or "
            "--from-qmp"
        )
    if any(ways):
        return _run_guest(arguments)
    if not (arguments.machine and arguments.cpu):
        arguments.usage_error("--machine and --cpu go together")
    from armferry.hosts.fingerprints.probe import fingerprint_of_qemu
    from armferry.hosts.qmp.process import MachineSpec

    spec = MachineSpec(
        machine=arguments.machine,
        cpu=arguments.cpu,
        accel=arguments.accel,
        smp=arguments.smp,
        memory=arguments.memory,
        extra=tuple(arguments.extra),
    )
    program = qemu_program(arguments.qemu)
    with working(f"asking {program.name}"):
        found = fingerprint_of_qemu(program, spec, time_limit=arguments.time_limit)
    return _write(found, arguments)


def _run_guest(arguments: argparse.Namespace) -> int:
    """Probes a QEMU with a guest's own command line."""
    from armferry.hosts.fingerprints.from_command import fingerprint_of_command
    from armferry.wrapper.commandline.properties import strip_properties

    words: tuple[str, ...] = tuple(arguments.words)
    program = arguments.qemu
    if arguments.from_domain is not None:
        from armferry.hosts.libvirt.native import domain_command

        domain = domain_command(arguments.from_domain)
        program = program or domain.facts.emulator
        if domain.words is None:
            return _run_domain(arguments, domain, program)
        words = domain.words
    elif arguments.from_qmp is not None:
        from armferry.hosts.qmp.command_of import running_command

        running = running_command(arguments.from_qmp)
        program, words = program or str(running.program), running.words
    elif not words[0].startswith("-"):
        first = words[0]
        program = program or (None if first.endswith(_WRAPPER) else first)
        words = words[1:]
    plain = tuple(strip_properties(words))
    found = qemu_program(program)
    with working(f"asking {found.name}"):
        made = fingerprint_of_command(found, plain, time_limit=arguments.time_limit)
    if made.left_out:
        print(
            f"armferry: left out, for they are pieces of the host: {'; '.join(made.left_out)}",
            file=sys.stderr,
        )
    return _write(made.fingerprint, arguments)


def _run_domain(arguments: argparse.Namespace, domain: "DomainCommand", program: str) -> int:
    """Without libvirt, the kind of guest that a domain is."""
    from armferry.hosts.fingerprints.probe import fingerprint_of_qemu
    from armferry.hosts.qmp.process import MachineSpec

    facts = domain.facts
    if not facts.cpu:
        raise ArmferryError(f"{arguments.from_domain}: the XML does not say which CPU it has")
    print(
        f"armferry: {domain.why}, so the domain's devices are not in the fingerprint",
        file=sys.stderr,
    )
    spec = MachineSpec(
        machine=facts.machine,
        cpu=facts.cpu,
        accel=facts.accelerator,
        smp=domain.vcpus,
        memory=domain.memory,
    )
    path = qemu_program(program)
    with working(f"asking {path.name}"):
        found = fingerprint_of_qemu(path, spec, time_limit=arguments.time_limit)
    return _write(found, arguments)


def run_kvm(arguments: argparse.Namespace) -> int:
    """Asks /dev/kvm."""
    from armferry.hosts.fingerprints.from_kvm import fingerprint_of_kvm
    from armferry.hosts.fingerprints.kvm import ask

    return _write(fingerprint_of_kvm(ask(nested=arguments.nested)), arguments)


def run_stream(arguments: argparse.Namespace) -> int:
    """Takes the fingerprint out of a stream."""
    from armferry.cli.overwriting import refuse_overwriting
    from armferry.hosts.fingerprints.open_subject import open_subject

    if arguments.output is not None:
        refuse_overwriting(arguments.output, (arguments.file,))
    text = with_snapshot(arguments.file, arguments.snapshot)
    found = open_subject(text).fingerprint
    if arguments.masks_from is not None:
        found = _with_masks(found, arguments.masks_from.removeprefix("atlas:"))
    return _write(found, arguments)


def _with_masks(found: Fingerprint, entry: str) -> Fingerprint:
    """The same with the settable fields of a kernel that the atlas knows."""
    from armferry.hosts.fingerprints.atlas import read_atlas
    from armferry.registers import Accelerator

    known = read_atlas().find(entry).fingerprint
    if found.accelerator is not Accelerator.KVM or known.accelerator is not Accelerator.KVM:
        raise ArmferryError("--masks-from: only lists of KVM have fields that a kernel lets be set")
    if known.writable is None:
        raise ArmferryError(
            f"--masks-from: {entry} is of a kernel that does not say which fields may be set; "
            "6.12 and newer do"
        )
    return replace(found, writable=known.writable)


def _write(fingerprint: Fingerprint, arguments: argparse.Namespace) -> int:
    text = dump(fingerprint)
    output: str | None = arguments.output
    if output is None or output == "-":
        sys.stdout.write(text)
        return 0
    from armferry.cli import render, words
    from armferry.cli.overwriting import refuse_losing_guest
    from armferry.hosts.files.descriptor import write_all
    from armferry.rewriting.copy import written_beside

    refuse_losing_guest(output)
    with written_beside(Path(output)) as descriptor:
        write_all(descriptor, text.encode())
    if arguments.json:
        print(json.dumps(_document(fingerprint, output), indent=1))
    else:
        render.line(f"{output}: {words.end(fingerprint)}, {len(fingerprint.cpus[0])} registers")
        render.next_step(f"armferry check SOURCE --to {shlex.quote(output)}")
    return 0


def _document(fingerprint: Fingerprint, output: str) -> dict[str, Any]:
    about = fingerprint.provenance
    return {
        "schema": 1,
        "written": output,
        "machine": about.machine,
        "accelerator": fingerprint.accelerator.value,
        "qemu": about.qemu,
        "kernel": about.kernel,
        "cpu": about.cpu,
        "vcpus": len(fingerprint.cpus),
        "registers": len(fingerprint.cpus[0]),
    }
