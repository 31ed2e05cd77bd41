"""What each QEMU release does with an incoming register list, read from qemu.toml.

Knows the sets of facts and which of them a release is under; refuses to know any list. A version
rule is unavoidable here: a QEMU that is not at hand cannot be asked how it would fail.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from armferry.facts.release import qemu_release
from armferry.facts.tables import Basis, basis, table
from armferry.registers import Accelerator, describe

__all__ = [
    "Abort",
    "MissingRule",
    "QemuRules",
    "applies",
    "is_device_subsection",
    "is_reset_content",
    "known_device_subsections",
    "knows_device_subsection",
    "means_unused",
    "qemu_bases",
    "qemu_rules",
    "tcg_ignores_writes",
]


@dataclass(frozen=True, slots=True)
class Abort:
    """A subsection that aborts QEMU on a CPU that does not send it itself, and what it prints."""

    subsection: str
    message: str


@dataclass(frozen=True, slots=True)
class MissingRule:
    """A register that QEMU itself lets be missing.

    On either end; or on the destination only, and only while the value & `mask` is `expected`.
    """

    either_end: bool
    mask: int = 0
    expected: int = 0

    def lets_drop(self, value: int) -> bool:
        """Whether the register may come with `value` where the destination has none."""
        return self.either_end or value & self.mask == self.expected


@dataclass(frozen=True, slots=True)
class QemuRules:
    """How one release loads the cpu section; the fields are explained in qemu.toml.

    `tolerances` maps a register to the rule compiled in for it; `subsections` are the names below
    `cpu` that the release knows; `put_failure` is how the release ends itself when KVM refuses a
    value, empty where the load just fails.
    """

    name: str
    refuses_longer: bool
    names_registers: bool
    stops_at_own_end: bool
    last_register_decides: bool
    empty_slot_is_zero: bool
    unknown_subsection: str
    device_error_on_own_line: bool
    tolerances: Mapping[tuple[int, Accelerator], MissingRule]
    subsections: frozenset[str]
    aborts: tuple[Abort, ...]
    put_failure: str
    basis: Basis

    def tolerance(self, index: int, accelerator: Accelerator) -> MissingRule | None:
        """The rule compiled in for a register, None when there is none."""
        return self.tolerances.get((index, accelerator))

    def tolerates_missing(self, index: int, value: int, accelerator: Accelerator) -> bool:
        """Whether a register that comes with `value` may be missing on the destination."""
        rule = self.tolerance(index, accelerator)
        return rule is not None and rule.lets_drop(value)

    def considered(
        self, incoming: Mapping[int, int], own: Iterable[int], accelerator: Accelerator
    ) -> dict[int, int]:
        """What comes without what the release leaves out unseen, when `own` is what it has."""
        listed = frozenset(own)
        return {
            index: value
            for index, value in incoming.items()
            if index in listed
            or not (
                self.tolerates_missing(index, value, accelerator)
                or (self.stops_at_own_end and index > max(listed, default=0))
            )
        }


@cache
def qemu_rules(version: str) -> QemuRules:
    """The rules of the QEMU called `version`: "10.0.13", "11.1". Raises UnknownQemuVersion."""
    data = table("qemu")
    load = [one for one in data["load"] if applies(one, version)][-1]
    failures = [one["message"] for one in data["put-failure"] if applies(one, version)]
    return QemuRules(
        name=load["name"],
        refuses_longer=load["refuses-longer"],
        names_registers=load["names-registers"],
        stops_at_own_end=load["stops-at-own-end"],
        last_register_decides=load["last-register-decides"],
        empty_slot_is_zero=load["empty-slot"] == "zero",
        unknown_subsection=load["unknown-subsection"],
        device_error_on_own_line=load["device-error-on-own-line"],
        tolerances={
            (int(one["register"], 16), Accelerator(accelerator)): _missing(one)
            for one in data["tolerance"]
            if applies(one, version)
            for accelerator in one["accelerators"]
        },
        subsections=frozenset(
            name for name, one in _subsections()["known"].items() if applies(one, version)
        ),
        aborts=tuple(
            Abort(one["subsection"], one["message"])
            for one in data["abort"]
            if applies(one, version)
        ),
        put_failure=failures[-1] if failures else "",
        basis=basis(load),
    )


def is_reset_content(subsection: str, content: bytes) -> bool:
    """Whether a subsection of cpu holds what it does in a guest that never ran.

    False too where no such guest sends it, so that what it holds after reset is not known.
    """
    reset = _subsections()["known"].get(subsection, {}).get("reset")
    return reset is not None and content == bytes([reset]) * len(content)


def knows_device_subsection(version: str, name: str) -> bool | None:
    """Whether a release reads a subsection of a section other than cpu; None for one not measured.

    Raises UnknownQemuVersion.
    """
    row = _device_subsections()["known"].get(name)
    return None if row is None else applies(row, version)


def known_device_subsections(version: str) -> frozenset[str]:
    """The measured subsections of sections other than cpu that a release reads.

    Raises UnknownQemuVersion.
    """
    known = _device_subsections()["known"]
    return frozenset(name for name, row in known.items() if applies(row, version))


def is_device_subsection(name: str) -> bool:
    """Whether any measured release has a subsection of a section other than cpu by that name."""
    return name in _device_subsections()["known"]


def means_unused(subsection: str, content: bytes) -> bool:
    """Whether a subsection of a section other than cpu holds nothing that a guest uses."""
    row = _device_subsections()["known"].get(subsection, {})
    return row.get("unused") == "zero" and not any(content)


def tcg_ignores_writes(index: int) -> bool:
    """Whether TCG keeps its own value of a register whatever comes, and so refuses another."""
    register = describe(index)
    if register.name in _tcg("free"):
        return False
    return register.constant or register.name in _tcg("fixed")


def qemu_bases(version: str) -> Iterator[Basis]:
    """What every set of facts that the QEMU called `version` is under rests on."""
    data = table("qemu")
    yield qemu_rules(version).basis
    for one in (*data["tolerance"], *data["abort"], *data["put-failure"]):
        if applies(one, version):
            yield basis(one)
    yield basis(data["tcg"])
    yield basis(_subsections())
    yield basis(_device_subsections())


def applies(row: Mapping[str, Any], version: str) -> bool:
    """Whether a release is one of those from `first` on, and before `before` where that is said."""
    major, minor, micro = qemu_release(version)
    number = (major, minor, max(micro, 0))  # one on its way has what it will have
    if number < qemu_release(row["first"]):
        return False
    return "before" not in row or number < qemu_release(row["before"])


def _missing(row: Mapping[str, str]) -> MissingRule:
    if row["missing"] == "either":
        return MissingRule(either_end=True)
    return MissingRule(
        either_end=False, mask=int(row["mask"], 16), expected=int(row["expected"], 16)
    )


def _device_subsections() -> Mapping[str, Any]:
    found: Mapping[str, Any] = table("device_subsections")["subsections"]
    return found


def _subsections() -> Mapping[str, Any]:
    found: Mapping[str, Any] = table("subsections")["subsections"]
    return found


@cache
def _tcg(key: str) -> frozenset[str]:
    return frozenset(table("qemu")["tcg"][key])
