"""What each QEMU release does with an incoming register list, as data.

Knows the rule sets of `stock.toml` and which of them a release is under; refuses to know any
list (`stock`). A version rule is unavoidable here: nobody can ask a QEMU how it would fail.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from armferry.errors import ArmferryError
from armferry.policy import NotOnBothEnds, OnlySourceIf, parse_tolerance
from armferry.registers import Accelerator, describe

__all__ = ["Deadly", "StockRules", "UnknownQemuVersion", "stock_rules", "tcg_keeps"]

_VERSION = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?")


class UnknownQemuVersion(ArmferryError):
    """A text that is no version of QEMU."""


@dataclass(frozen=True, slots=True)
class Deadly:
    """A subsection that makes QEMU end itself, and what it prints then."""

    subsection: str
    message: str


@dataclass(frozen=True, slots=True)
class StockRules:
    """How one release loads the cpu section; the fields are explained in stock.toml.

    `tolerances` maps an index to the rule compiled in for it; `subsections` are the names below
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
    tolerances: Mapping[tuple[int, Accelerator], NotOnBothEnds | OnlySourceIf]
    subsections: frozenset[str]
    deadly: tuple[Deadly, ...]
    put_failure: str
    source: str

    def tolerance(
        self, index: int, accelerator: Accelerator
    ) -> NotOnBothEnds | OnlySourceIf | None:
        """The rule compiled in for a register, None when there is none."""
        return self.tolerances.get((index, accelerator))

    def tolerates_missing(self, index: int, value: int, accelerator: Accelerator) -> bool:
        """Whether a register that comes with `value` may be missing on the destination."""
        rule = self.tolerance(index, accelerator)
        return isinstance(rule, NotOnBothEnds) or (
            rule is not None and value & rule.mask == rule.expected
        )

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
def stock_rules(version: str) -> StockRules:
    """The rules of the QEMU called `version`: "10.0.13", "11.1". Raises UnknownQemuVersion."""
    number = _number(version)
    data = _data()
    chosen = [rules for rules in data["rules"] if _number(rules["first"]) <= number][-1]
    return StockRules(
        name=chosen["name"],
        refuses_longer=chosen["refuses-longer"],
        names_registers=chosen["names-registers"],
        stops_at_own_end=chosen["stops-at-own-end"],
        last_register_decides=chosen["last-register-decides"],
        empty_slot_is_zero=chosen["empty-slot"] == "zero",
        unknown_subsection=chosen["unknown-subsection"],
        device_error_on_own_line=chosen["device-error-on-own-line"],
        tolerances={
            (int(entry["register"], 16), accelerator): _tolerance(entry)
            for entry in data["tolerance"]
            if _number(entry["first"]) <= number
            for accelerator in _accelerators(entry["accelerator"])
        },
        subsections=frozenset(
            name
            for first, names in data["subsections"].items()
            if _number(first) <= number
            for name in names
        ),
        deadly=tuple(
            Deadly(entry["subsection"], entry["message"])
            for entry in data["deadly"]
            if number < _number(entry["before"])
        ),
        put_failure=_put_failure(number, data),
        source=chosen["source"],
    )


def tcg_keeps(index: int) -> bool:
    """Whether TCG keeps its own value of a register whatever comes, and so refuses another."""
    register = describe(index)
    if register.name in _tcg("free"):
        return False
    return register.constant or register.name in _tcg("fixed")


def _put_failure(number: tuple[int, int, int], data: Mapping[str, Any]) -> str:
    """What QEMU says last when KVM refuses a value; empty where it says nothing of its own."""
    known = [one for one in data["put-failure"] if _number(one["first"]) <= number]
    return str(known[-1]["message"]) if known else ""


def _tolerance(entry: Mapping[str, str]) -> NotOnBothEnds | OnlySourceIf:
    rule = parse_tolerance(f"{entry['register']}: {entry['rule']}", "stock.toml")
    assert isinstance(rule, NotOnBothEnds | OnlySourceIf)
    return rule


def _accelerators(text: str) -> tuple[Accelerator, ...]:
    return tuple(Accelerator) if text == "any" else (Accelerator(text),)


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files("armferry.decide").joinpath("stock.toml").read_text("utf-8"))


@cache
def _tcg(key: str) -> frozenset[str]:
    return frozenset(_data()["tcg"][key])


def _number(version: str) -> tuple[int, int, int]:
    found = _VERSION.match(version)
    if found is None:
        raise UnknownQemuVersion(
            f"{version!r} is no version of QEMU; write it as qemu-system-aarch64 --version does, "
            "such as 10.0.13"
        )
    major, minor, micro = (int(part or 0) for part in found.groups())
    return major, minor, micro
