"""Linux guests saved by each release once, judged, carried and watched."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from armferry.decide import Answer, Plan, Risk, judge, make_plan
from armferry.ends import Move
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.fingerprints.subject import Subject
from armferry.hosts.qmp.process import QemuProcess
from armferry.lab.kernels import KernelStore
from armferry.lab.linux import LinuxLog, LinuxMachine, LinuxSpec
from armferry.lab.linux.machine import GuestSilent
from armferry.lab.qemu_install import InstalledQemu
from armferry.policy import aggregate
from armferry.rewriting.edits import edit_of
from armferry.stream import rewrite_tail

__all__ = ["KERNEL", "MACHINE", "LinuxRig", "Pair", "Told"]

KERNEL = "6.12"
MACHINE = "virt-7.2,gic-version=3"
_WATCHED = 8
"""Ticks that a moved guest is watched for: every worker has been round several times."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One move of a Linux guest: of which CPU model, between which releases."""

    cpu: str
    source: str
    destination: str

    def __str__(self) -> str:
        return f"{self.cpu}-{self.source}-to-{self.destination}"


@dataclass(frozen=True, slots=True)
class Told:
    """What was said of a move beforehand, and what Linux noticed.

    `stock` says whether stock QEMU was predicted to load the guest, `stock_loads` whether it did.
    `noticed` is empty for a guest that noticed nothing, `alive` says that it went on, `rebooted`
    that it started again afterwards (None where it was not asked to).
    """

    pair: Pair
    stock: bool
    stock_loads: bool
    answer: Answer
    plan: Plan
    alive: bool
    noticed: tuple[str, ...]
    rebooted: bool | None

    @property
    def risk(self) -> Risk:
        return self.plan.verdict.risk

    @property
    def law_holds(self) -> bool:
        """Whether the guest fared as its risk promises."""
        if self.stock != self.stock_loads:
            return False
        if self.risk <= Risk.LOSSLESS:
            return self.alive and not self.noticed and self.rebooted is not False
        return self.alive or self.risk > Risk.GUEST_VISIBLE


class LinuxRig:
    """The states are made once, in `folder`."""

    def __init__(self, qemu: Callable[[str], InstalledQemu], folder: Path) -> None:
        self.qemu = qemu
        self.folder = folder
        self.kernel = KernelStore().get(KERNEL)

    def spec(self, cpu: str) -> LinuxSpec:
        return LinuxSpec(self.kernel, machine=MACHINE, cpu=cpu)

    def saved(self, release: str, cpu: str) -> tuple[Path, Path]:
        """The state of a guest that `release` ran and saved, and its log until then."""
        state = self.folder / f"{release}-{cpu}.state"
        log = state.with_suffix(".log")
        if not state.exists():
            part = state.with_suffix(".part")
            with LinuxMachine(self.qemu(release), self.spec(cpu), log) as guest:
                before = guest.settled()
                assert before.wrong == before.odd == (), f"{release} {cpu}: {before}"
                guest.machine.save(part)
            part.rename(state)
        return state, log

    def host(self, release: str, cpu: str) -> Subject:
        """What `release` would accept: the state of a machine of its that never ran."""
        state = self.folder / f"{release}-{cpu}.fresh"
        if not state.exists():
            part = state.with_suffix(".part")
            spec = self.spec(cpu).machine_spec()
            with QemuProcess(self.qemu(release), spec, paused=True, time_limit=300.0) as machine:
                machine.save(part)
            part.rename(state)
        return open_subject(str(state))

    def move(self, pair: Pair) -> tuple[Subject, Move]:
        guest = open_subject(str(self.saved(pair.source, pair.cpu)[0]))
        there, own = self.host(pair.destination, pair.cpu), self.host(pair.source, pair.cpu)
        version = self.qemu(pair.destination).version
        return guest, Move.between(guest.end, there.end, host=own.end, qemu=version)

    def carry(self, pair: Pair, *, reboot: bool = False) -> Told:
        """The guest judged, tried as it is, ferried, and watched where it arrives."""
        guest, move = self.move(pair)
        base = aggregate(guest.machine, move.destination.accelerator)
        plan = make_plan(move, base)
        assert plan.works, f"{pair}: {plan.obstacles}"
        stock = plan.verdict.stock
        assert stock is not None
        state, log = self.saved(pair.source, pair.cpu)
        spec, qemu = self.spec(pair.cpu), self.qemu(pair.destination)
        with QemuProcess(
            qemu, spec.machine_spec(), paused=True, incoming=True, time_limit=300.0
        ) as machine:
            loads = machine.load(state).loaded
        ferried = self._ferried(pair, guest, plan)
        alive, noticed, rebooted = self._watched(pair, ferried, log, reboot=reboot)
        answer = judge(move, base).answer
        return Told(pair, stock.loads, loads, answer, plan, alive, noticed, rebooted)

    def _ferried(self, pair: Pair, guest: Subject, plan: Plan) -> Path:
        assert guest.saved is not None
        path = self.folder / f"{pair}.ferried"
        tail = rewrite_tail(guest.saved, edit_of(plan.verdict))
        shutil.copyfile(guest.text, path)
        if tail is not None:
            with path.open("r+b") as file:
                file.truncate(tail.offset)
                file.seek(tail.offset)
                file.write(tail.data)
        return path

    def _watched(
        self, pair: Pair, state: Path, log: Path, *, reboot: bool
    ) -> tuple[bool, tuple[str, ...], bool | None]:
        serial = state.with_suffix(".log")
        shutil.copyfile(log, serial)
        before = LinuxLog.read(serial)
        with LinuxMachine(
            self.qemu(pair.destination), self.spec(pair.cpu), serial, incoming=True
        ) as guest:
            result = guest.machine.load(state)
            assert result.loaded, f"{pair}: {result.stderr}"
            try:
                after = guest.ticks(_WATCHED)
            except GuestSilent:
                return False, guest.log.faults(before)[:4] or ("it is silent",), None
            rebooted = None
            if reboot:
                guest.ask("reboot warm")
                try:
                    rebooted = not guest.started_again(after).wrong
                except GuestSilent:
                    rebooted = False
        state.unlink()
        return True, after.faults(before), rebooted
