"""Guests started with the series' command lines, moved live between real kernels.

On the newer kernel runs `armferry-qemu`; on 6.12 stock QEMU, and nothing of armferry is there or
between the two: wires join the hosts, one for each channel of a migration. The same guest goes
there and back two ways: plain, and multifd with TLS from end to end. A tracer behind the boundary's
library writes down which registers the kernel was asked about.
"""

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.lab.cross import cross_tool
from armferry.lab.guest import GuestLog

from .joined_hosts import TICKS, cross, joined

pytestmark = [pytest.mark.qemu, pytest.mark.kernel, pytest.mark.full]

TRACER = Path(__file__).with_name("ioctl_tracer.c")
BITMAP_2, PMMIR = 0x6030000000160003, 0x603000000013C4F6
WAYS = (("plain", 1), ("tls", 3))
"""How, and how many channels: more than one is multifd."""
CREDENTIALS = tuple(
    word
    for endpoint in ("client", "server")
    for word in ("-object", f"tls-creds-x509,id={endpoint},endpoint={endpoint},dir=/tls")
)
SERIES = {
    "6.17": ("-cpu", f"host,x-mig-hidden-regs={BITMAP_2:#x},kvm-psci-version=1.1"),
    # what 7.3 has beyond; lists on -cpu, on -global and in the machine's level together
    "7.3": (
        *("-cpu", f"host,x-mig-hidden-regs={BITMAP_2:#x}"),
        *("-global", f"arm-cpu.x-mig-hidden-regs={PMMIR:#x},,{BITMAP_2:#x}"),
        *("-global", "arm-cpu.kvm-psci-version=1.1"),
    ),
}
HIDDEN = {"6.17": {BITMAP_2}, "7.3": {BITMAP_2, PMMIR}}
PARAMETERS = ("openssl", "dhparam", "-out")
CARRY = ("-global", "arm-cpu.x-armferry-carry=on")


@pytest.mark.parametrize(
    ("newer", "suite", "version"),
    [
        ("6.17", "trixie", "10.0"),
        ("7.3", "trixie", "10.0"),
        ("7.3", "bookworm", "7.2"),
        ("6.17", "trixie-backports", "10.1"),
    ],
)
def test_live_to_stock_qemu_and_back(
    newer: str,
    suite: str,
    version: str,
    guest_kernel: Path,
    credentials: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    library = tmp_path / "tracer.so"
    flags = ("-shared", "-fPIC", "-O1", "-Wall", "-Werror")
    cross_tool("the tracer", "gcc", *flags, "-o", str(library), str(TRACER), "-ldl")
    files = {f"/tls/{file.name}": file.read_bytes() for file in credentials("lab").glob("*.pem")}
    # without them QEMU looks for a prime of its own, for minutes under emulation
    subprocess.run([*PARAMETERS, str(tmp_path / "dh-params.pem"), "512"], check=True, timeout=100)
    files["/tls/dh-params.pem"] = (tmp_path / "dh-params.pem").read_bytes()
    files |= {"/guest/kernel": guest_kernel.read_bytes(), "/guest/tracer.so": library.read_bytes()}
    machine = ("-M", f"virt-{version},accel=kvm,gic-version=3")
    words = ("armferry-qemu", *machine, *SERIES[newer], *CARRY, *CREDENTIALS)
    stock = ("qemu-system-aarch64", *machine, "-cpu", "host", *CREDENTIALS)
    wires = {
        (way, turn): [f"{way}-{turn}-{channel}" for channel in range(channels)]
        for way, (_, channels) in enumerate(WAYS)
        for turn in ("there", "back")
    }
    names = itertools.chain.from_iterable(wires.values())
    with joined((newer, "6.12"), suite, names, files) as (home, away):
        home.do("start", "0", "runs", *words)
        home.do("ticks", "0", str(TICKS))
        seen = home.said()
        for way, (how, _) in enumerate(WAYS):
            away.do("start", str(way), "waits", *stock)
            trace = cross(home, str(way), away, str(way), wires[way, "there"], how)
            assert "hidden from vCPU 0: " in trace, trace
            # which is QEMU's own work where it knows the property
            lowered = "PSCI_VERSION is 0x10001 (PSCI 1.1) from the start" in trace
            assert lowered is (suite != "trixie-backports"), trace
            seen += home.said() + away.said()
            home.do("start", str(way + 1), "waits", *words)
            cross(away, str(way), home, str(way + 1), wires[way, "back"], how)
            seen += away.said() + home.said()
        traces = [home.host.get(f"/tmp/trace-{way}") for way in range(len(WAYS) + 1)]
    log = GuestLog.parse(seen)
    assert log.faults() == ()
    assert log.last >= TICKS * (1 + 2 * len(WAYS))
    assert {tick.psci for tick in log.ticks} == {"1.1"}
    for asked in traces:
        indexes = {int(line.split()[1], 16) for line in asked.splitlines()}
        assert len(indexes) > 200
        assert indexes.isdisjoint(HIDDEN[newer])
