"""`armferry gateway`: in the path of live migrations."""

import argparse
import contextlib
import functools
import gc
import json
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from armferry.cli import render
from armferry.cli.gateway_options import (
    Encryption,
    add_log,
    add_tls,
    open_log,
    positive_integer,
    positive_seconds,
)
from armferry.cli.options import add_json, add_policy, policy_of, policy_warnings
from armferry.gateway import (
    DEFAULT_STATE_LIMIT,
    Dialer,
    Ending,
    Gateway,
    GatewayError,
    Judge,
    Limits,
    Listener,
    Log,
    TransferReport,
    parse_address,
)
from armferry.gateway.address import TcpAddress
from armferry.gateway.budget import DEFAULT_STATE_TOTAL, Budget
from armferry.gateway.endpoint import is_private
from armferry.gateway.metrics import serve_metrics
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.policy import Policy
from armferry.printable import printable
from armferry.registers import Accelerator

__all__ = ["add_parsers"]

_DEFAULTS = Limits()
_SIGNAL_LATENCY = 0.5  # seconds


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """`gateway --listen URI --connect URI --to DEST`."""
    parser = commands.add_parser(
        "gateway",
        description="Takes a live migration on --listen and carries it to --connect. Guest "
        "memory passes through; the device state is held, decided on and sent with the register "
        "lists that the destination accepts. When the decision refuses, both sides are closed "
        "before the destination has the guest, and the source runs on.",
    )
    parser.add_argument(
        "--listen",
        metavar="URI",
        action="append",
        required=True,
        help="where the source connects: tcp:HOST:PORT, unix:PATH, exec:COMMAND, fd:N, systemd:",
    )
    parser.add_argument(
        "--connect",
        metavar="URI",
        action="append",
        required=True,
        help="where the destination listens; one for each --listen",
    )
    parser.add_argument(
        "--to",
        metavar="DEST",
        action="append",
        required=True,
        help="the destination: a fingerprint or a stream; one for all, or one for each --listen",
    )
    parser.add_argument(
        "--source-fingerprint",
        metavar="FILE",
        help="a fingerprint of the source's host: its reset values tell what the guest changed",
    )
    parser.add_argument(
        "--keep", action="store_true", help="go on after the first move, until interrupted"
    )
    add_tls(parser)
    _add_limits(parser)
    add_log(parser)
    parser.add_argument(
        "--metrics", metavar="HOST:PORT", help="serve Prometheus metrics there, at /metrics"
    )
    add_policy(parser)
    add_json(parser)
    parser.set_defaults(func=run)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--state-limit",
        metavar="BYTES",
        type=positive_integer,
        default=DEFAULT_STATE_LIMIT,
        help="device state of one move held at most (%(default)s)",
    )
    group.add_argument(
        "--state-total",
        metavar="BYTES",
        type=positive_integer,
        default=DEFAULT_STATE_TOTAL,
        help="device state of all moves held at most (%(default)s)",
    )
    group.add_argument(
        "--stall-limit",
        metavar="SECONDS",
        type=positive_seconds,
        default=_DEFAULTS.stall,
        help="end a move when no byte has moved for so long (%(default)s)",
    )
    group.add_argument(
        "--connect-limit",
        metavar="SECONDS",
        type=positive_seconds,
        default=_DEFAULTS.connect,
        help="for a connection, its TLS handshake and its first words (%(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serves; the exit code is that of the last move: 0 moved, 2 refused, 4 failed."""
    last: list[TransferReport] = []
    faults: list[Exception] = []
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open_log(arguments.log))
        gateways: list[Gateway] = []
        take_in = _metrics(arguments, gateways)

        showing = threading.Lock()

        def on_report(report: TransferReport) -> None:
            take_in(report)
            # each move ends in a thread of its own, and a reader that has gone must not end others
            with showing, contextlib.suppress(BrokenPipeError):
                _show(report, arguments.json)

        gateways += _gateways(arguments, stack, log, on_report)
        _on_signals(gateways)

        def serve(gateway: Gateway) -> None:
            try:
                last.extend(gateway.run()[-1:])
            except Exception as error:
                faults.append(error)

        # what is loaded stays: the collector, which would look at all of it while a guest waits,
        # shall see only what a move makes
        gc.freeze()
        threads = [threading.Thread(target=serve, args=(one,)) for one in gateways]
        for thread in threads:
            thread.start()
        for thread in threads:
            # a signal that comes just as the main thread begins to wait is handled when it wakes
            while thread.is_alive():
                thread.join(_SIGNAL_LATENCY)
    if faults:
        raise faults[0]
    if not last:
        return 0 if arguments.keep else Ending.CANCELLED.exit_code
    return max(outcome.ending.exit_code for outcome in last)


def _gateways(
    arguments: argparse.Namespace,
    stack: contextlib.ExitStack,
    log: Log,
    on_report: Callable[[TransferReport], None],
) -> list[Gateway]:
    count = len(arguments.listen)
    destinations = arguments.to * count if len(arguments.to) == 1 else arguments.to
    if len(arguments.connect) != count or len(destinations) != count:
        raise GatewayError(
            f"--listen was given {count} times, --connect {len(arguments.connect)} and --to "
            f"{len(arguments.to)} times; give each --listen its own --connect"
        )

    @functools.cache
    def policy_for(machine: str, accelerator: Accelerator) -> Policy:
        return policy_of(arguments, machine, accelerator)

    source = arguments.source_fingerprint
    host = None if source is None else open_subject(source).end
    encryption = Encryption.of(arguments)
    limits = Limits(arguments.state_limit, arguments.stall_limit, arguments.connect_limit)
    budget = Budget(arguments.state_total)
    gateways = []
    for here, there, to in zip(arguments.listen, arguments.connect, destinations, strict=True):
        destination = open_subject(to).end
        policy = policy_for(str(destination.machine or ""), destination.accelerator)
        for warning in policy_warnings(policy):
            print(printable(f"note: {warning}"), file=sys.stderr)
        dialer = Dialer(
            parse_address(there),
            context=encryption.connecting,
            host=encryption.host,
            limit=arguments.connect_limit,
        )
        judge = Judge(destination, policy_for, host)
        judge.prepare("")
        listener = Listener(
            parse_address(here),
            encrypted=encryption.listening is not None,
            plain_allowed=arguments.allow_plain,
        )
        stack.callback(listener.close)
        gateways.append(
            Gateway(
                listener,
                dialer,
                judge,
                context=encryption.listening,
                authorized=encryption.authorized,
                limits=limits,
                budget=budget,
                keep=arguments.keep,
                log=log,
                on_report=on_report,
                on_rejected=_say_rejected,
            )
        )
        print(f"listening on {listener.address} for {dialer.address}", file=sys.stderr, flush=True)
        log.write("listening", address=str(listener.address), destination=str(dialer.address))
    return gateways


def _metrics(
    arguments: argparse.Namespace, gateways: list[Gateway]
) -> Callable[[TransferReport], None]:
    if arguments.metrics is None:
        return lambda _: None
    address = parse_address(f"tcp:{arguments.metrics}")
    assert isinstance(address, TcpAddress)
    if not arguments.allow_plain and not is_private(address.host):
        raise GatewayError(
            f"--metrics {arguments.metrics}: anybody could read there which guests move; serve "
            "them on 127.0.0.1, or allow it with --allow-plain"
        )
    return serve_metrics(address, lambda: sum(len(one.transfers) for one in gateways))


def _on_signals(gateways: list[Gateway]) -> None:
    """SIGTERM carries running moves to their end; SIGINT ends them at once."""

    def stop(number: int, _: object) -> None:
        for gateway in gateways:
            if number == signal.SIGINT:
                gateway.abort("interrupted")
            else:
                gateway.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _say_rejected(peer: str, reason: str) -> None:
    with contextlib.suppress(OSError):
        # in one write, so that the lines of others stay whole
        sys.stderr.write(printable(f"turned away: {peer}: {reason}") + "\n")
        sys.stderr.flush()


def _show(outcome: TransferReport, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(outcome.document()) + "\n")
        sys.stdout.flush()
        return
    channels = f"{outcome.channels} channel{'' if outcome.channels == 1 else 's'}"
    what = f"move {outcome.number} ({outcome.mode}, {channels})"
    size = f"{outcome.bytes_forward / 1e6:.1f} MB in {outcome.seconds:.1f} s"
    if outcome.moved:
        changed = ", ".join(f"{count} {fate}" for fate, count in sorted(outcome.fates.items()))
        words = {Ending.COMPLETED: "completed", Ending.DELIVERED: "passed on, not acknowledged"}
        render.line(f"{what}: {words[outcome.ending]}; {size}; {changed or 'nothing changed'}")
    else:
        reason = outcome.reason.removeprefix("the move is refused: ")
        render.prose(f"{what}: {outcome.ending}: {reason}", "bad", indent=0, hang=2)
        if outcome.source_stopped:
            render.prose(
                "the destination never had the guest's state. The source holds it, but without "
                "return-path its QEMU believes that the move is complete and has stopped it: "
                '`cont` there (QMP: {"execute": "cont"}) runs it on',
                indent=0,
            )
        elif outcome.before_state:
            render.line("the destination never had the guest's state: the source runs on")
    for note in outcome.notes:
        render.prose(f"note: {note}", "warn", indent=0, hang=2)
    sys.stdout.flush()
