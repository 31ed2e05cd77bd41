"""A guest born as on another host: which rules make this kernel present that host's registers.

Pure: two register lists at reset in, rules and obstacles out. What this kernel has beyond the other
host's list is hidden, what the other host says of itself is set after each vCPU initialisation,
and what this kernel lacks is carried. Whether the kernel takes the settings is for `trial`.

Hidden is not absent: a guest can still write a hidden register that the architecture gives it, and
can still call a firmware service. So services that the other host lacks are turned off although
their registers are hidden, and registers that a guest may write are watched.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from armferry.boundary.essential import essential
from armferry.boundary.rules import Rule, carry, hide, pin, watch
from armferry.facts.release import release_key
from armferry.registers import Accelerator, Kind, is_constant, kind, name

__all__ = ["Birth", "Obstacle", "birth"]

_STANDARD = 0x6030_0000_0016_0000
_STANDARD_HYPERVISOR = 0x6030_0000_0016_0001
_VENDOR = 0x6030_0000_0016_0002
_VENDOR_2 = 0x6030_0000_0016_0003

_TRNG_SINCE, _VENDOR_SINCE = "5.12", "5.13"
"""Linux: kvm_trng_call() (5.12), the vendor UID and PTP call (5.13);
arch/arm64/kvm/hypercalls.c. Stolen time (STANDARD_HYPERVISOR bit 0) is there since 5.5."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why this kernel cannot present the other host: a register and what stands in the way."""

    index: int
    why: str

    def __str__(self) -> str:
        return f"{name(self.index, Accelerator.KVM)} ({self.index:#018x}): {self.why}"


@dataclass(frozen=True, slots=True)
class Birth:
    """The rules, and the obstacles that were seen without asking the kernel."""

    rules: tuple[Rule, ...]
    obstacles: tuple[Obstacle, ...]


def birth(own: Mapping[int, int], other: Mapping[int, int], other_kernel: str = "") -> Birth:
    """How a host with the list `own` presents `other`; both as after reset.

    `other_kernel` is the other host's kernel release, empty where it is unknown.
    """
    rules: list[Rule] = []
    extra = sorted(own.keys() - other.keys())
    obstacles = [
        Obstacle(index, "QEMU and the guest need it, so it cannot be hidden")
        for index in essential(extra)
    ]
    obstacles += [
        Obstacle(index, "QEMU reads it by itself when it starts, so it cannot be hidden")
        for index in extra
        if kind(index, Accelerator.KVM) is Kind.IDENTIFICATION
    ]
    for index in extra:
        rules.append(hide(index))
        if _guest_writes(index):
            rules.append(watch(index, own[index]))
    services, unknown = _services(own, other, other_kernel)
    rules += services
    obstacles += unknown
    for index in sorted(other.keys() - own.keys()):
        if other[index] and (_is_firmware(index) or kind(index) is Kind.IDENTIFICATION):
            obstacles.append(
                Obstacle(index, f"this kernel lacks it, and the other host has {other[index]:#x}")
            )
        else:
            rules.append(carry(index, other[index]))
    rules += [
        pin(index, other[index], own[index] ^ other[index])
        for index in sorted(own.keys() & other.keys())
        if own[index] != other[index] and (is_constant(index) or _is_firmware(index))
    ]
    return Birth(tuple(rules), tuple(obstacles))


def _is_firmware(index: int) -> bool:
    return kind(index, Accelerator.KVM).is_firmware


def _guest_writes(index: int) -> bool:
    """Whether a guest could leave something in a register that it was not given."""
    return not (
        is_constant(index)
        or _is_firmware(index)
        or kind(index, Accelerator.KVM) is Kind.RUNNING_COUNTER
    )


def _services(
    own: Mapping[int, int], other: Mapping[int, int], kernel: str
) -> tuple[list[Rule], list[Obstacle]]:
    """The firmware services of a host whose kernel has no bitmap of them, where this one has."""
    rules: list[Rule] = []
    obstacles: list[Obstacle] = []
    for index in (_STANDARD, _STANDARD_HYPERVISOR, _VENDOR, _VENDOR_2):
        if index not in own or index in other:
            continue
        offered = _offered(index, kernel)
        if offered is None:
            obstacles.append(
                Obstacle(index, "the other host's kernel is unknown, and so are its services")
            )
        elif own[index] != offered:
            rules.append(pin(index, offered, own[index] ^ offered))
    return rules, obstacles


def _offered(index: int, kernel: str) -> int | None:
    """The services of a kernel without the bitmap `index`; None where its release is unknown."""
    if index == _VENDOR_2:
        return 0
    if not kernel:
        return None
    if index == _STANDARD_HYPERVISOR:
        return 1
    since = _TRNG_SINCE if index == _STANDARD else _VENDOR_SINCE
    has = release_key(kernel) >= release_key(since)
    return (1 if index == _STANDARD else 3) if has else 0
