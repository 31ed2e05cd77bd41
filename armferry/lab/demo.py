"""`make demo`: a running guest crosses between two QEMUs that refuse each other, and back.

Every line of the story is the output of a real program: QEMU 10.0.2 and 10.0.13 of the rig, and
the `armferry` command. The demo ends with an error as soon as one of them does not do its part.
"""

import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from armferry.errors import ArmferryError, EnvironmentFault
from armferry.hosts.qmp.process import LoadResult, MachineSpec, QemuProcess
from armferry.lab.guest import GuestLog, build
from armferry.lab.qemu_install import InstalledQemu, install, resolve

__all__ = ["main"]

_TICKS = 5
_TICK_LIMIT = 60.0
_MACHINE = "virt-10.0"
_CPU = "cortex-a57"


class StoryBroken(EnvironmentFault):
    """A step of the demo did not go as the story has it."""


def main() -> int:
    """Tells the story; 0 when every step of it came true."""
    try:
        _tell()
    except ArmferryError as error:
        print(f"armferry demo: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _tell() -> None:
    old, new = install(resolve("bookworm-backports")), install(resolve("trixie"))
    spec = MachineSpec(machine=_MACHINE, cpu=_CPU, smp=2, kernel=build())
    with tempfile.TemporaryDirectory(prefix="armferry-demo-") as folder:
        story = _Story(Path(folder), spec)
        story.fingerprint(old)
        story.fingerprint(new)
        story.start(old)
        story.cross(old, new)
        story.cross(new, old)
        story.end()


class _Story:
    """The guest's way, one file and one serial log after the other."""

    def __init__(self, folder: Path, spec: MachineSpec) -> None:
        self._folder = folder
        self._spec = spec
        self._serial = folder / "serial.log"
        self._saved = folder / "guest.state"
        self._step = 0

    def fingerprint(self, qemu: InstalledQemu) -> None:
        self._chapter(f"What would QEMU {qemu.version} accept? Ask it")
        self._armferry(
            *("fingerprint", "qemu", "--machine", _MACHINE, "--cpu", _CPU, "--accel", "tcg"),
            *("--smp", str(self._spec.smp), "--qemu", str(qemu.launcher)),
            *("-o", self._host(qemu)),
            expected=0,
        )

    def start(self, qemu: InstalledQemu) -> None:
        self._chapter(f"A guest runs in QEMU {qemu.version}, counts, and is saved")
        with QemuProcess(qemu, self._spec, serial=self._serial) as machine:
            self._watch(0)
            machine.save(self._saved)
            machine.quit()
        self._quote()

    def cross(self, here: InstalledQemu, there: InstalledQemu) -> None:
        self._chapter(f"QEMU {there.version} refuses what QEMU {here.version} saved")
        refused = self._load(there, self._saved)
        if refused.loaded:
            raise StoryBroken(f"QEMU {there.version} loaded the file: there is nothing to mend")
        for said in refused.stderr.strip().splitlines():
            print(f"    {said.partition(': ')[2]}")
        self._chapter("armferry says why, by register name")
        self._armferry("check", self._saved.name, "--to", self._host(there), expected=1)
        self._chapter("armferry rewrites it")
        crossed = self._folder / f"guest.for-{there.version}"
        self._armferry(
            "ferry", self._saved.name, crossed.name, "--to", self._host(there), expected=0
        )
        self._chapter(f"QEMU {there.version} resumes the guest where it was")
        last = GuestLog.read(self._serial).last
        with QemuProcess(there, self._spec, serial=self._serial, incoming=True) as machine:
            loaded = machine.load(crossed)
            if not loaded.loaded:
                raise StoryBroken(f"QEMU {there.version} refuses it still: {loaded.stderr}")
            self._watch(last)
            machine.save(self._saved)
            machine.quit()
        self._quote()

    def end(self) -> None:
        log = GuestLog.read(self._serial)
        faults = log.faults()
        if faults:
            raise StoryBroken("the guest lost something: " + "; ".join(faults))
        print(
            f"\nThe guest counted from {log.first} to {log.last} across three QEMU processes: "
            "no tick missing, nothing lost\nin memory, registers or system registers."
        )

    def _load(self, qemu: InstalledQemu, path: Path) -> LoadResult:
        with QemuProcess(qemu, self._spec, paused=True, incoming=True) as machine:
            return machine.load(path)

    def _watch(self, last: int) -> None:
        """Waits until the guest has counted on from `last`."""
        deadline = time.monotonic() + _TICK_LIMIT
        while GuestLog.read(self._serial).last < last + _TICKS:
            if time.monotonic() > deadline:
                raise StoryBroken(f"the guest did not go on within {_TICK_LIMIT:g} s")
            time.sleep(0.1)

    def _quote(self) -> None:
        for said in self._serial.read_text().splitlines()[-2:]:
            print(f"    {said}")

    def _chapter(self, title: str) -> None:
        self._step += 1
        print(f"\n{self._step}. {title}.\n", flush=True)

    def _host(self, qemu: InstalledQemu) -> str:
        return f"qemu-{qemu.version}.json"

    def _armferry(self, *words: str, expected: int) -> None:
        print(f"    $ armferry {shlex.join(words)}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "armferry", *words],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        for said in (done.stdout + done.stderr).splitlines():
            print(f"    {said}")
        if done.returncode != expected:
            raise StoryBroken(f"armferry ended with {done.returncode}, not {expected}")


if __name__ == "__main__":
    sys.exit(main())
