"""Tolerances as text: `REGISTER: RULE`, as `--tolerate` takes them and reports print them.

    TCR2_EL1: only-source-if-reset
    TCR2_EL1: only-source-if-reset 0x0, 0x1de7ec7edbadc0de
    0x603000000013c4f6: only-source-if (value & 0xff) == 0x0
    PSCI_VERSION: cap at destination
    MIDR_EL1: differ-in-mask 0xf
    identification: field <= destination
    identification: take destination's
    TCR2_EL1: not-on-both-ends
    0x40200000200e0298: re-key 0x40200000200e0280

Left of the colon stands a register (an index or a name) or a kind of register; the same rules,
without the left side, are the `action` of an entry in a policy file. What this module refuses to
know: whether a rule makes sense (`armferry.policy.problems`) and when it helps (`decide`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import assert_never

from armferry.policy.errors import RuleError
from armferry.policy.rules import (
    CapAtDestination,
    DifferInMask,
    FieldsAtMostDestination,
    NotOnBothEnds,
    OnlySourceIf,
    OnlySourceIfReset,
    Rekey,
    Selector,
    TakeDestination,
    Tolerance,
)
from armferry.registers import Kind, RegisterTextError, name, parse_register

__all__ = [
    "RULES",
    "format_register",
    "format_rule",
    "format_selector",
    "format_tolerance",
    "parse_number",
    "parse_rule",
    "parse_selector",
    "parse_tolerance",
]

RULES = (
    "not-on-both-ends",
    "only-source-if (value & MASK) == EXPECTED",
    "only-source-if-reset [VALUE, ...]",
    "differ-in-mask MASK",
    "field <= destination",
    "cap at destination",
    "take destination's",
    "re-key NEW-REGISTER",
)
"""Every rule as a person would write it, in the order of the documentation."""

_N = r"(0x[0-9a-f]+|[0-9]+)"
_NUMBER = re.compile(_N, re.IGNORECASE)
_MOST_DIGITS = 40  # of a 64-bit number, with zeros before it
_CONDITION = re.compile(rf"\( ?value ?& ?{_N} ?\) ?== ?{_N}", re.IGNORECASE)


def parse_tolerance(text: str, where: str = "--tolerate") -> Tolerance:
    """Read `REGISTER: RULE`; raises RuleError, its message beginning with `where`."""
    parts = text.split(":")
    if len(parts) == 1:
        raise RuleError(
            f"{where}: {text!r} has no colon; accepted is REGISTER: RULE, such as "
            "TCR2_EL1: only-source-if-reset"
        )
    # Encodings such as fw:0 have colons of their own: the rule begins where one is recognised.
    for end in range(1, len(parts)):
        left, right = ":".join(parts[:end]), ":".join(parts[end:])
        if any(form.fullmatch(" ".join(right.split())) for form, _ in _FORMS):
            break
    else:
        left, right = ":".join(parts[:-1]), parts[-1]
    return parse_rule(parse_selector(left, where), right, where)


def format_tolerance(tolerance: Tolerance) -> str:
    """The text that `parse_tolerance` reads back as the same tolerance."""
    return f"{format_selector(tolerance.select)}: {format_rule(tolerance)}"


def parse_selector(text: str, where: str) -> Selector:
    """A kind of register, or the index of one register; raises RuleError."""
    text = text.strip()
    try:
        return Kind(text.lower())
    except ValueError:
        return _register(text, where)


def format_selector(select: Selector) -> str:
    """The kind's own text, or the register as `format_register` writes it."""
    return select.value if isinstance(select, Kind) else format_register(select)


def format_register(index: int) -> str:
    """The register's name, or its index where it has none: both read back as this very index."""
    return name(index)


def parse_rule(select: Selector, text: str, where: str) -> Tolerance:
    """Read the rule alone; raises RuleError naming the rule that was probably meant."""
    rule = " ".join(text.split())
    for form, build in _FORMS:
        if found := form.fullmatch(rule):
            return build(select, found.group("rest"), where)
    import difflib  # only a failing command pays for it

    near = difflib.get_close_matches(rule, RULES, 1, 0.5)
    hint = f", did you mean {near[0]!r}?" if near else "."
    raise RuleError(f"{where}: {rule!r} is no tolerance{hint} Accepted: {'; '.join(RULES)}")


def format_rule(tolerance: Tolerance) -> str:
    """The text that `parse_rule` reads back as the same tolerance for the same selector."""
    match tolerance:
        case NotOnBothEnds():
            return "not-on-both-ends"
        case OnlySourceIf(mask=mask, expected=expected):
            return f"only-source-if (value & {mask:#x}) == {expected:#x}"
        case OnlySourceIfReset(reset=reset):
            return f"only-source-if-reset {', '.join(f'{v:#x}' for v in reset)}".rstrip()
        case DifferInMask(mask=mask):
            return f"differ-in-mask {mask:#x}"
        case FieldsAtMostDestination():
            return "field <= destination"
        case CapAtDestination():
            return "cap at destination"
        case TakeDestination():
            return "take destination's"
        case Rekey(new=new):
            return f"re-key {format_register(new)}"
        case _ as never:
            assert_never(never)


def parse_number(text: str, where: str) -> int:
    """A register value: hexadecimal or decimal, 64 bits; raises RuleError."""
    text = text.strip()
    number = -1
    if _NUMBER.fullmatch(text) and len(text) <= _MOST_DIGITS:
        number = int(text, 16 if text[:2].lower() == "0x" else 10)
    if not 0 <= number < 1 << 64:
        raise RuleError(
            f"{where}: {text!r} is no value; accepted is a 64-bit number, hexadecimal or decimal"
        )
    return number


def _register(text: str, where: str) -> int:
    try:
        return parse_register(text)
    except RegisterTextError as unknown:
        kinds = ", ".join(kind.value for kind in Kind)
        raise RuleError(f"{where}: {unknown}. Or a kind of register: {kinds}") from unknown


def _only_source_if(select: Selector, rest: str, where: str) -> Tolerance:
    condition = _CONDITION.fullmatch(rest)
    if not condition:
        raise RuleError(
            f"{where}: {rest!r} is no condition; accepted is (value & MASK) == EXPECTED, such as "
            "(value & 0xff) == 0x0"
        )
    mask, expected = (parse_number(number, where) for number in condition.groups())
    return OnlySourceIf(select, mask, expected)


def _only_source_if_reset(select: Selector, rest: str, where: str) -> Tolerance:
    values = rest.split(",") if rest else []
    return OnlySourceIfReset(select, tuple(parse_number(value, where) for value in values))


def _rekey(select: Selector, rest: str, where: str) -> Tolerance:
    if isinstance(select, Kind):
        raise RuleError(
            f"{where}: re-key is for one register, {select.value!r} is a kind of register; "
            "write one rule for each register"
        )
    return Rekey(select, _register(rest, where))


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern + "(?P<rest>.*)", re.IGNORECASE)


_FORMS: tuple[tuple[re.Pattern[str], Callable[[Selector, str, str], Tolerance]], ...] = (
    (_form("not-on-both-ends$"), lambda s, r, w: NotOnBothEnds(s)),
    (_form("only-source-if "), _only_source_if),
    (_form("only-source-if-reset(?: |$)"), _only_source_if_reset),
    (_form("differ-in-mask "), lambda s, r, w: DifferInMask(s, parse_number(r, w))),
    (_form("field ?<= ?destination$"), lambda s, r, w: FieldsAtMostDestination(s)),
    (_form("cap at destination$"), lambda s, r, w: CapAtDestination(s)),
    (_form("take destination(?:'s)?$"), lambda s, r, w: TakeDestination(s)),
    (_form("re-key "), _rekey),
)
