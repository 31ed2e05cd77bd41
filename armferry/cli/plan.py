"""`armferry plan`: the smallest policy that makes a move work, each entry with its reason."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from armferry.cli import render
from armferry.cli.judgement import (
    EXIT_CODES,
    add_judgement,
    command,
    open_source,
    source_host,
)
from armferry.cli.options import add_json, policy_of
from armferry.cli.overwriting import refuse_losing_guest, refuse_overwriting
from armferry.decide import (
    Plan,
    make_plan,
    plan_compat,
    plan_globals,
    plan_prose,
    plan_starts,
    verdict_document,
)
from armferry.ends import End, Move
from armferry.hosts.files.descriptor import write_all
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.fingerprints.subject import Subject
from armferry.policy import Policy, to_toml
from armferry.rewriting.copy import written_beside

__all__ = ["add_parsers"]


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`plan SOURCE --to DEST`."""
    parser = commands.add_parser("plan")
    parser.add_argument("source", metavar="SOURCE", help="a stream or a fingerprint")
    parser.add_argument(
        "-o", "--output", metavar="POLICY", help="write the policy file; - for standard output only"
    )
    parser.add_argument(
        "--both-ways", action="store_true", help="a policy for the way back as well"
    )
    add_judgement(parser)
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="list every permission, those too that one cause explains",
    )
    add_json(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the plan; the exit code is that of the verdict under it."""
    if arguments.output is not None:
        refuse_overwriting(
            arguments.output, (arguments.source, arguments.to, arguments.source_fingerprint)
        )
        refuse_losing_guest(arguments.output)
    source = open_source(arguments)
    destination = open_subject(arguments.to)
    host = source_host(arguments)
    there = _plan(arguments, source, destination, host, arguments.destination_qemu)
    back = _plan(arguments, destination, source, None, "") if arguments.both_ways else None
    plans = [there] if back is None else [there, back]
    policy = Policy()
    for plan in plans:
        policy = policy.union(plan.policy)
    if arguments.output == "-":
        sys.stdout.write(to_toml(policy))
    elif arguments.output is not None:
        with written_beside(Path(arguments.output)) as descriptor:
            write_all(descriptor, to_toml(policy).encode())
    if arguments.json and arguments.output != "-":
        document = _document(there, arguments.source, arguments.to)
        if back is not None:
            document["back"] = _document(back, arguments.to, arguments.source)
        print(json.dumps({**document, "policy": to_toml(policy)}, indent=1))
    elif arguments.output != "-":
        _show(there, arguments.source, arguments.to, verbose=arguments.verbose)
        if back is not None:
            render.line()
            _show(back, arguments.to, arguments.source, verbose=arguments.verbose)
        _next(arguments, there)
    return max(EXIT_CODES[plan.verdict.answer] for plan in plans)


def _plan(
    arguments: argparse.Namespace,
    source: Subject,
    destination: Subject,
    host: End | None,
    qemu: str,
) -> Plan:
    machine = source.machine or destination.machine
    policy = policy_of(arguments, machine, destination.accelerator)
    return make_plan(Move.between(source.end, destination.end, host=host, qemu=qemu), policy)


def _document(plan: Plan, source: str, destination: str) -> dict[str, Any]:
    return {
        **verdict_document(plan.verdict),
        "source": source,
        "destination": destination,
        "entries": [
            {
                "index": None if entry.index is None else f"{entry.index:#018x}",
                "name": entry.name,
                "action": entry.action,
                "risk": str(entry.risk),
                "reason": entry.reason,
            }
            for entry in plan.entries
        ],
        "globals": list(plan_globals(plan)),
        "compat": plan_compat(plan),
        "prose": plan_prose(plan, source, destination, verbose=True),
    }


def _show(plan: Plan, source: str, destination: str, *, verbose: bool) -> None:
    for line in plan_prose(plan, source, destination, verbose=verbose).splitlines():
        indent = len(line) - len(line.lstrip())
        render.prose(line.lstrip(), indent=indent, hang=2 if indent else 6)
    for note in plan.verdict.policy_notes:
        render.prose(f"note: {note}", "warn", indent=0, hang=2)
    if not plan.works or not plan.entries:
        return
    for place, lines in plan_starts(plan).items():
        render.heading(f"armferry-qemu on {place}")
        for line in lines:
            render.line(line)
    if compat := plan_compat(plan):
        render.heading("For a machine type's compat properties")
        render.line(compat)


def _next(arguments: argparse.Namespace, plan: Plan) -> None:
    if not plan.works:
        return
    if plan.entries and arguments.output is None:
        render.next_step(f"{command('plan', arguments)} -o POLICY")
    elif plan.entries:
        render.next_step(
            f"{command('ferry', arguments, target='OUT')} --policy {shlex.quote(arguments.output)}"
        )
    else:
        render.next_step(command("ferry", arguments, target="OUT"))
