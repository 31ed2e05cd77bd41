"""QEMU's property text: register lists and PSCI versions, as options, -global and -cpu carry them.

What this module knows: `x-mig-hidden-regs` and `x-mig-safe-missing-regs` are array properties of
64-bit numbers, and what QEMU makes of such text, measured on QEMU 5.2 to 11.1 (the source is
QEMU's string input visitor, the `-global` option and the CPU feature parser):

- A number is C's base 0: `0x` is hexadecimal, a leading `0` is octal, the rest is decimal. `A-B`
  is every number from A to B, at most 65536. An empty list is allowed.
- `-global arm-cpu.PROPERTY=VALUE` takes VALUE as it stands: commas are not doubled there.
- `-global driver=arm-cpu,property=PROPERTY,value=VALUE` doubles the commas of VALUE.
- `-cpu MODEL,PROPERTY=VALUE` splits at every comma and knows no doubling, so a QEMU that has the
  properties takes one register there at most. armferry reads doubled commas there, and writes
  them: it is the only form in which a list and further options can be told apart.

Kinder than QEMU: names and encodings instead of numbers, spaces on both sides of a comma, doubled
commas wherever a list stands. Sterner: a negative number, which QEMU wraps round, and an empty
element are errors.

What it refuses to know: which registers exist (`armferry.registers` reads names).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from armferry.option_text import segments
from armferry.policy.errors import PropertyError
from armferry.policy.rules import Origin, OriginKind, Policy, PsciVersion
from armferry.registers import RegisterTextError, parse_register

__all__ = [
    "HIDDEN",
    "PSCI",
    "PSCI_VERSIONS",
    "SAFE_MISSING",
    "CpuOption",
    "Properties",
    "format_cpu",
    "format_global",
    "format_list",
    "parse_cpu",
    "parse_global",
    "parse_list",
    "parse_psci_version",
]

HIDDEN = "x-mig-hidden-regs"
SAFE_MISSING = "x-mig-safe-missing-regs"
PSCI = "kvm-psci-version"

PSCI_VERSIONS = tuple(PsciVersion(*v) for v in ((0, 2), (1, 0), (1, 1), (1, 2), (1, 3)))
"""The versions KVM can offer a guest (Documentation/virt/kvm/arm/fw-pseudo-registers.rst).

QEMU also takes 0.1, and then makes vCPUs without the feature that the register belongs to.
"""

_ACCEPTED = (
    "accepted is a comma-separated list of 64-bit register indexes, hexadecimal or decimal, "
    "or register names, such as 0x603000000013c103, TCR2_EL1"
)
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_RANGE = re.compile(rf"({_NUMBER.pattern})-({_NUMBER.pattern})")
_LONGEST_RANGE = 65536
_CP_ENCODING = re.compile(
    r"\s*(p1[45],\d+,c\d+(?:,c\d+,\d+)?(?:,s)?)\s*(?=,|$)", re.IGNORECASE | re.ASCII
)
_GLOBAL = re.compile(r"(?P<driver>[^.=,]+)\.(?P<property>[^=]+)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Properties:
    """What properties say, from one place: two lists of register indexes and PSCI versions.

    Lists are ascending and unique. More than one PSCI version means that it was set twice.
    """

    hidden: tuple[int, ...] = ()
    safe_missing: tuple[int, ...] = ()
    psci: tuple[PsciVersion, ...] = ()

    def policy(self, where: str, source: OriginKind = OriginKind.COMMAND_LINE) -> Policy:
        """The same as a policy; each entry says that it came from `where`, and which property."""

        def origin(name: str) -> tuple[Origin]:
            return (Origin(source, f"{where} {name}"),)

        return Policy(
            hidden=dict.fromkeys(self.hidden, origin(HIDDEN)),
            safe_missing=dict.fromkeys(self.safe_missing, origin(SAFE_MISSING)),
            psci=dict.fromkeys(self.psci, origin(PSCI)),
        )


@dataclass(frozen=True, slots=True)
class CpuOption:
    """A `-cpu` argument taken apart: armferry's properties, and the text without them."""

    rest: str
    properties: Properties


def parse_list(text: str, where: str) -> tuple[int, ...]:
    """Register indexes of a list property, ascending and unique; `where` begins the error.

    Raises PropertyError for an empty element, a number that is negative, malformed or beyond
    64 bits, a range that QEMU would refuse, and a name that is no register's.
    """
    text = text.replace(",,", ",")
    if not text.strip():
        return ()
    indexes: set[int] = set()
    for element in _elements(text):
        indexes.update(_element(element, text, where))
    return tuple(sorted(indexes))


def format_list(indexes: Iterable[int]) -> str:
    """The list as QEMU's compat properties write it: hexadecimal, ascending, a comma between."""
    return ",".join(f"{index:#018x}" for index in sorted(set(indexes)))


def parse_psci_version(text: str, where: str = "--kvm-psci-version") -> PsciVersion:
    """The version to pin; raises PropertyError in the words of QEMU 11.1 (measured)."""
    for version in PSCI_VERSIONS:
        if text.strip() == str(version):
            return version
    valid = ", ".join(str(version) for version in PSCI_VERSIONS)
    raise PropertyError(f"{where}: Invalid PSCI version {text!r}. Valid values are {valid}")


def parse_global(text: str) -> Properties | None:
    """What a `-global` argument, short or long form, says; None when it is not for armferry.

    Other properties and other devices are not for armferry. Raises PropertyError when the
    property is one of armferry's and its value cannot be read.
    """
    short = _GLOBAL.fullmatch(text)
    if short:
        driver, name, value = short["driver"], short["property"], short["value"]
    else:
        options = dict(_keyed(option) for option in _split(text))
        driver, name = options.get("driver", ""), options.get("property", "")
        value = options.get("value", "")
    if driver != "arm-cpu" and not driver.endswith("-arm-cpu"):
        return None
    return _property(name, value, f"-global {driver}.{name}")


def format_global(properties: Properties) -> tuple[str, ...]:
    """The arguments that follow `-global`, one for each property that says something."""
    return tuple(f"arm-cpu.{name}={value}" for name, value in _texts(properties))


def parse_cpu(text: str) -> CpuOption:
    """Take armferry's properties out of a `-cpu` argument; everything else stays as it was.

    A property given twice counts twice: the lists are united. Raises PropertyError when a
    list is not written with doubled commas, or cannot be read.
    """
    rest: list[str] = []
    hidden: set[int] = set()
    safe_missing: set[int] = set()
    psci: set[PsciVersion] = set()
    previous = ""
    for option in _split(text):
        name, value = _keyed(option)
        found = _property(name, value, f"-cpu {name}")
        if found is None:
            if previous and "=" not in option:
                raise PropertyError(
                    f"-cpu {previous}: Expected key=value format, found {option!r}. Inside -cpu "
                    f"the commas of a list are doubled, such as {previous}=A,,B"
                )
            rest.append(option.replace(",", ",,"))
            previous = ""
            continue
        previous = name
        hidden.update(found.hidden)
        safe_missing.update(found.safe_missing)
        psci.update(found.psci)
    properties = Properties(tuple(sorted(hidden)), tuple(sorted(safe_missing)), tuple(sorted(psci)))
    return CpuOption(",".join(rest), properties)


def format_cpu(option: CpuOption) -> str:
    """The `-cpu` argument again: the other options first, then the properties, commas doubled."""
    ours = [f"{name}={value.replace(',', ',,')}" for name, value in _texts(option.properties)]
    return ",".join([option.rest, *ours] if option.rest else ours)


def _property(name: str, value: str, where: str) -> Properties | None:
    match name:
        case "x-mig-hidden-regs":
            return Properties(hidden=parse_list(value, where))
        case "x-mig-safe-missing-regs":
            return Properties(safe_missing=parse_list(value, where))
        case "kvm-psci-version":
            return Properties(psci=(parse_psci_version(value, where),))
        case _:
            return None


def _texts(properties: Properties) -> list[tuple[str, str]]:
    texts = [(PSCI, str(version)) for version in properties.psci]
    for name, indexes in ((HIDDEN, properties.hidden), (SAFE_MISSING, properties.safe_missing)):
        if indexes:
            texts.append((name, format_list(indexes)))
    return texts


def _elements(text: str) -> Iterator[str]:
    """What stands between the commas of a list; an AArch32 encoding keeps its own commas."""
    rest: str | None = text
    while rest is not None:
        if whole := _CP_ENCODING.match(rest):
            yield whole[1]
            rest = rest[whole.end() + 1 :] if whole.end() < len(rest) else None
        else:
            element, comma, more = rest.partition(",")
            yield element.strip()
            rest = more if comma else None


def _element(element: str, text: str, where: str) -> Iterable[int]:
    if not element:
        raise PropertyError(f"{where}: empty element in {text!r}; {_ACCEPTED}")
    if span := _RANGE.fullmatch(element):
        first, last = (_number(bound, where) for bound in span.groups())
        if not first <= last < first + _LONGEST_RANGE:
            raise PropertyError(
                f"{where}: {element!r} is no range; accepted is FIRST-LAST, ascending, of at most "
                f"{_LONGEST_RANGE} register indexes"
            )
        return range(first, last + 1)
    if element[0].isdigit():
        return (_number(element, where),)
    if element[0] in "+-":
        raise PropertyError(f"{where}: {element!r} has a sign; {_ACCEPTED}")
    try:
        return (parse_register(element),)
    except RegisterTextError as unknown:
        raise PropertyError(f"{where}: {unknown}") from unknown


def _number(text: str, where: str) -> int:
    octal = text[0] == "0" and text.isdigit()
    try:
        if not _NUMBER.fullmatch(text):
            raise ValueError(text)
        number = int(text, 8 if octal else 0)
    except ValueError:
        base = " (a leading 0 without x makes it octal, as for QEMU)" if octal else ""
        raise PropertyError(f"{where}: {text!r} is no number{base}; {_ACCEPTED}") from None
    if number >= 1 << 64:
        raise PropertyError(f"{where}: {text!r} does not fit in 64 bits; {_ACCEPTED}")
    return number


def _keyed(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    return name.strip(), value


def _split(text: str) -> list[str]:
    """Options between single commas; a doubled comma is one comma of the option's own text."""
    return [part.replace(",,", ",") for part in segments(text)]
