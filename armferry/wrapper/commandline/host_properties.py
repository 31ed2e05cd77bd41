"""Properties of `-cpu host` that only armferry has: whose registers the guest is born with.

    x-armferry-as=HOST        an atlas entry (atlas:5.10/neoverse-n1) or a fingerprint's file
    x-armferry-carry=on       registers that this host lacks are kept for the guest
    x-armferry-carry=here     the same; those that are as after reset are taken out of what leaves
    SYSREG_<REG>_<FIELD>=N    one field of an identification register

They stand on `-cpu` and on `-global` of a CPU. A command line without them stays what it was to the
byte. SYSREG names are those of QEMU's proposed host model; here they work on any QEMU.
"""

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from armferry.hosts.qmp.options import Option, options_of
from armferry.option_text import keyed, segments
from armferry.registers import Field, RegisterTextError, describe, name, parse_register
from armferry.wrapper.errors import ArgumentFault

__all__ = ["Carry", "HostProperties", "SysregField", "take_host_properties"]

AS = "x-armferry-as"
CARRY = "x-armferry-carry"
SYSREG = "SYSREG_"

_CPU = "arm-cpu"


class Carry(enum.Enum):
    """What is done with safe-missing registers that this host lacks."""

    OFF = "off"
    ON = "on"
    HERE = "here"

    def __bool__(self) -> bool:
        return self is not Carry.OFF


@dataclass(frozen=True, slots=True)
class SysregField:
    """One field of a register and the number it is to hold."""

    index: int
    field: Field
    number: int

    @property
    def value(self) -> int:
        """The number in place."""
        return self.number << self.field.low


@dataclass(frozen=True, slots=True)
class HostProperties:
    """What the command line says. `born_as` is None where it does not say it."""

    born_as: str | None = None
    carry: Carry = Carry.OFF
    fields: tuple[SysregField, ...] = ()

    def __bool__(self) -> bool:
        return self != HostProperties()

    @property
    def first(self) -> str:
        """The name of one that was given, for messages."""
        if self.born_as is not None:
            return AS
        if self.fields:
            one = self.fields[0]
            return f"{SYSREG}{name(one.index)}_{one.field.name}"
        return CARRY


def take_host_properties(words: Iterable[str], program: str) -> tuple[list[str], HostProperties]:
    """The command line without the properties, and what they say. Raises ArgumentFault."""
    new = list(words)
    said: list[tuple[str, str]] = []
    dropped: set[int] = set()
    for option in options_of(new):
        if option.value is None:
            continue
        if option.name == "cpu":
            rest, own = _cut(option.value)
            if own:
                new[option.at + 1] = rest
                said += own
        elif option.name == "global" and (pair := _of_global(option)) is not None:
            dropped |= {option.at, option.at + 1}
            said.append(pair)
    try:
        properties = _read(said)
    except ValueError as error:
        raise ArgumentFault(f"{program}: {error}") from error
    return [word for at, word in enumerate(new) if at not in dropped], properties


def _is_own(key: str) -> bool:
    return key in (AS, CARRY) or key.startswith(SYSREG)


def _cut(value: str) -> tuple[str, list[tuple[str, str]]]:
    kept: list[str] = []
    own: list[tuple[str, str]] = []
    for part in segments(value):
        key, equals, text = part.partition("=")
        if equals and _is_own(key.strip()):
            own.append((key.strip(), text.replace(",,", ",")))
        else:
            kept.append(part)
    return ",".join(kept), own


def _of_global(option: Option) -> tuple[str, str] | None:
    value = option.value or ""
    driver, dot, rest = value.partition(".")
    if dot and "=" not in driver:
        key, _, text = rest.partition("=")
    else:
        pairs = dict(keyed(value))
        driver, key = pairs.get("driver", ""), pairs.get("property", "")
        text = pairs.get("value", "")
    if _is_own(key) and (driver == _CPU or driver.endswith(f"-{_CPU}")):
        return key, text
    return None


def _read(said: Iterable[tuple[str, str]]) -> HostProperties:
    born_as: str | None = None
    carry = Carry.OFF
    fields: dict[tuple[int, str], SysregField] = {}
    for key, text in said:
        if key == AS:
            if born_as not in (None, text):
                raise ValueError(f"{AS} is given twice: {born_as!r} and {text!r}")
            born_as = text
        elif key == CARRY:
            try:
                carry = Carry(text)
            except ValueError:
                raise ValueError(f"{CARRY}={text}: accepted is on, here or off") from None
        else:
            one = _sysreg(key, text)
            fields[one.index, one.field.name] = one
    return HostProperties(born_as, carry, tuple(fields.values()))


def _sysreg(key: str, text: str) -> SysregField:
    for register, field in _splits(key.removeprefix(SYSREG)):
        try:
            index = parse_register(register)
        except RegisterTextError:
            continue
        known = {one.name.casefold(): one for one in describe(index).fields}
        if field.casefold() not in known:
            listed = ", ".join(one.name for one in known.values()) or "none"
            raise ValueError(f"{key}: {register} has no field {field!r}; it has {listed}")
        found = known[field.casefold()]
        if not text.isascii() or not text.isalnum():
            raise ValueError(f"{key}={text}: accepted is a number")
        try:
            number = int(text, 0)
        except ValueError:
            raise ValueError(f"{key}={text[:40]}: accepted is a number") from None
        if number >> found.width:
            raise ValueError(f"{key}={text[:40]}: the field has {found.width} bits")
        return SysregField(index, found, number)
    raise ValueError(f"{key}: no register goes by this name; write SYSREG_ID_AA64PFR0_EL1_CSV3=0")


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """(register, field) for each underscore, the longest register first."""
    for at in range(len(text) - 1, 0, -1):
        if text[at] == "_":
            yield text[:at], text[at + 1 :]
