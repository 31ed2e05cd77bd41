"""`armferry baseline`: the one register set that guests of every host of a group can be given.

Guests that are started with it move among the hosts on stock rules alone, in every direction.
"""

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from armferry.cli import render
from armferry.cli.options import add_json
from armferry.decide import differences
from armferry.decide.baseline import Baseline, HostPart, make_baseline
from armferry.errors import ArmferryError
from armferry.facts import qemu_release, release_key
from armferry.hosts.files.descriptor import write_all
from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance, dump
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.fingerprints.subject import Subject
from armferry.policy import Origin, OriginKind, Policy, PsciVersion, to_toml
from armferry.registers import Accelerator, name
from armferry.rewriting.copy import written_beside

__all__ = ["add_parsers", "baseline_of"]

SCHEMA_VERSION = 1

_PSCI = 0x6030_0000_0014_0000
_PSCI_PROPERTY_SINCE = (11, 1, 0)
"""The QEMU from which -cpu host has kvm-psci-version."""
_DOCUMENT, _POLICY, _XML = "baseline.json", "baseline.toml", "baseline.xml"


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`baseline HOST... [-o FOLDER]`."""
    parser = commands.add_parser("baseline")
    parser.add_argument(
        "hosts",
        metavar="HOST",
        nargs="+",
        help="a fingerprint of a host, an entry of the atlas, or kvm: for this host",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        type=Path,
        help="where to write baseline.json, baseline.toml (a policy), baseline.xml (for libvirt) "
        "and the arguments for each host",
    )
    add_json(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the baseline; 2 when there is none."""
    subjects = [open_subject(text) for text in arguments.hosts]
    hosts = shlex.join(arguments.hosts)
    return baseline_of(
        subjects, arguments.output, as_json=arguments.json, again=f"armferry baseline {hosts}"
    )


def baseline_of(subjects: list[Subject], output: Path | None, *, as_json: bool, again: str) -> int:
    """Prints the baseline of these hosts, and writes it below `output`; 2 when there is none.

    `again` is the command that makes it, without its output.
    """
    for subject in subjects:
        _require_host(subject)
    baseline = make_baseline([subject.end for subject in subjects])
    place = output or Path()
    if output is not None and baseline.possible:
        _write(output, baseline, subjects)
    if as_json:
        print(json.dumps(_document(baseline, subjects, place), indent=1))
    else:
        _show(baseline, subjects, place, again="" if output is not None else again)
    return 0 if baseline.possible else 2


def _require_host(subject: Subject) -> None:
    if subject.accelerator is not Accelerator.KVM:
        raise ArmferryError(
            f"{subject.text} is of {subject.accelerator.name}: a baseline is made of hosts with "
            "KVM; under TCG the CPU model (-cpu cortex-a57) is the same on every host"
        )


def _document(baseline: Baseline, subjects: list[Subject], place: Path) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "possible": baseline.possible,
        "impossible": [
            {
                "index": None if one.index is None else f"{one.index:#018x}",
                "name": one.subject,
                "why": one.why,
            }
            for one in baseline.impossible
        ],
        "registers": len(baseline.registers),
        "psci_version": _psci(baseline),
        "gic": baseline.gic,
        "notes": list(baseline.notes),
        "hosts": [
            {
                "host": part.text,
                "hidden": [name(index, Accelerator.KVM) for index in part.hidden],
                "changed": [
                    {
                        "name": name(index, Accelerator.KVM),
                        "own_value": f"{own:#x}",
                        "value": f"{value:#x}",
                        "fields": differences(index, own, value),
                    }
                    for index, (own, value) in part.changed.items()
                ],
                "program": _program(part, subject),
                "arguments": _arguments(baseline, part, subject, place),
            }
            for part, subject in zip(baseline.hosts, subjects, strict=True)
        ],
    }


def _show(baseline: Baseline, subjects: list[Subject], place: Path, *, again: str) -> None:
    for part, subject in zip(baseline.hosts, subjects, strict=True):
        render.heading(part.text)
        for line in _deeds(part):
            render.line(f"  {line}")
        if baseline.possible:
            words = [_program(part, subject), "...", *_arguments(baseline, part, subject, place)]
            render.line(f"  {shlex.join(words)}")
    for note in baseline.notes:
        render.prose(f"note: {note}", "warn", indent=0, hang=2)
    render.heading("Baseline")
    if baseline.possible:
        render.line(
            f"{len(baseline.registers)} registers, PSCI {_psci(baseline)}: a guest started with "
            "these arguments can go from each of these hosts to every other",
            "good",
        )
        if again:
            render.next_step(f"{again} -o FOLDER")
        return
    for obstacle in baseline.impossible:
        render.prose(f"impossible, because {obstacle}", "bad", indent=0, hang=2)


def _deeds(part: HostPart) -> Iterator[str]:
    if part.as_it_is:
        yield "as it is"
    if part.hidden:
        yield f"hides {', '.join(name(index, Accelerator.KVM) for index in part.hidden)}"
    for index, (own, value) in part.changed.items():
        what = differences(index, own, value) or f"{own:#x} -> {value:#x}"
        yield f"presents {name(index, Accelerator.KVM)}: {what}"
    if part.vectors_off:
        yield f"turns off vectors of {', '.join(map(str, part.vectors_off))} bits"


def _native(part: HostPart, subject: Subject) -> bool:
    """Whether the host's own QEMU has properties for all of it."""
    if part.hidden or set(part.changed) - {_PSCI}:
        return False
    qemu = subject.fingerprint.provenance.qemu
    return not part.changed or (bool(qemu) and qemu_release(qemu) >= _PSCI_PROPERTY_SINCE)


def _program(part: HostPart, subject: Subject) -> str:
    return "qemu-system-aarch64" if _native(part, subject) else "armferry-qemu"


def _arguments(baseline: Baseline, part: HostPart, subject: Subject, place: Path) -> list[str]:
    """What is added to the guest's command line there."""
    cpu = ["host", *(f"sve{bits}=off" for bits in part.vectors_off)]
    if not baseline.steal_time:
        cpu.append("kvm-steal-time=off")
    if not _native(part, subject):
        cpu.append(f"x-armferry-as={str(place / _DOCUMENT).replace(',', ',,')}")
    elif _PSCI in part.changed:
        cpu.append(f"kvm-psci-version={_psci(baseline)}")
    words = ["-accel", "kvm", "-cpu", ",".join(cpu)]
    if baseline.gic is not None:
        words = ["-machine", f"gic-version={baseline.gic}", *words]
    return words


def _psci(baseline: Baseline) -> str:
    return str(_psci_version(baseline) or "unknown")


def _psci_version(baseline: Baseline) -> PsciVersion | None:
    version = baseline.registers.get(_PSCI)
    return None if version is None else PsciVersion(version >> 16, version & 0xFFFF)


def _write(folder: Path, baseline: Baseline, subjects: list[Subject]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        _DOCUMENT: dump(_fingerprint(baseline, subjects)),
        _POLICY: to_toml(_policy(baseline)),
        _XML: _xml(folder),
    }
    for part, subject in zip(baseline.hosts, subjects, strict=True):
        plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", part.text).strip("-.") or "host"
        words = [_program(part, subject), *_arguments(baseline, part, subject, folder)]
        files[f"{plain}.args"] = shlex.join(words) + "\n"
    for file, text in files.items():
        with written_beside(folder / file) as descriptor:
            write_all(descriptor, text.encode())
        render.line(f"wrote {folder / file}")


def _fingerprint(baseline: Baseline, subjects: list[Subject]) -> Fingerprint:
    """The host that does not exist and that all of them present."""
    abouts = [subject.fingerprint.provenance for subject in subjects]
    kernels = sorted((about.kernel for about in abouts if about.kernel), key=release_key)
    machines = {about.machine for about in abouts}
    return Fingerprint(
        Provenance(
            how="baseline",
            machine=machines.pop() if len(machines) == 1 else "",
            cpu="host",
            accelerator=Accelerator.KVM,
            kernel=kernels[0] if kernels else "",
            more={"of": [subject.text for subject in subjects]},
        ),
        (baseline.registers,),
        at_reset=True,
    )


def _policy(baseline: Baseline) -> Policy:
    """What `armferry check` needs to know of guests that were started with the baseline."""
    hidden = {index for part in baseline.hosts for index in part.hidden}
    origins = (Origin(OriginKind.FILE, _POLICY, "not every host of the baseline has it"),)
    oldest = (Origin(OriginKind.FILE, _POLICY, "what the oldest of the hosts has"),)
    version = _psci_version(baseline)
    return Policy(
        hidden=dict.fromkeys(sorted(hidden), origins),
        psci={} if version is None else {version: oldest},
    )


def _xml(folder: Path) -> str:
    """What is added to a domain; libvirt passes the property on to the emulator."""
    place = str((folder / _DOCUMENT).absolute()).replace(",", ",,")
    return f"""\
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <cpu mode='host-passthrough' check='none'/>
  <devices>
    <emulator>/usr/bin/armferry-qemu</emulator>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-global'/>
    <qemu:arg value='arm-cpu.x-armferry-as={place}'/>
  </qemu:commandline>
</domain>
"""
