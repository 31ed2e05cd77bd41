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
from armferry.cli.gateway_options import Encryption, add_log, add_tls, open_log, positive_integer
from armferry.cli.options import add_json, add_policy, policy_of
from armferry.cli.progress import working
from armferry.cli.qemu_program import qemu_program
from armferry.ends import End
from armferry.errors import ArmferryError
from armferry.gateway import (
    Address,
    AddressError,
    Dialer,
    Judge,
    Listener,
    TransferReport,
    parse_address,
)
from armferry.gateway.address import TcpAddress, UnixAddress
from armferry.gateway.migrate import Migration, MigrationProgress, Options
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.fingerprints.probe import ProbeError, qemu_version
from armferry.hosts.fingerprints.probe_like import fingerprint_like
from armferry.hosts.qmp.client import CommandRefused, Monitor
from armferry.hosts.qmp.running import running_machine
from armferry.policy import Policy
from armferry.printable import printable
from armferry.registers import Accelerator

__all__ = ["add_parsers"]

_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - what is looked for, never bound


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
        "--qemu",
        metavar="QEMU",
        help="the destination's QEMU, to be probed on this host: a program, or a release of "
        "`armferry lab qemu list` (default: the one that runs, else QEMU on PATH)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--source-fingerprint",
        metavar="FILE",
        help="a fingerprint of the source's host: the move is then decided before it begins",
    )
    source.add_argument(
        "--source-qemu",
        metavar="QEMU",
        help="the source's QEMU, to be probed on this host for the same purpose",
    )
    parser.add_argument(
        "--listen", metavar="URI", help="where the source connects; a UNIX socket by default"
    )
    parser.add_argument(
        "--connect",
        metavar="URI",
        help="where the destination is to listen; a UNIX socket by default",
    )
    add_tls(parser)
    add_log(parser)
    _add_ways(parser)
    add_policy(parser)
    add_json(parser)
    parser.set_defaults(func=run)


def _add_ways(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it travels")
    group.add_argument(
        "--multifd", metavar="CHANNELS", type=positive_integer, help="memory on so many channels"
    )
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
        "--bandwidth",
        metavar="BYTES",
        type=positive_integer,
        help="bytes a second at most (QEMU: 128 MiB)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Moves the guest; 0 when the destination has it."""
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(Monitor(arguments.source))
        destination = stack.enter_context(Monitor(arguments.destination))
        log = stack.enter_context(open_log(arguments.log))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="armferry-")))
        os.chmod(folder, 0o755)  # noqa: S103 - QEMU, as another user, makes its socket in it
        known = _known_source(arguments, source)
        encryption = Encryption.of(arguments)
        judge = Judge(_destination(arguments, destination), _policy_for(arguments), known)
        dialer = Dialer(
            _address(arguments.connect or f"unix:{folder}/destination", "--connect"),
            context=encryption.connecting,
            host=encryption.host,
        )
        listener = Listener(
            _address(arguments.listen or f"unix:{folder}/source", "--listen"),
            encrypted=encryption.listening is not None,
            plain_allowed=arguments.allow_plain,
        )
        stack.callback(listener.close)
        display = stack.enter_context(_Display())
        migration = Migration(
            source,
            destination,
            listener,
            dialer,
            judge,
            _options(arguments),
            known_source=known,
            context=encryption.listening,
            authorized=encryption.authorized,
            log=log,
            tell=display.tell,
        )
        try:
            report = migration.run(display.show)
        except KeyboardInterrupt:
            raise _Cancelled("cancelled: the guest stays on the source") from None
        finally:
            if arguments.json and migration.report is not None:
                print(json.dumps(migration.report.document()), flush=True)
        display.clear()
        if not arguments.json:
            render.prose(_ending(migration, report, destination.address), indent=0, hang=2)
            for note in report.notes:
                render.prose(f"note: {note}", "warn", indent=0, hang=2)
    return 0


def _ending(migration: Migration, report: TransferReport, address: str) -> str:
    place = f"waits on {address} for `cont`" if migration.waits else f"runs on {address}"
    took = f"{report.bytes_forward / 1e6:.1f} MB in {report.seconds:.1f} s"
    still = "" if migration.downtime is None else f", downtime {migration.downtime} ms"
    count = sum(report.fates.values())
    differences = f"{count} register difference{'' if count == 1 else 's'}"
    risk = "" if report.judgement is None else f", risk {report.judgement.verdict.risk}"
    return f"the guest {place}: {took}{still} ({report.mode}); {differences}{risk}"


class _Cancelled(ArmferryError):
    """The user ended the move."""

    exit_code = 4


def _address(text: str, option: str) -> Address:
    """An address that a QEMU can be given. Raises AddressError."""
    address = parse_address(text)
    match address:
        case UnixAddress():
            return address
        case TcpAddress(host=host, port=port):
            if host in _EVERYWHERE:
                raise AddressError(
                    f"{option} {text}: a QEMU is to connect there, so name the address at "
                    "which it reaches this machine"
                )
            if not port and option == "--connect":
                raise AddressError(f"{option} {text}: name the port that QEMU is to listen on")
            return address
    raise AddressError(f"{option} {text}: both QEMUs must be able to open it: tcp: or unix:")


def _known_source(arguments: argparse.Namespace, monitor: Monitor) -> End | None:
    if arguments.source_fingerprint is not None:
        return open_subject(arguments.source_fingerprint).end
    if arguments.source_qemu is not None:
        return _probed(arguments.source_qemu, monitor, "--source-qemu")
    return None


def _destination(arguments: argparse.Namespace, monitor: Monitor) -> End:
    if arguments.to is not None:
        return open_subject(arguments.to).end
    return _probed(arguments.qemu, monitor, "--qemu")


def _probed(name: str | None, monitor: Monitor, option: str) -> End:
    """The end of the QEMU at `monitor`, from one that is started like it."""
    program = _same_program(monitor) if name is None else None
    program = program or qemu_program(name)
    try:
        with working(f"asking a QEMU like the one at {monitor.address}"):
            running = running_machine(monitor.execute, CommandRefused)
            return end_of(fingerprint_like(program, running))
    except ProbeError as error:
        raise ProbeError(f"{option}: {error} (running at {monitor.address})") from error


def _same_program(monitor: Monitor) -> Path | None:
    """The running QEMU's own program, where it is one of this host that can be started again."""
    program = monitor.program
    if program is None or not program.name.startswith("qemu-system"):
        return None  # its socket was made by another process, or it runs under a loader
    try:
        qemu_version(program)
    except ProbeError:
        return None
    return program


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


class _Display(contextlib.AbstractContextManager["_Display"]):
    """What a person sees while the guest moves: on a terminal one line that changes."""

    def __init__(self) -> None:
        self._changing = sys.stderr.isatty()
        self._shown = False

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, progress: MigrationProgress) -> None:
        """The progress, where there is a terminal."""
        if not self._changing:
            return
        text = (
            f"{progress.status}: {progress.transferred / 1e6:.0f} MB sent, "
            f"{progress.remaining / 1e6:.0f} MB left, {progress.rate / 1e6:.0f} MB/s, "
            f"{progress.dirty_rate} dirty pages/s, "
            f"expected downtime {progress.expected_downtime} ms"
        )
        print(f"\r\033[K{printable(text)}", end="", file=sys.stderr, flush=True)
        self._shown = True

    def tell(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        lines = [printable(f"note: {text}")]
        if self._changing:
            lines = list(render.wrapped(lines[0], os.get_terminal_size(2).columns, hang=2))
        print("\n".join(lines), file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Takes the changing line away."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        self._shown = False
