"""The mission's properties on a QEMU command line: found, taken out, or left where QEMU knows them.

They stand on `-cpu`, `-global` (both forms), `-device`, in text or JSON. How their values are
written is `armferry.policy`'s to know; which of them the QEMU underneath knows is asked elsewhere
(`knowledge`). Whatever is not theirs is kept to the byte.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from armferry.hosts.qmp.options import Option, options_of
from armferry.option_text import keyed, segments
from armferry.policy import (
    EMPTY,
    CpuOption,
    Policy,
    Properties,
    PropertyError,
    format_cpu,
    format_global,
    format_list,
    parse_cpu,
    parse_global,
    parse_list,
    parse_psci_version,
)
from armferry.wrapper.errors import ArgumentFault

__all__ = ["NAMES", "PropertyOption", "parse_properties", "policy_of", "strip_properties"]

HIDDEN = "x-mig-hidden-regs"
SAFE_MISSING = "x-mig-safe-missing-regs"
PSCI = "kvm-psci-version"
NAMES = (HIDDEN, SAFE_MISSING, PSCI)

_CPU_SUFFIX = "-arm-cpu"
_ANY_CPU = "arm-cpu"


@dataclass(frozen=True, slots=True)
class PropertyOption:
    """What one option says: `where` is the option (`-cpu`), `driver` the type it is for."""

    where: str
    driver: str
    properties: Properties

    def applies(self, model: str) -> bool:
        """Whether it is for the CPU model `model`; an empty one is not known and matches all."""
        return self.driver == _ANY_CPU or not model or self.driver == model + _CPU_SUFFIX


def parse_properties(words: Iterable[str], program: str) -> tuple[PropertyOption, ...]:
    """Every statement of the properties, in order. Raises ArgumentFault for a bad value."""
    found: list[PropertyOption] = []
    for option in options_of(list(words)):
        try:
            said = _said(option)
        except PropertyError as error:
            raise ArgumentFault(f"{program}: {error}") from error
        if said is not None and said.properties != Properties():
            found.append(said)
    return tuple(found)


def policy_of(all_given: Iterable[PropertyOption], model: str) -> Policy:
    """The statements that apply to `model`, united, each entry knowing its option."""
    policy = EMPTY
    for one in all_given:
        if one.applies(model):
            policy = policy.union(one.properties.policy(one.where))
    return policy


def strip_properties(words: Iterable[str], known: Collection[str] = ()) -> list[str]:
    """The command line without the properties, those in `known` left in a form QEMU reads.

    Lists that QEMU knows move from `-cpu`, where QEMU's own parser would cut them at every comma,
    to a `-global` of their own.
    """
    new = list(words)
    dropped: list[int] = []
    moved: list[str] = []
    for option in options_of(new):
        value = option.value
        if value is None or not any(name in value for name in NAMES):
            continue
        if option.name == "cpu":
            new[option.at + 1], lists = _strip_cpu(value, known)
            moved += [word for text in lists for word in ("-global", text)]
        elif option.name == "global":
            said = parse_global(value)
            if said is not None and not any(name in value for name in known):
                dropped += [option.at, option.at + 1]
        elif option.name == "device":
            new[option.at + 1] = _strip_device(value, known)
    return [word for at, word in enumerate(new) if at not in dropped] + moved


def _said(option: Option) -> PropertyOption | None:
    value = option.value
    if value is None or not any(name in value for name in NAMES):
        return None
    if option.name == "cpu":
        model = segments(value)[0]
        return PropertyOption("-cpu", _ANY_CPU if "=" in model else model + _CPU_SUFFIX,
                     parse_cpu(value).properties)  # fmt: skip
    if option.name == "global":
        said = parse_global(value)
        return None if said is None else PropertyOption("-global", _global_driver(value), said)
    if option.name == "device":
        return _device_said(value)
    return None


def _global_driver(value: str) -> str:
    driver, dot, rest = value.partition(".")
    if dot and "=" in rest and "=" not in driver:
        return driver
    return dict(keyed(value)).get("driver", "")


def _strip_cpu(value: str, known: Collection[str]) -> tuple[str, tuple[str, ...]]:
    kept = [part for part in segments(value) if part.partition("=")[0].strip() not in NAMES]
    all_of_it = parse_cpu(value).properties
    psci = all_of_it.psci if PSCI in known else ()
    text = format_cpu(CpuOption(",".join(kept), Properties(psci=psci)))
    lists = Properties(
        hidden=all_of_it.hidden if HIDDEN in known else (),
        safe_missing=all_of_it.safe_missing if SAFE_MISSING in known else (),
    )
    return text, format_global(lists)


def _device_said(value: str) -> PropertyOption | None:
    pairs = _device_pairs(value)
    driver = pairs.get("driver", "")
    if not driver.endswith(_CPU_SUFFIX):
        return None
    where = f"-device {driver}"
    psci = pairs.get(PSCI)
    return PropertyOption(
        "-device",
        driver,
        Properties(
            hidden=parse_list(pairs.get(HIDDEN, ""), f"{where}: {HIDDEN}"),
            safe_missing=parse_list(pairs.get(SAFE_MISSING, ""), f"{where}: {SAFE_MISSING}"),
            psci=() if psci is None else (parse_psci_version(psci, f"{where}: {PSCI}"),),
        ),
    )


def _device_pairs(value: str) -> dict[str, str]:
    if not value.startswith("{"):
        return dict(keyed(value, "driver"))
    try:
        document = json.loads(value)
    except ValueError:
        return {}  # QEMU says what is wrong with it
    if not isinstance(document, dict):
        return {}
    return {str(key): _text(entry) for key, entry in document.items()}


def _text(entry: object) -> str:
    """A JSON value as property text: an array of numbers or names as a list."""
    if isinstance(entry, list):
        return ",".join(map(_text, entry))
    if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < 1 << 64:
        return format_list([entry])
    return str(entry)


def _strip_device(value: str, known: Collection[str]) -> str:
    if not _device_pairs(value).get("driver", "").endswith(_CPU_SUFFIX):
        return value
    unknown = [name for name in NAMES if name not in known]
    if value.startswith("{"):
        document = json.loads(value)
        return json.dumps({key: one for key, one in document.items() if key not in unknown})
    return ",".join(
        part for part in segments(value) if part.partition("=")[0].strip() not in unknown
    )
