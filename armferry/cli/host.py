"""`armferry host`: what this host has, and its fingerprints kept where the hook finds them."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from armferry.cli import render
from armferry.cli.options import add_json
from armferry.cli.progress import working
from armferry.cli.qemu_program import QEMU_HELP, qemu_program
from armferry.errors import EnvironmentFault
from armferry.hosts.libvirt.hook import STATE_FOLDER
from armferry.hosts.libvirt.host_check import Grade, HostFinding, check_host
from armferry.hosts.libvirt.state_folder import REPORT, GuestKind

if TYPE_CHECKING:
    from armferry.hosts.libvirt.refresh import Refreshed

__all__ = ["add_parsers"]

SCHEMA_VERSION = 1

_MARKS = {Grade.GOOD: "PASS", Grade.WARNING: "WARN", Grade.MISSING: "FAIL"}
_ROLES = {Grade.GOOD: "good", Grade.WARNING: "warn", Grade.MISSING: "bad"}


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`host check|fingerprint|report`."""
    parser = commands.add_parser("host", help="what this host has, and its stored fingerprints")
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=type(parser))

    checker = actions.add_parser("check", help="say what is there and what is missing")
    _add_state(checker)
    add_json(checker)
    checker.set_defaults(func=run_check)

    maker = actions.add_parser(
        "fingerprint", help="store this host's fingerprints for its domains, stale ones anew"
    )
    _add_state(maker)
    maker.add_argument("--machine", help="a machine type beside those of the domains: virt-10.0")
    maker.add_argument("--cpu", help="the CPU that goes with --machine: host, cortex-a57")
    maker.add_argument(
        "--accel", choices=("tcg", "kvm"), default="kvm", help="for --machine (default: kvm)"
    )
    maker.add_argument("--qemu", metavar="QEMU", help=QEMU_HELP)
    add_json(maker)
    maker.set_defaults(func=run_fingerprint, usage_error=maker.error)

    reporter = actions.add_parser(
        "report", help="tell a fleet of this host, its fingerprints and its guests"
    )
    _add_state(reporter)
    reporter.add_argument("--site", default="", help="where it stands: a name")
    reporter.add_argument(
        "--failure-domain", default="", help="what fails together with it: a rack, a feed"
    )
    reporter.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where to write it, - for standard output (default: FOLDER/host/report.json)",
    )
    reporter.set_defaults(func=run_report)


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        metavar="FOLDER",
        type=Path,
        default=Path(STATE_FOLDER),
        help=f"where it is kept (default: {STATE_FOLDER})",
    )


def run_check(arguments: argparse.Namespace) -> int:
    """Prints the findings; 4 when something is missing that every move needs."""
    # brings a QMP client along, which a plain host may not have
    from armferry.boundary.host_finding import boundary_findings

    findings = (*check_host(arguments.state), *boundary_findings())
    if arguments.json:
        document = {"schema": SCHEMA_VERSION, "findings": [_finding(one) for one in findings]}
        print(json.dumps(document, indent=1))
    else:
        _show_findings(findings)
    missing = any(one.grade is Grade.MISSING for one in findings)
    return EnvironmentFault.exit_code if missing else 0


def _show_findings(findings: Sequence[HostFinding]) -> None:
    """One line each, as virt-host-validate does, then what that means and what to type next."""
    width = max(len(one.what) for one in findings)
    for one in findings:
        hang = len(_MARKS[one.grade]) + width + 4
        marked = f"{_MARKS[one.grade]}  {one.what:<{width}}  {one.found}"
        render.prose(marked, _ROLES[one.grade], indent=0, hang=hang)
        if one.hint:
            render.prose(f"-> {one.hint}", indent=hang, hang=3)
    render.line()
    missing = [one.what for one in findings if one.grade is Grade.MISSING]
    if missing:
        render.prose(f"No guest can move here yet; missing: {', '.join(missing)}.", "bad", indent=0)
    elif any(one.grade is Grade.WARNING for one in findings):
        render.prose("Guests can move here; see what WARN says.", "warn", indent=0)
    else:
        render.prose("Guests can move here.", "good", indent=0)
    hint = next((one.hint for one in findings if one.hint.startswith("armferry ")), "")
    if hint:
        render.next_step(hint.partition(",")[0])


def _finding(one: HostFinding) -> dict[str, str]:
    return {"what": one.what, "state": one.grade.value, "found": one.found, "hint": one.hint}


def run_fingerprint(arguments: argparse.Namespace) -> int:
    """Brings the stored fingerprints and the hook's table up to date."""
    if (arguments.machine is None) != (arguments.cpu is None):
        arguments.usage_error("--machine and --cpu go together")
    # what starts a QEMU is imported when one is started
    from armferry.hosts.libvirt.refresh import refresh

    extra = []
    if arguments.machine is not None:
        qemu = str(qemu_program(arguments.qemu))
        extra.append(GuestKind(arguments.machine, arguments.cpu, arguments.accel, qemu))
    with working("fingerprinting"):
        done = refresh(arguments.state, extra, lambda: str(qemu_program(arguments.qemu)))
    if arguments.json:
        document = {
            "schema": SCHEMA_VERSION,
            "stored": [
                {
                    "kind": str(one.kind),
                    "file": one.file,
                    "new": one.kind in done.new,
                    "kernel": one.kernel,
                }
                for one in done.stored
            ],
            "failed": [{"kind": str(kind), "why": why} for kind, why in done.faults.items()],
            "unreadable": [
                {"file": str(path), "why": why} for path, why in done.unreadable.items()
            ],
        }
        print(json.dumps(document, indent=1))
    else:
        _show(arguments.state, done)
    return EnvironmentFault.exit_code if done.faults or done.unreadable else 0


def run_report(arguments: argparse.Namespace) -> int:
    """Writes the report."""
    from armferry.hosts.files.atomic import write_whole
    from armferry.hosts.libvirt.collect import collect_report
    from armferry.hosts.report import dump_report

    report = collect_report(
        arguments.state, site=arguments.site, failure_domain=arguments.failure_domain
    )
    text = dump_report(report)
    if arguments.output == "-":
        print(text, end="")
        return 0
    place = Path(arguments.output or arguments.state / "host" / REPORT)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, text)
    render.line(f"wrote {place}: kinds of guests {len(report.kinds)}, guests {len(report.guests)}")
    if not report.kinds:
        render.next_step("armferry host fingerprint")
    return 0


def _show(state: Path, done: "Refreshed") -> None:
    for one in done.stored:
        new = ", new" if one.kind in done.new else ""
        render.line(f"{one.kind}: {len(one.fingerprint.cpus[0])} registers{new}")
    for kind, why in done.faults.items():
        render.prose(f"{kind}: not fingerprinted: {why}", "bad", indent=0, hang=2)
    for path, why in done.unreadable.items():
        render.prose(f"{path}: not read: {why}", "bad", indent=0, hang=2)
    if done.stored:
        render.next_step(f"on every other host, copy {state}/host to {state}/hosts/THIS-HOST")
    elif not done.faults:
        render.line("no domain on this host; name a kind of guest with --machine and --cpu")
