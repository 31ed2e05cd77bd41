"""What Prometheus is told."""

import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.cli.parser import make_parser
from armferry.gateway import Ending, Judge, NetworkFault, TransferReport
from armferry.gateway.address import TcpAddress
from armferry.gateway.metrics import serve_metrics
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.stream import StreamParser
from armferry.stream.events import DeviceSection, DeviceStateBegins


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def read(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_outcomes_are_counted(
    recorded: Callable[[str], bytes],
    host_of: Callable[[bytes], Fingerprint],
    judge_of: Callable[..., Judge],
) -> None:
    stream = recorded("tcg_10.0.2_virt-10.0_cortex-a57_1")
    events = StreamParser().feed(stream)
    begin = next(e.offset for e in events if isinstance(e, DeviceStateBegins))
    sections = [e for e in events if isinstance(e, DeviceSection) and e.offset >= begin]
    judgement = judge_of(host_of(recorded("switchover-ack")))("virt-10.0", sections)
    port = free_port()
    take_in = serve_metrics(TcpAddress("127.0.0.1", port), lambda: 2)
    for ending in (Ending.COMPLETED, Ending.COMPLETED, Ending.REFUSED):
        take_in(
            TransferReport(
                number=1,
                ending=ending,
                reason="",
                machine="virt-10.0",
                mode="precopy",
                channels=1,
                bytes_forward=1_000,
                bytes_back=16,
                pages=3,
                zero_pages=4,
                state_bytes=20_000,
                held_seconds=0.5,
                decision_seconds=0.003,
                seconds=2.0,
                before_state=False,
                return_path=True,
                judgement=judgement,
            )
        )
    told = read(port)
    assert told['armferry_moves_total{mode="precopy",outcome="completed"}'] == 2
    assert told['armferry_moves_total{mode="precopy",outcome="refused"}'] == 1
    assert told['armferry_bytes_total{direction="forward"}'] == 3_000
    assert told['armferry_bytes_total{direction="back"}'] == 48
    assert told["armferry_moves_running"] == 2
    assert told["armferry_state_seconds_count"] == 3
    assert told['armferry_state_seconds_bucket{le="0.002"}'] == 0
    assert told['armferry_state_seconds_bucket{le="0.005"}'] == 3
    assert told['armferry_registers_total{class="only on the destination"}'] == 6


def test_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NetworkFault) as fault:
            serve_metrics(TcpAddress("127.0.0.1", port), lambda: 0)
    assert str(fault.value) == (
        f"tcp:127.0.0.1:{port}: cannot serve metrics: Address already in use"
    )


def test_unit_starts_a_command_that_exists() -> None:
    """Its words, with a configuration's values in place, are taken by the command itself."""
    packaging = Path(__file__).parent.parent.parent / "packaging"
    unit = (packaging / "armferry-gateway@.service").read_text()
    (command,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    for name, value in (
        ("LISTEN", "systemd:"),
        ("CONNECT", "tcp:127.0.0.1:49200"),
        ("TO", "/etc/armferry/host.json"),
    ):
        command = command.replace(f"${{{name}}}", value)
    command = command.replace("$OPTIONS", "--stall-limit 60 --metrics 127.0.0.1:9464")
    program, verb, *words = command.removeprefix("ExecStart=").split()
    assert (program, verb) == ("/usr/bin/armferry", "gateway")
    parsed = make_parser(verb).parse_args([verb, *words])
    assert (parsed.keep, parsed.log, parsed.listen) == (True, "-", ["systemd:"])
    assert parsed.stall_limit == 60
    socket_unit = (packaging / "armferry-gateway@.socket").read_text()
    assert "ListenStream=/run/armferry/%i.migration" in socket_unit
