"""What a host has for carrying guests, and what it lacks: read, never changed.

Knows where things are on a Linux host (kernel, /dev/kvm, QEMU, libvirt, AppArmor, SELinux); what
it cannot see it says nothing about. Each finding stands alone and names what to do.
"""

import enum
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from armferry.errors import ArmferryError, unforeseen
from armferry.hosts.fingerprints.kvm.hardware import CORES, kinds_of_cores
from armferry.hosts.libvirt.hook_install import HOOKS_FOLDER, installed_carrier
from armferry.hosts.libvirt.state_folder import kinds_of_domains, other_hosts, stored
from armferry.hosts.program import ProgramFault, answer_of
from armferry.registers.midr import identify, processor_list
from armferry.stream.save_image import Compression

__all__ = ["Grade", "HostFinding", "check_host"]

_PROGRAM_LIMIT = 20.0
_DAEMONS = ("virtqemud", "libvirtd")
_SBIN = ":/usr/sbin:/sbin"


class Grade(enum.Enum):
    """How a finding is meant."""

    GOOD = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class HostFinding:
    """One thing: what it is, how it stands, what was found, what to do (empty: nothing)."""

    what: str
    grade: Grade
    found: str
    hint: str = ""


def check_host(state: Path, root: Path = Path("/")) -> tuple[HostFinding, ...]:
    """Every finding on the host whose files are below `root`; `state` is armferry's folder."""
    checks: tuple[tuple[str, Callable[[], Iterable[HostFinding]]], ...] = (
        ("kernel", _kernel),
        ("KVM", lambda: _kvm(root)),
        ("cores", lambda: _cores(root)),
        ("QEMU", _qemus),
        ("libvirt", _libvirt),
        ("domains", _domains),
        ("hook", lambda: _hook(root)),
        ("fingerprints", lambda: _fingerprints(state)),
        ("save images", _programs),
        ("confinement", lambda: _confinement(root)),
    )
    findings: list[HostFinding] = []
    for what, check in checks:
        try:
            findings += check()
        except ArmferryError as fault:
            findings.append(HostFinding(what, Grade.MISSING, str(fault).splitlines()[0]))
        except Exception as fault:  # one thing that cannot be found out hides none of the others
            findings.append(HostFinding(what, Grade.WARNING, unforeseen(fault), "please report it"))
    return tuple(findings)


def _kernel() -> Iterator[HostFinding]:
    about = os.uname()
    yield HostFinding("kernel", Grade.GOOD, f"Linux {about.release}, {about.machine}")


def _kvm(root: Path) -> Iterator[HostFinding]:
    device = root / "dev/kvm"
    if platform.machine() != "aarch64":
        yield HostFinding("KVM", Grade.WARNING, "not an Arm host: its Arm guests run under TCG")
    elif not device.exists():
        yield HostFinding("KVM", Grade.MISSING, f"no {device}", "load the kvm module; boot at EL2")
    elif not os.access(device, os.R_OK | os.W_OK):
        yield HostFinding(
            "KVM", Grade.MISSING, f"{device} is not yours to use", "run as root or in group kvm"
        )
    else:
        yield HostFinding("KVM", Grade.GOOD, str(device))


def _cores(root: Path) -> Iterator[HostFinding]:
    """KVM runs a guest on one kind of core; on others it ends with an error at a later time."""
    kinds = kinds_of_cores(root / CORES.relative_to("/"))
    if kinds is None:
        return
    names = [f"{identify(midr).text} ({processor_list(one)})" for midr, one in kinds.items()]
    if len(kinds) == 1:
        yield HostFinding("cores", Grade.GOOD, f"all alike: {names[0]}")
        return
    lists = " or ".join(f"taskset --cpu-list {processor_list(one)}" for one in kinds.values())
    yield HostFinding(
        "cores",
        Grade.WARNING,
        f"{len(kinds)} kinds: {', '.join(names)}",
        f"start each QEMU, and armferry fingerprint, on one kind: {lists}",
    )


def _qemus() -> Iterator[HostFinding]:
    # what starts a QEMU is imported when one is asked
    from armferry.hosts.fingerprints.probe import find_qemu, qemu_version

    programs = dict.fromkeys(Path(kind.emulator) for kind in kinds_of_domains().kinds)
    try:
        programs[find_qemu(None)] = None
    except ArmferryError as fault:
        if not programs:
            raise
        yield HostFinding("QEMU", Grade.WARNING, str(fault))
    for program in programs:
        try:
            about = qemu_version(program)
        except ArmferryError as fault:
            yield HostFinding("QEMU", Grade.MISSING, str(fault).splitlines()[0])
            continue
        package = f" ({about.package})" if about.package else ""
        yield HostFinding("QEMU", Grade.GOOD, f"{about.version}{package}, {program}")


def _libvirt() -> Iterator[HostFinding]:
    path = os.environ.get("PATH", "") + _SBIN
    daemon = next(filter(None, (shutil.which(name, path=path) for name in _DAEMONS)), None)
    if daemon is None:
        yield HostFinding("libvirt", Grade.WARNING, "none of its daemons is installed")
        return
    try:
        said = answer_of(daemon, ["--version"], limit=_PROGRAM_LIMIT).out
    except ProgramFault as fault:
        yield HostFinding("libvirt", Grade.WARNING, str(fault), f"run {daemon} --version")
        return
    found = re.search(r"([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})", said)
    if found is None:
        yield HostFinding("libvirt", Grade.WARNING, f"{daemon} --version says nothing of use")
    elif (int(found[1]), int(found[2])) < (6, 5):
        yield HostFinding("libvirt", Grade.WARNING, f"{found[0]}, {daemon}", "qemu.d needs 6.5")
    else:
        yield HostFinding("libvirt", Grade.GOOD, f"{found[0]}, {daemon}")


def _domains() -> Iterator[HostFinding]:
    for path, why in kinds_of_domains().unreadable.items():
        yield HostFinding("domains", Grade.WARNING, f"{path} cannot be read: {why}")


def _hook(root: Path) -> Iterator[HostFinding]:
    folder = root / HOOKS_FOLDER.relative_to("/")
    moves = installed_carrier(folder)
    if moves is None:
        yield HostFinding("hook", Grade.WARNING, "not installed", "armferry hook install")
    else:
        yield HostFinding("hook", Grade.GOOD, f"installed for {moves} moves")
    if (folder / "qemu").exists():
        yield HostFinding(
            "hook", Grade.GOOD, f"{folder}/qemu is there too, runs first, is left alone"
        )


def _fingerprints(state: Path) -> Iterator[HostFinding]:
    if not state.exists():
        yield HostFinding(
            "fingerprints", Grade.WARNING, f"no {state}", "armferry host fingerprint, as root"
        )
        return
    if not os.access(state, os.W_OK):
        yield HostFinding(
            "fingerprints", Grade.WARNING, f"{state} is root's to write", "run as root to refresh"
        )
    own = stored(state)
    stale = sum(not one.fresh for one in own)
    missing = len(set(kinds_of_domains().kinds) - {one.kind for one in own})
    words = f"{len(own)} of this host, {stale} stale, {missing} kinds of domains without"
    grade = Grade.WARNING if stale or missing or not own else Grade.GOOD
    hint = "" if grade is Grade.GOOD else "armferry host fingerprint"
    yield HostFinding("fingerprints", grade, words, hint)
    names = ", ".join(other_hosts(state).guests)
    yield (
        HostFinding("fingerprints", Grade.GOOD, f"of other hosts: {names}")
        if names
        else HostFinding(
            "fingerprints",
            Grade.WARNING,
            "of no other host",
            f"copy their {state}/host to {state}/hosts/NAME: without, no migration is judged",
        )
    )


def _programs() -> Iterator[HostFinding]:
    needed = [Compression.LZOP.word]
    if importlib.util.find_spec("zstandard") is None:
        needed.append(Compression.ZSTD.word)
    missing = [name for name in needed if shutil.which(name) is None]
    if not missing:
        yield HostFinding("save images", Grade.GOOD, "every compression of libvirt")
    for name in missing:
        yield HostFinding(
            "save images", Grade.WARNING, f"no {name}", f"apt-get install {name}, if used"
        )


def _confinement(root: Path) -> Iterator[HostFinding]:
    apparmor = root / "sys/module/apparmor/parameters/enabled"
    profiles = (root / f"etc/apparmor.d/usr.sbin.{name}" for name in _DAEMONS)
    confined = [path.name.rpartition(".")[2] for path in profiles if path.exists()]
    if _says(apparmor) == "Y" and confined:
        yield HostFinding(
            "AppArmor",
            Grade.WARNING,
            f"confines {' and '.join(confined)}, and so the hooks",
            "see that the profile lets python3 read armferry and /var/lib/armferry; "
            "denials are in the kernel's log",
        )
    enforcing = _says(root / "sys/fs/selinux/enforce")
    if enforcing == "1":
        yield HostFinding(
            "SELinux",
            Grade.WARNING,
            "enforcing",
            "restorecon -R /etc/libvirt/hooks; denials are in audit.log",
        )
    if not enforcing and _says(apparmor) != "Y":
        yield HostFinding("confinement", Grade.GOOD, "neither AppArmor nor SELinux is on")


def _says(path: Path) -> str:
    """The first line of a small file, empty when it is not there."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
