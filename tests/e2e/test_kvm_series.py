"""A running guest under KVM, from kernel to kernel and back, where stock QEMU refuses it.

Two real arm64 kernels with the same QEMU: each way the file is first given to the destination's
QEMU as it is, then ferried by the command. The guest is the one of `armferry.lab.guest`: it counts
on the serial line and notices any loss. Hosts are booted one after the other, never two at once.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from armferry.hosts.fingerprints.fingerprint import dump
from armferry.lab.guest import GuestLog
from armferry.lab.host import HostSpec, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.matrix import record_all, said
from armferry.lab.nested import NestedQemu, guest_log, load, save, with_guest
from armferry.lab.releases import release_named

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

TICKS = 3
CPU_ERROR = "error while loading state for instance 0x0 of device 'cpu'"
PUT_FAILURE = "Failed to put registers after init: Invalid argument"
PSCI_REFUSED = "Could not set register fw reg 0 to 10003 (is 10001)"
BITMAP_MISSING = (
    "warning: handle_cpreg_missing_in_incoming_stream: fw feat reg 3 expected by the destination "
    "but not in the incoming stream: skip it"
)


def too_long(incoming: int, own: int) -> str:
    return (
        f"Invalid value {incoming} expecting positive value <= {own}\n"
        "Failed to load cpu:cpreg_vmstate_array_len\n"
        f"{CPU_ERROR}\nload of migration failed: Invalid argument"
    )


@dataclass(frozen=True, slots=True)
class Way:
    """One way of a journey: whether stock QEMU loads, what it prints, and what must be named."""

    loads: bool
    stock: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Journey:
    """There and back between two kernels with the same QEMU and machine type.

    `psci` is the version that the guest is told at home and, once it has been away, ever after.
    """

    home: str
    away: str
    there: Way
    back: Way
    psci: tuple[str, str]
    suite: str = "trixie"
    machine: str = "virt-10.0"

    def __str__(self) -> str:
        return f"{self.home}-to-{self.away}-{self.machine}"


PSCI_1_1 = ("--kvm-psci-version", "1.1")
JOURNEYS = (
    # 6.12 offers PSCI 1.1 and refuses 1.3; once told 1.1, the guest keeps it on 6.17
    Journey(
        "6.17",
        "6.12",
        Way(False, f"{CPU_ERROR}\n{PUT_FAILURE}", PSCI_1_1),
        Way(False, too_long(258, 256)),
        ("1.3", "1.1"),
    ),
    Journey("7.3", "6.17", Way(False, too_long(257, 256)), Way(True, ""), ("1.3", "1.3")),
)
NEWEST_QEMU = Journey(
    "6.17",
    "6.12",
    Way(False, f"{PSCI_REFUSED}\n{PSCI_REFUSED}\n{PUT_FAILURE}", PSCI_1_1),
    # its own tolerances let the three registers of 6.12 pass
    Way(True, BITMAP_MISSING),
    ("1.3", "1.1"),
    suite="trixie-backports",
    machine="virt-10.1",
)


class Rig:
    """The hosts of a journey, and the guest on its way."""

    def __init__(self, journey: Journey, guest: Path, folder: Path) -> None:
        self.journey = journey
        self.guest = guest.read_bytes()
        self.folder = folder
        self.log = b""

    def spec(self, kernel: str) -> HostSpec:
        return HostSpec(KernelStore().get(kernel), release_named(self.journey.suite))

    def fingerprint(self, kernel: str) -> Path:
        """What the host would accept, as a document."""
        path = self.folder / f"{kernel}.json"
        host = (self.spec(kernel), NestedQemu(self.journey.machine))
        (recording,) = record_all([host], lambda *_: None)
        path.write_text(dump(recording.destination().fingerprint))
        return path

    def start(self, kernel: str) -> Path:
        """The state of the guest, saved while it runs."""
        with LabHost(self.spec(kernel)) as host:
            qemu = with_guest(host, self.journey.machine, self.guest)
            outcome, stream = save(host, qemu, ticks=TICKS)
            self.log += guest_log(host)
        assert outcome.completed, outcome
        log = GuestLog.parse(self.log)
        assert log.last >= TICKS
        assert (log.psci, log.faults()) == (self.journey.psci[0], ())
        return self._kept("started", stream)

    def carry_on(self, kernel: str, way: Way, state: Path, ferried: Path) -> Path:
        """The same guest, saved again after it ran there; its file as it was is tried first."""
        before = GuestLog.parse(self.log)
        with LabHost(self.spec(kernel)) as host:
            fresh = with_guest(host, self.journey.machine, self.guest)
            stock, _ = load(host, fresh, state.read_bytes())
            assert (stock.completed, said(stock)) == (way.loads, way.stock)
            qemu = with_guest(host, self.journey.machine, self.guest)
            outcome, stream = load(host, qemu, ferried.read_bytes(), ticks=TICKS)
            self.log += guest_log(host)
        assert outcome.completed, outcome
        after = GuestLog.parse(self.log)
        assert after.faults() == ()
        assert after.last >= before.last + TICKS
        assert after.ticks[-1].psci == self.journey.psci[1]
        return self._kept(f"after-{kernel}", stream)

    def _kept(self, name: str, stream: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(stream)
        return path


def armferry(*words: str | Path) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "armferry", *words, "--json"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == b"", done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


def ferry(rig: Rig, state: Path, to: Path, way: Way) -> Path:
    """The file rewritten by the command, which predicts what stock QEMU prints."""
    qemu = ("--destination-qemu", release_named(rig.journey.suite).version)
    _, unaided = armferry("check", state, "--to", to, *qemu)
    stock = unaided["stock"]
    assert isinstance(stock, dict)
    assert stock["message"] == way.stock
    if way.options:
        assert unaided["verdict"] == "fails"
    ferried = state.with_name(f"{state.name}.ferried")
    code, document = armferry("ferry", state, ferried, "--to", to, *way.options)
    assert (code, document["verdict"]) == (0, "works-with-policy")
    assert document["risk"] == ("guest-visible" if way.options else "lossless")
    return ferried


@pytest.mark.parametrize(
    "journey", [*JOURNEYS, pytest.param(NEWEST_QEMU, marks=pytest.mark.full)], ids=str
)
def test_a_running_guest_crosses_and_returns(
    journey: Journey, guest_kernel: Path, tmp_path: Path
) -> None:
    rig = Rig(journey, guest_kernel, tmp_path)
    home, away = rig.fingerprint(journey.home), rig.fingerprint(journey.away)
    started = rig.start(journey.home)
    there = ferry(rig, started, away, journey.there)
    returning = rig.carry_on(journey.away, journey.there, started, there)
    back = ferry(rig, returning, home, journey.back)
    rig.carry_on(journey.home, journey.back, returning, back)
