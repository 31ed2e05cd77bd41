"""A baseline of three real kernels: guests started with it move all six ways on stock rules alone.

On each host the KVM boundary presents the baseline; QEMU is stock, and nothing is in the path.
"""

import itertools
import json
from pathlib import Path

import pytest

from armferry.boundary import Table, birth
from armferry.decide.baseline import make_baseline
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import Fingerprint, parse
from armferry.lab.guest import GuestLog
from armferry.lab.host import HostSpec, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.pool import Hosts, two_at_once
from armferry.lab.releases import release_named
from armferry.lab.stays import Stay, Stayed, stay

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

SERIES = ("6.12", "6.17", "7.3")
MACHINE = "virt-10.0"


def spec(series: str) -> HostSpec:
    return HostSpec(KernelStore().get(series), release_named("trixie"))


def recorded(host: LabHost) -> Fingerprint:
    done = host.run(["armferry", "fingerprint", "kvm"], time_limit=240.0)
    assert done.exit_code == 0, done.stderr
    return parse(done.stdout, "the host")


def test_what_the_host_gives_beside_the_list() -> None:
    with LabHost(spec("6.12")) as host:
        found = recorded(host)
        said = json.loads(host.run(["armferry", "host", "check", "--json"]).stdout)
        probe = ["armferry", "fingerprint", "qemu", "--accel", "kvm", "--cpu", "host"]
        done = host.run([*probe, "--machine", f"{MACHINE},gic-version=3"], time_limit=240.0)
        assert done.exit_code == 0, done.stderr
        probed = parse(done.stdout, "the host's QEMU")
    facts = found.host
    assert facts.counter_hz == 62_500_000  # QEMU's default for a Neoverse N1
    assert facts.page_bytes == 4096
    assert (facts.gic, facts.its) == ((3,), True)
    assert facts.sve_bits == ()
    assert probed.host == facts  # whichever way a fingerprint is made
    assert facts.cores is not None
    assert list(facts.cores.values()) == [(0,)]
    assert [one["state"] for one in said["findings"] if one["what"] == "cores"] == ["ok"]


@pytest.mark.full
def test_guests_of_a_baseline_move_all_six_ways(guest_kernel: Path) -> None:
    fingerprints: dict[str, Fingerprint] = {}
    guest = guest_kernel.read_bytes()

    def record(booted: Hosts, series: str) -> None:
        with booted.boot(spec(series)) as host:
            fingerprints[series] = recorded(host)

    two_at_once(record, SERIES)
    baseline = make_baseline([end_of(fingerprints[series], series) for series in SERIES])
    assert baseline.possible, [str(one) for one in baseline.impossible]
    assert [part.text for part in baseline.hosts if part.as_it_is] == []
    tables = {}
    for series in SERIES:
        made = birth(fingerprints[series].cpus[0], baseline.registers, "6.12")
        assert made.obstacles == ()
        tables[series] = Table(made.rules).packed()
    born: dict[str, Stayed] = {}
    moved: dict[tuple[str, str], Stayed] = {}

    def bear(booted: Hosts, series: str) -> None:
        with booted.boot(spec(series)) as host:
            (born[series],) = stay(host, guest, [Stay(MACHINE, tables[series], b"", b"")])

    def take(booted: Hosts, there: str) -> None:
        others = [series for series in SERIES if series != there]
        with booted.boot(spec(there)) as host:
            stays = [
                Stay(MACHINE, tables[there], born[here].stream, born[here].log) for here in others
            ]
            for here, came in zip(others, stay(host, guest, stays), strict=True):
                moved[here, there] = came

    two_at_once(bear, SERIES)
    two_at_once(take, SERIES)
    assert set(moved) == set(itertools.permutations(SERIES, 2))
    for pair, came in moved.items():
        assert came.outcome.completed, (pair, came.outcome, came.trace)
        log = GuestLog.parse(came.log)
        assert not log.faults(), (pair, log.faults())
        assert log.last > GuestLog.parse(born[pair[0]].log).last, pair
