"""Causes in English: the only place where the reason of a register's outcome becomes a sentence."""

from typing import assert_never

from armferry.decide.causes import (
    Arrives,
    AtMost,
    Capped,
    Cause,
    Change,
    Condition,
    CounterJumps,
    Declared,
    DifferenceInMask,
    Dropped,
    FieldsFit,
    Fixed,
    HeldReset,
    Hidden,
    KeepsOther,
    Lacks,
    LeftByGuest,
    Matched,
    Meaningless,
    NotKept,
    NotOffered,
    OneEndOnly,
    OnlyThere,
    OwnTaken,
    PartTaken,
    Permission,
    Pinned,
    RenamedTo,
    StockIgnores,
    TakesAway,
    TooWide,
    Unlisted,
    Unsure,
    ValueChanged,
    ValueRefused,
)
from armferry.decide.harms import (
    Evidence,
    Harm,
    KnownReset,
    KvmPattern,
    LosesFeatures,
    NeverRan,
    NothingLost,
    NotInUse,
    ReadsElse,
    ResetByRule,
    SameThere,
    SourceReset,
    ValueLost,
    Zero,
)
from armferry.decide.risk_level import Risk
from armferry.ends import NotKnown
from armferry.registers import Accelerator, differing_fields, explain_value, name

__all__ = ["differences", "reason", "why"]

_NOT_KNOWN_THERE = "the destination does not know it"
_NOT_ON_SOURCE = "the source does not have it"


def why(index: int, name: str, cause: Cause) -> str:
    """Why a register ended as it did, and what the user has to say first where it was refused."""
    asks = getattr(cause, "asks", None)
    return _sentence(index, cause, planned=False) + (_asks(name, asks) if asks else "")


def reason(index: int, cause: Cause) -> str:
    """The same for a plan, which allows what was refused: without what allowing makes untrue."""
    return _sentence(index, cause, planned=True)


def differences(index: int, source: int, destination: int) -> str:
    """How two values differ, fields decoded: `PMUVer 5 -> 4, DoubleLock 0 -> 15`."""
    words = explain_value(index, source), explain_value(index, destination)
    if all(words):
        return f"{words[0]} -> {words[1]}"
    parts = [
        f"{difference.field.name} {difference.left} -> {difference.right}"
        for difference in differing_fields(index, source, destination)
    ]
    return ", ".join(parts)


def _sentence(index: int, cause: Cause, *, planned: bool) -> str:
    match cause:
        case Matched():
            return ""
        case KeepsOther(taken, after):
            return f"the destination's kernel takes it and keeps {differences(index, taken, after)}"
        case Dropped(None, harm):
            no_rule = "" if planned else " and no rule allows dropping it"
            return f"{_NOT_KNOWN_THERE}{no_rule}; {_state(index, harm)}"
        case Dropped(permission, harm):
            assert permission is not None
            return f"{_permission(permission)}; {_cost(index, harm)}"
        case RenamedTo(name):
            return f"sent as {name}, its name on the destination"
        case Arrives(renamed):
            return _arrives(renamed)
        case OnlyThere(sent, recorded):
            value = "the value it was recorded with" if recorded else "its reset value"
            return f"{_NOT_ON_SOURCE}; {f'sent at {value}' if sent else 'keeps its reset value'}"
        case CounterJumps():
            return (
                f"{_NOT_ON_SOURCE}, where it is the host's; the guest may read the physical "
                "counter, which jumps"
            )
        case LeftByGuest(value):
            return f"{_NOT_ON_SOURCE}; {value:#x} is what another guest left there"
        case ValueRefused(TooWide(), value, _, _, renamed):
            what = f"its value {value:#x} has more bits than the destination's register"
            return f"{_arrives(renamed, '; ')}{what}"
        case ValueRefused(refused, value, own, harm, renamed):
            assert not isinstance(refused, TooWide)
            change = "" if isinstance(refused, NotKept) else differences(index, value, own)
            what = _refusal(index, refused) + (f": {change}" if change else "")
            return f"{_arrives(renamed, '; ')}{what}{_breaks(harm)}"
        case ValueChanged(rule, value, sent, harm, renamed):
            change = "" if isinstance(rule, Meaningless) else differences(index, value, sent)
            what = _change(rule) + (f": {change}" if change else "")
            return f"{_arrives(renamed, '; ')}{what}{_breaks(harm)}"
        case NotOffered(version, own):
            return (
                f"kvm-psci-version pins PSCI {version}, which the destination does not offer: "
                f"{differences(index, version.value, own)}"
            )
        case _ as never:
            assert_never(never)


def _asks(name: str, risk: Risk) -> str:
    return f"; not done unless you name it (--accept-risk {name} or {risk})"


def _arrives(renamed: str, behind: str = "") -> str:
    return f"comes as {renamed}, its name on the source{behind}" if renamed else ""


def _permission(permission: Permission) -> str:
    match permission:
        case Hidden():
            return "hidden from the VM"
        case Declared():
            return "declared safe to be missing"
        case OneEndOnly():
            return "may exist on one end only"
        case Condition(mask, expected):
            return f"may be dropped while value & {mask:#x} is {expected:#x}"
        case HeldReset():
            return "may be dropped while it holds its reset value"
        case StockIgnores():
            return "the destination's QEMU loads the guest without it"
        case Unlisted():
            return "the destination has it, though not in its list"
        case _ as never:
            assert_never(never)


def _refusal(index: int, refused: Fixed | AtMost | Lacks | NotKept | Unsure | TakesAway) -> str:
    match refused:
        case Fixed(own):
            return f"the destination fixes it at {own:#x}"
        case TakesAway(registers):
            gone = ", ".join(name(register, Accelerator.KVM) for register in registers)
            return f"the destination's kernel then takes {gone} away, which its QEMU puts"
        case Unsure(own):
            return f"unknown: its kernel may or may not take another value than its own {own:#x}"
        case AtMost(own):
            return f"the destination offers {_shown(index, own)} at most"
        case Lacks(bits):
            return f"the destination lacks {_shown(index, bits)}"
        case NotKept(bits):
            return f"the destination's QEMU does not keep its bits {bits:#x}"
        case _ as never:
            assert_never(never)


def _change(rule: Change) -> str:
    match rule:
        case Pinned(version):
            return f"kvm-psci-version pins PSCI {version}"
        case OwnTaken():
            return "the destination's value is taken"
        case DifferenceInMask(mask):
            return f"it differs in the bits {mask:#x} only"
        case FieldsFit():
            return "no field is beyond the destination's"
        case Capped():
            return "it is capped at the destination's"
        case PartTaken(bits):
            return f"its bits {bits:#x} do not stay and are the destination's"
        case Meaningless(bits):
            return f"its bits {bits:#x} do not stay and mean nothing (RES0): left out"
        case _ as never:
            assert_never(never)


def _evidence(evidence: Evidence) -> str:
    match evidence:
        case NeverRan():
            return "the guest never ran"
        case SourceReset(value):
            return f"{value:#x} is the source's reset value"
        case KnownReset(value):
            return f"{value:#x} is its known reset value"
        case ResetByRule():
            return "its value is a reset value by the rule"
        case KvmPattern(value):
            return f"{value:#x} is KVM's mark for a register that was never written"
        case Zero():
            return "it is zero, as after reset"
        case NotInUse():
            return "the guest uses neither the physical counter nor its timer"
        case _ as never:
            assert_never(never)


def _state(index: int, harm: Harm) -> str:
    """What a register holds that is refused: nothing is lost yet."""
    match harm:
        case NothingLost(evidence):
            return _evidence(evidence)
        case ValueLost(value):
            return f"the guest's value is {value:#x}"
        case _:
            return _cost(index, harm)


def _cost(index: int, harm: Harm) -> str:
    match harm:
        case NothingLost(evidence):
            return f"{_evidence(evidence)}, so nothing is lost"
        case SameThere():
            return "the destination holds the same value, so nothing is lost"
        case ValueLost(value):
            return f"its value {value:#x} is lost"
        case ReadsElse(before, after) | LosesFeatures(before, after):
            return f"the guest sees {_shown(index, before)} now; {_later(index, after)}" + _breaks(
                harm
            )
        case _ as never:
            assert_never(never)


def _later(index: int, after: int | NotKnown | None) -> str:
    match after:
        case None:
            return "on the destination the register does not exist"
        case NotKnown():
            return "what it sees on the destination is not known"
        case _:
            return f"on the destination {_shown(index, after)}"


def _breaks(harm: Harm) -> str:
    """The features that a running guest loses, named."""
    if not isinstance(harm, LosesFeatures):
        return ""
    names = ", ".join(one.field.name for one in harm.fields)
    return f"; breaks a guest that uses {names}"


def _shown(index: int, value: int) -> str:
    return explain_value(index, value) or f"{value:#x}"
