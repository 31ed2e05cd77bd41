"""`armferry hook`: libvirt's hook put in its place, taken away, tried."""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from armferry.cli import render
from armferry.errors import ArmferryError
from armferry.hosts.libvirt.hook import Decision, decide
from armferry.hosts.libvirt.hook_install import (
    HOOKS_FOLDER,
    hook_path,
    install,
    installed_carrier,
    remove,
)
from armferry.hosts.program import answer_of

__all__ = ["add_parsers"]

SCHEMA_VERSION = 1
_TEST_LIMIT = 30.0


class _NoHook(ArmferryError):
    """The hook is not installed."""


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`hook install|remove|test`."""
    parser = commands.add_parser(
        "hook", help="let libvirt ask before a guest comes here that cannot run here"
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=type(parser))

    adder = actions.add_parser("install", help="put the script into libvirt's hooks/qemu.d")
    _add_folder(adder)
    adder.add_argument(
        "--ferried",
        action="store_true",
        help="guests come through armferry's gateway: stop only what armferry cannot carry either",
    )
    adder.add_argument(
        "--python", metavar="PATH", type=Path, help="the interpreter (default: this one)"
    )
    adder.add_argument(
        "--package",
        metavar="FOLDER",
        type=Path,
        help="where that interpreter finds the package armferry (default: where this one did)",
    )
    adder.set_defaults(func=run_install)

    remover = actions.add_parser("remove", help="take the script away")
    _add_folder(remover)
    remover.set_defaults(func=run_remove)

    tester = actions.add_parser("test", help="ask the installed script as libvirt would")
    _add_folder(tester)
    tester.add_argument("xml", metavar="XML", type=Path, help="a domain's XML: virsh dumpxml")
    tester.add_argument(
        "--operation",
        choices=("migrate", "restore", "start"),
        default="migrate",
        help="default: migrate",
    )
    tester.add_argument("--json", action="store_true", help="print a JSON document")
    tester.set_defaults(func=run_test)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hooks",
        metavar="FOLDER",
        type=Path,
        default=HOOKS_FOLDER,
        help=f"libvirt's hooks (default: {HOOKS_FOLDER})",
    )


def run_install(arguments: argparse.Namespace) -> int:
    """Installs the script."""
    path = install(
        "ferried" if arguments.ferried else "stock",
        arguments.hooks,
        python=arguments.python,
        package=arguments.package,
    )
    render.line(f"{path}: installed; libvirt finds it when it is restarted or reloaded")
    render.next_step("armferry host fingerprint, then systemctl reload libvirtd (or virtqemud)")
    return 0


def run_remove(arguments: argparse.Namespace) -> int:
    """Removes the script."""
    path = hook_path(arguments.hooks)
    there = remove(arguments.hooks)
    render.line(f"{path}: removed" if there else f"{path}: was not there")
    return 0


def run_test(arguments: argparse.Namespace) -> int:
    """Runs the script; 0 when the move may begin, 2 when it is stopped."""
    path = hook_path(arguments.hooks)
    carrier = installed_carrier(arguments.hooks)
    if carrier is None:
        raise _NoHook(f"{path}: not there; run armferry hook install")
    try:
        xml = arguments.xml.read_bytes()
    except OSError as error:
        raise ArmferryError(f"{arguments.xml}: cannot be read: {error.strerror}") from error
    start, before = time.monotonic(), _processor_time()
    done = answer_of(
        path, ["guest", arguments.operation, "begin", "-"], limit=_TEST_LIMIT, given=xml
    )
    took = round(1000 * (time.monotonic() - start))
    used = round(1000 * (_processor_time() - before))
    said = done.err.strip()
    # of a move that may begin the script says nothing: here is what that rests on
    decision = _decision(arguments.operation, xml, carrier)
    if arguments.json:
        answer = {
            "schema": SCHEMA_VERSION,
            "stopped": done.status != 0,
            "said": said,
            "why": decision.why,
            "moves": carrier,
            "ms": took,
            "processor_ms": used,
        }
        print(json.dumps(answer, indent=1))
    else:
        verdict = "stopped" if done.status else "may begin"
        render.line(f"{arguments.operation}: {verdict}, decided in {took} ms")
        render.prose(said or decision.why, indent=0)
    return 2 if done.status else 0


def _decision(operation: str, xml: bytes, carrier: str) -> Decision:
    if operation == "start":
        return Decision(False, "only migrate and restore are decided")
    try:
        return decide(operation, xml.decode("utf-8", "replace"), carrier)
    except Exception as fault:  # as the script: what it said of it stands
        return Decision(False, f"not decided: {fault!r}")


def _processor_time() -> float:
    """Seconds of processor time of every program that this one has waited for."""
    times = os.times()
    return times.children_user + times.children_system
