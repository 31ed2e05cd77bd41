"""`armferry migrate`: a whole live migration between two QEMUs."""

import argparse
import contextlib
import functools
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from armferry.cli import render
from armferry.cli.options import add_json, add_policy, policy_of
from armferry.errors import ArmferryError
from armferry.ferry.gateway import Dialer, Judge, Listener, parse_address
from armferry.ferry.migrate import Migration, Options, Progress, spec_of
from armferry.hosts.fingerprint import Fingerprint
from armferry.hosts.monitor import Monitor
from armferry.hosts.probe import find_qemu, fingerprint_of_qemu
from armferry.hosts.subject import open_subject
from armferry.policy import Policy
from armferry.registers import Accelerator

__all__ = ["add_parsers"]


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`migrate --source QMP --destination QMP`."""
    parser = commands.add_parser(
        "migrate",
        description="Probes the destination, decides, sets both QEMUs up, carries the move "
        "through a gateway of its own and verifies that the guest runs. Ctrl-C cancels it: the "
        "guest stays on the source.",
    )
    for end in ("source", "destination"):
        parser.add_argument(
            f"--{end}", metavar="QMP", required=True, help="unix:PATH or tcp:HOST:PORT"
        )
    parser.add_argument(
        "--to",
        metavar="DEST",
        help="a fingerprint of the destination; without one, a QEMU like it is probed here",
    )
    parser.add_argument(
        "--qemu", metavar="PROGRAM", help="the destination's QEMU, to be probed on this host"
    )
    parser.add_argument(
        "--source-fingerprint",
        metavar="FILE",
        help="a fingerprint of the source's host: the move is then decided before it begins",
    )
    parser.add_argument(
        "--listen", metavar="URI", help="where the source connects; a UNIX socket by default"
    )
    parser.add_argument(
        "--connect",
        metavar="URI",
        help="where the destination is told to listen; a UNIX socket by default",
    )
    parser.add_argument(
        "--allow-plain",
        action="store_true",
        help="listen without TLS where other machines can connect",
    )
    _add_ways(parser)
    add_policy(parser)
    add_json(parser)
    parser.set_defaults(func=run)


def _add_ways(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it travels")
    group.add_argument("--multifd", metavar="CHANNELS", type=int, help="memory on so many channels")
    group.add_argument(
        "--postcopy-after",
        metavar="SECONDS",
        type=float,
        help="switch to postcopy when the move has taken so long",
    )
    group.add_argument(
        "--capability",
        metavar="NAME",
        action="append",
        default=[],
        help="turn on one more of QEMU's capabilities, such as xbzrle; may be given again",
    )
    group.add_argument(
        "--bandwidth", metavar="BYTES", type=int, help="bytes a second at most (QEMU: 128 MiB)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Moves the guest; 0 when the destination has it."""
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(Monitor(arguments.source))
        destination = stack.enter_context(Monitor(arguments.destination))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="armferry-")))
        os.chmod(folder, 0o755)
        host = arguments.source_fingerprint
        known = None if host is None else open_subject(host).fingerprint
        judge = Judge(_destination(arguments, destination), _policy_for(arguments), known)
        listener = Listener(
            parse_address(arguments.listen or f"unix:{folder}/source"),
            plain_allowed=arguments.allow_plain,
        )
        stack.callback(listener.close)
        dialer = Dialer(parse_address(arguments.connect or f"unix:{folder}/destination"))
        migration = Migration(
            source, destination, listener, dialer, judge, _options(arguments), known_source=known
        )
        try:
            outcome = migration.run(_show if sys.stderr.isatty() else lambda _: None)
        except KeyboardInterrupt:
            raise ArmferryError("cancelled: the guest stays on the source") from None
        if arguments.json:
            print(json.dumps(outcome.document()))
        else:
            render.line(
                f"the guest is on {destination.address}: {outcome.bytes_forward / 1e6:.1f} MB in "
                f"{outcome.seconds:.1f} s, {outcome.mode}; "
                f"{sum(outcome.classes.values())} registers were not simply matched"
            )
    return 0


def _destination(arguments: argparse.Namespace, monitor: Monitor) -> Fingerprint:
    if arguments.to is not None:
        return open_subject(arguments.to).fingerprint
    return fingerprint_of_qemu(find_qemu(arguments.qemu), spec_of(monitor))


def _policy_for(arguments: argparse.Namespace) -> Any:
    @functools.cache
    def policy_for(machine: str, accelerator: Accelerator) -> Policy:
        return policy_of(arguments, machine, accelerator)

    return policy_for


def _options(arguments: argparse.Namespace) -> Options:
    capabilities: list[str] = list(arguments.capability)
    parameters: dict[str, object] = {}
    if arguments.multifd is not None:
        capabilities.append("multifd")
        parameters["multifd-channels"] = arguments.multifd
    if arguments.postcopy_after is not None:
        capabilities.append("postcopy-ram")
    if arguments.bandwidth is not None:
        parameters["max-bandwidth"] = arguments.bandwidth
    return Options(tuple(capabilities), parameters, arguments.postcopy_after)


def _show(progress: Progress) -> None:
    done = progress.transferred / 1e6
    left = progress.remaining / 1e6
    text = (
        f"{progress.status}: {done:.0f} MB sent, {left:.0f} MB left, {progress.rate / 1e6:.0f} "
        f"MB/s, {progress.dirty_rate} dirty pages/s, downtime {progress.expected_downtime} ms"
    )
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
