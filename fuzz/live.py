"""`python -m fuzz.live [--moves N] [--minutes M] [--wrapped]`: real guests, processes killed.

Each move goes from one QEMU to another of a release that refuses the first one's registers, through
a gateway in a process of its own, or with both QEMUs wrapped (`--wrapped`). At a random moment of
it the gateway, the source's QEMU, the destination's or the process beside one of them is killed
(SIGKILL), or none. The destination is held (-S) until the move's manager has seen the source end,
as libvirt does it: without that, two QEMUs whose connection breaks behind the last byte may both
run, whatever is between them.

What must hold: never do both run the guest; while both QEMUs live, exactly one does or can be let;
it has lost nothing. Prints the counts; 1 when anything was found. Needs the rig (`make rig`).
"""

import argparse
import contextlib
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from armferry.gateway import Dialer, Gateway, Judge, Limits, Listener, parse_address
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.probe import fingerprint_of_qemu
from armferry.hosts.qmp.process import MachineSpec, QemuProcess, QemuProcessError
from armferry.lab.guest import GuestLog
from armferry.lab.guest.build import build
from armferry.lab.qemu_install import installed
from armferry.lab.releases import release_named
from armferry.policy import Policy, aggregate
from armferry.registers import Accelerator

VICTIMS = ("gateway", "gateway", "source", "destination", "nobody")
BESIDE_SOURCE, BESIDE_DESTINATION = "beside source", "beside destination"
WRAPPED_VICTIMS = (BESIDE_SOURCE, BESIDE_DESTINATION, "source", "destination", "nobody")
BANDWIDTH = 200 << 20
LIMIT = 120.0
RELEASES = ("10.0.2", "10.0.13")
ENDED = ("completed", "failed", "cancelled")


class Rig:
    """What all moves share: two releases, what each accepts, the guest and its serial line."""

    def __init__(self, folder: Path, *, wrapped: bool) -> None:
        self.folder = folder
        self.wrapped = wrapped
        self.serial = folder / "serial"
        self.spec = MachineSpec(machine="virt-10.0", cpu="cortex-a57", smp=2, kernel=build())
        self._started = 0
        self.judges: dict[str, Judge] = {}
        self.launchers: dict[str, Path] = {}
        for name in RELEASES:
            found = installed(release_named(name))
            if found is None:
                raise SystemExit(f"QEMU {name} is not installed: make rig")
            self.launchers[name] = self._wrapped(name, found.launcher)
            if wrapped:
                continue
            plain = MachineSpec(machine="virt-10.0", cpu="cortex-a57", smp=2)
            host = fingerprint_of_qemu(found.launcher, plain)
            self.judges[name] = Judge(end_of(host), _policy)

    def _wrapped(self, name: str, launcher: Path) -> Path:
        """The program to start: QEMU, or a script that is the wrapped one."""
        if not self.wrapped:
            return launcher
        program = self.folder / f"armferry-qemu-{name}"
        words = shlex.join([sys.executable, "-m", "armferry.wrapper.start"])
        program.write_text(
            f'#!/bin/sh\nARMFERRY_QEMU={shlex.quote(str(launcher))} exec {words} "$@"\n'
        )
        program.chmod(0o755)
        return program

    def qemu(self, name: str, *, incoming: bool) -> QemuProcess:
        """A QEMU of that release; one that waits for a guest holds it."""
        self._started += 1
        spec = replace(self.spec, extra=("-name", f"live-{os.getpid()}-{self._started}"))
        return QemuProcess(
            self.launchers[name],
            spec,
            serial=self.serial,
            incoming=incoming,
            paused=incoming,
            time_limit=LIMIT,
        )

    def gateway(self, number: int, to: str) -> tuple[int, str]:
        """A gateway in a child: its process id and where it listens."""
        here, there = f"unix:{self.folder}/in-{number}", f"unix:{self.folder}/out-{number}"
        listener = Listener(parse_address(here))
        pid = os.fork()
        if not pid:
            gateway = Gateway(
                listener, Dialer(parse_address(there)), self.judges[to], limits=Limits(stall=60)
            )
            with contextlib.suppress(Exception):
                gateway.run()
            os._exit(0)
        return pid, here


def _policy(machine: str, accelerator: Accelerator) -> Policy:
    return aggregate(machine, accelerator)


def alive(machine: QemuProcess) -> bool:
    """Whether the QEMU runs at all."""
    return machine.exit_status is None


def state_of(machine: QemuProcess) -> str:
    """Its run state; `gone` for one that is not there."""
    try:
        return machine.status() if alive(machine) else "gone"
    except QemuProcessError:
        return "gone"


def beside(machine: QemuProcess) -> int:
    """The id of the process beside a wrapped QEMU: it has the same words."""
    name = machine.command[machine.command.index("-name") + 1].encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if b"armferry.wrapper" in words and name in words.split(b"\0"):
                return int(path.parent.name)
    raise SystemExit("a wrapped QEMU without a process beside it")


def ended(machine: QemuProcess) -> str:
    """How the source's migration ended, once it has; `gone` when the source has."""
    deadline = time.monotonic() + 5 * LIMIT  # a guest that dirties memory, on a busy machine
    while time.monotonic() < deadline:
        try:
            status = machine.execute("query-migrate").get("status", "")
        except QemuProcessError:
            return "gone"
        if status in ENDED:
            return str(status)
        time.sleep(0.01)
    return "endless"


def ticks_on(serial: Path, more: int = 2) -> str:
    """What is wrong with the guest, empty when it goes on and has lost nothing."""
    aim = GuestLog.read(serial).last + more
    deadline = time.monotonic() + LIMIT
    while GuestLog.read(serial).last < aim:
        if time.monotonic() > deadline:
            return "the guest stands still"
        time.sleep(0.05)
    faults = GuestLog.read(serial).faults()
    return f"the guest lost something: {faults}" if faults else ""


class Campaign:
    """Moves one guest to and fro; a guest that died with its host is started anew."""

    def __init__(self, rig: Rig, rng: random.Random) -> None:
        self._rig = rig
        self._rng = rng
        self._source: QemuProcess | None = None
        self._at = 0
        self._seconds = 1.0
        self.counts: Counter[str] = Counter()

    def close(self) -> None:
        """Ends the guest."""
        if self._source is not None:
            self._source.close()

    def start_anew(self) -> None:
        """Another guest: what became of this one is not to decide on the next moves."""
        self.close()
        self._source = None

    def move(self, number: int) -> str:
        """One move; what is wrong, empty when nothing is."""
        rig, rng = self._rig, self._rng
        if self._source is None:
            rig.serial.unlink(missing_ok=True)
            self._source = rig.qemu(RELEASES[self._at], incoming=False)
            ticks_on(rig.serial)
        source, to = self._source, RELEASES[1 - self._at]
        victim = rng.choice(WRAPPED_VICTIMS if rig.wrapped else VICTIMS)
        destination = rig.qemu(to, incoming=True)
        pids = {"source": source.pid, "destination": destination.pid}
        uri = f"unix:{rig.folder}/out-{number}"
        if rig.wrapped:
            pids |= {BESIDE_SOURCE: beside(source), BESIDE_DESTINATION: beside(destination)}
        else:
            pids["gateway"], uri = rig.gateway(number, to)
        began = time.monotonic()
        try:
            for machine in (source, destination):
                on = [{"capability": "return-path", "state": True}]
                machine.execute("migrate-set-capabilities", {"capabilities": on})
                machine.execute("migrate-set-parameters", {"max-bandwidth": BANDWIDTH})
            destination.execute("migrate-incoming", {"uri": f"unix:{rig.folder}/out-{number}"})
            source.execute("migrate", {"uri": uri})
            if victim != "nobody":
                time.sleep(rng.random() * self._seconds * 1.2)
                os.kill(pids[victim], signal.SIGKILL)
            how = ended(source)
            if victim == "nobody":
                self._seconds = time.monotonic() - began
            return self._judge(victim, how, source, destination)
        finally:
            if "gateway" in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids["gateway"], signal.SIGKILL)
                os.waitpid(pids["gateway"], 0)
            for end in ("in", "out"):
                (rig.folder / f"{end}-{number}").unlink(missing_ok=True)

    def _judge(self, victim: str, how: str, source: QemuProcess, destination: QemuProcess) -> str:
        """Looks at both sides, and goes on with the one that has the guest."""
        here, there = state_of(source), state_of(destination)
        self.counts[f"{victim}: source {how}"] += 1
        if there == "running":
            return f"the destination runs though nobody let it (source {here}, {how})"
        if victim == BESIDE_SOURCE and how == "gone":
            return self._without_monitor(source, destination)
        if how == "completed" and there == "gone" and not victim.endswith("destination"):
            return "the source gave the guest away and the destination has gone"
        if how == "completed" and there != "gone":
            if here == "running":
                return "the source runs on after it gave the guest away"
            if there not in ("paused", "prelaunch"):
                return f"the source gave the guest away and the destination is {there}"
            destination.cont()
            source.close()
            self._source, self._at = destination, 1 - self._at
            return ticks_on(self._rig.serial)
        destination.close()
        if here == "running":
            return ticks_on(self._rig.serial)
        if victim not in ("nobody", "gateway") and here in ("gone", "postmigrate"):
            source.close()  # the host that had the guest is gone, and the guest with it
            self._source = None
            return ""
        return f"nobody has the guest: source {here} ({how}), destination {there}"

    def _without_monitor(self, source: QemuProcess, destination: QemuProcess) -> str:
        """The process beside the source is gone: either side has the guest, the source goes on."""
        self._source = None
        if ended(destination) == "completed":
            source.close()  # nobody can ask it: it is ended before the other one is let
            destination.cont()
            self._source, self._at = destination, 1 - self._at
            return ticks_on(self._rig.serial)
        destination.close()
        try:
            return ticks_on(self._rig.serial)
        finally:
            source.close()


def main() -> int:
    """The moves that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=600.0, help="at most")
    parser.add_argument("--wrapped", action="store_true", help="armferry-qemu, and no gateway")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    found = 0
    with tempfile.TemporaryDirectory(prefix="armferry-live-") as name:
        deadline = time.monotonic() + 60 * arguments.minutes
        campaign = Campaign(
            Rig(Path(name), wrapped=arguments.wrapped), random.Random(arguments.seed)
        )
        try:
            for number in range(arguments.moves):
                if time.monotonic() > deadline:
                    break
                wrong = campaign.move(number)
                if wrong:
                    found += 1
                    print(f"FOUND in move {number}: {wrong}", flush=True)
                    campaign.start_anew()
        finally:
            campaign.close()
    print(f"{sum(campaign.counts.values())} moves: {dict(sorted(campaign.counts.items()))}")
    print(f"{found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
