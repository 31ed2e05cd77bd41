"""`make demo`: a running guest crosses between two QEMUs that refuse each other, and back.

Every line of the story is the output of a real program: QEMU 10.0.2 and 10.0.13 of the rig, and
the `armferry` command; long lines are wrapped, nothing is left out but what was shown before. The
demo ends with an error as soon as one of them does not do its part. Its files stay in the folder
that it is given, for commands to be typed there.
"""

import argparse
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
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
_WIDTH = 96
_INDENT = "    "
_REPEATED = 3
"""Lines shown of an answer that is nearly the same as one before."""
_OWN_FILES = (
    "serial.log",
    "guest.state",
    "guest.f*-*",
    "qemu-*.json",
    "guest.elf",
)


class StoryBroken(EnvironmentFault):
    """A step of the demo did not go as the story has it."""


def main() -> int:
    """Tells the story; 0 when every step of it came true."""
    parser = argparse.ArgumentParser(prog="armferry demo", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("demo"))
    arguments = parser.parse_args()
    try:
        _tell(arguments.folder)
    except ArmferryError as error:
        print(f"armferry demo: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"armferry demo: {error.filename}: {error.strerror}", file=sys.stderr)
        return EnvironmentFault.exit_code
    return 0


def _tell(folder: Path) -> None:
    old, new = install(resolve("bookworm-backports")), install(resolve("trixie"))
    folder.mkdir(exist_ok=True)
    for pattern in _OWN_FILES:
        for left in folder.glob(pattern):
            left.unlink()
    kernel = folder / "guest.elf"
    kernel.write_bytes(build().read_bytes())
    story = _Story(folder, MachineSpec(machine=_MACHINE, cpu=_CPU, smp=2, kernel=kernel))
    story.fingerprint(old)
    story.fingerprint(new)
    story.start(old)
    story.cross(old, new)
    story.cross(new, old, again=True)
    story.end(old, new)


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
            *("--smp", str(self._spec.smp), "--qemu", qemu.version, "-o", self._host(qemu)),
            expected=0,
        )

    def start(self, qemu: InstalledQemu) -> None:
        self._chapter(f"A guest runs in QEMU {qemu.version}, counts, and is saved")
        with QemuProcess(qemu, self._spec, serial=self._serial) as machine:
            self._watch(0)
            machine.save(self._saved)
            machine.quit()
        self._quote()

    def cross(self, here: InstalledQemu, there: InstalledQemu, *, again: bool = False) -> None:
        self._chapter(f"QEMU {there.version} refuses what QEMU {here.version} saved")
        refused = self._load(there, self._saved)
        if refused.loaded:
            raise StoryBroken(f"QEMU {there.version} loaded the file: there is nothing to show")
        _say(said.partition(": ")[2] for said in refused.stderr.strip().splitlines())
        saved = self._keep(here)
        self._chapter("armferry says why, by register name")
        self._armferry("check", saved.name, "--to", self._host(there), expected=1, short=again)
        self._chapter("armferry rewrites it")
        crossed = self._folder / f"guest.for-{there.version}"
        words = ("ferry", saved.name, crossed.name, "--to", self._host(there))
        self._armferry(*words, expected=0, short=True)
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

    def end(self, old: InstalledQemu, new: InstalledQemu) -> None:
        log = GuestLog.read(self._serial)
        faults = log.faults()
        if faults:
            raise StoryBroken("the guest lost something: " + "; ".join(faults))
        print(
            f"\nThe guest counted from {log.first} to {log.last} across three QEMU processes: no "
            "tick missing, nothing lost\nin memory, registers or system registers."
        )
        print("\nNow you: its files are here, and these commands work there.\n")
        programs = Path(sys.executable).parent.resolve()
        machine = f"-M {_MACHINE} -cpu {_CPU} -smp {self._spec.smp} -m {self._spec.memory}"
        quoted = [shlex.quote(str(p)) for p in (self._folder.resolve(), programs, new.launcher)]
        for command in (
            f"cd {quoted[0]}",
            f"export PATH={quoted[1]}:$PATH",
            f"export ARMFERRY_QEMU={quoted[2]}",
            f"armferry check guest.from-{old.version} --to {self._host(new)}",
            f"armferry inspect guest.for-{new.version}",
            f"armferry-qemu {machine} -display none -nodefaults \\",
            f"    -kernel guest.elf -serial stdio -incoming file:guest.from-{old.version}",
        ):
            print(f"{_INDENT}{command}")
        print("\nThe last one lets the new QEMU load the old one's file as it is: Ctrl-C ends it.")

    def _keep(self, qemu: InstalledQemu) -> Path:
        """The state that a QEMU saved, under a name that says so."""
        kept = self._folder / f"guest.from-{qemu.version}"
        kept.write_bytes(self._saved.read_bytes())
        return kept

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
        _say(self._serial.read_text().splitlines()[-2:])

    def _chapter(self, title: str) -> None:
        self._step += 1
        print(f"\n{self._step}. {title}.\n", flush=True)

    def _host(self, qemu: InstalledQemu) -> str:
        return f"qemu-{qemu.version}.json"

    def _armferry(self, *words: str, expected: int, short: bool = False) -> None:
        _say([f"$ armferry {shlex.join(words)}"])
        done = subprocess.run(
            [sys.executable, "-m", "armferry", *words],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        said = (done.stdout + done.stderr).splitlines()
        if short and len(said) > _REPEATED + 1:
            said = [said[0], "...", *said[-_REPEATED:]]
        _say(said)
        if done.returncode != expected:
            raise StoryBroken(f"armferry ended with {done.returncode}, not {expected}")


def _say(lines: Iterable[str]) -> None:
    """Lines of a program, indented, none wider than a page."""
    for line in lines:
        wrapped = textwrap.wrap(
            line,
            _WIDTH,
            initial_indent=_INDENT,
            subsequent_indent=_INDENT * 3,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        )
        print("\n".join(wrapped) if wrapped else "")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
