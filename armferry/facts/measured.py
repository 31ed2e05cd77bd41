"""Up to where facts were measured: what a verdict must say of anything newer, or older.

Knows the oldest and the newest release of QEMU, series of Linux and version of the machine type
virt that every set of facts was measured with. What is in between counts as measured.
"""

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from armferry.facts.kvm import kvm_basis
from armferry.facts.machines import machines_basis, newest_virt, oldest_virt
from armferry.facts.qemu import qemu_bases
from armferry.facts.release import qemu_release, release_key, series_of

__all__ = ["FactSubject", "Unmeasured", "measured_from", "measured_to", "unmeasured"]

_VIRT = re.compile(r"virt-([0-9]{1,4}\.[0-9]{1,4})")


class FactSubject(enum.Enum):
    """What facts are about. The value is the word to print."""

    QEMU = "QEMU"
    KERNEL = "Linux"
    MACHINE = "machine type"


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A release that is older or newer than all that the facts were measured with.

    `limit` is the oldest or newest measured one; what is known of it is taken for `release`.
    """

    subject: FactSubject
    release: str
    limit: str
    newer: bool

    def __str__(self) -> str:
        where = "beyond" if self.newer else "before"
        return f"{self.subject.value} {self.release}: not measured {where} {self.limit}"


def measured_to(subject: FactSubject) -> str:
    """The newest release that every set of facts was measured with: "11.1.3", "7.3"."""
    return _range(subject)[1]


def measured_from(subject: FactSubject) -> str:
    """The oldest release that every set of facts was measured with: "5.2.0", "5.10"."""
    return _range(subject)[0]


def unmeasured(subject: FactSubject, release: str) -> Unmeasured | None:
    """Says that `release` is beyond what was measured; None where it is not, or is empty.

    A kernel counts by its series. A machine type that is no version of virt is never beyond.
    Raises UnknownQemuVersion for a version of QEMU that is none.
    """
    key = _KEYS[subject]
    if not release or (subject is FactSubject.MACHINE and not _VIRT.fullmatch(release)):
        return None
    oldest, newest = _range(subject)
    if key(release) > key(newest):
        return Unmeasured(subject, release, newest, newer=True)
    if key(release) < key(oldest):
        return Unmeasured(subject, release, oldest, newer=False)
    return None


@cache
def _range(subject: FactSubject) -> tuple[str, str]:
    match subject:
        case FactSubject.QEMU:
            everywhere = [one for one in machines_basis().measured if _measured_qemu(one)]
            return everywhere[0], everywhere[-1]
        case FactSubject.KERNEL:
            series = kvm_basis().measured
            return series[0], series[-1]
        case FactSubject.MACHINE:
            return oldest_virt(), newest_virt()[measured_to(FactSubject.QEMU)]


def _measured_qemu(version: str) -> bool:
    """Whether every set of facts that a QEMU is under was measured with it."""
    return all(version in one.measured for one in qemu_bases(version))


def _kernel_key(release: str) -> tuple[int, ...]:
    return release_key(series_of(release))


def _machine_key(machine: str) -> tuple[int, ...]:
    return release_key(machine.removeprefix("virt-"))


_KEYS: dict[FactSubject, Callable[[str], tuple[int, ...]]] = {
    FactSubject.QEMU: qemu_release,
    FactSubject.KERNEL: _kernel_key,
    FactSubject.MACHINE: _machine_key,
}
