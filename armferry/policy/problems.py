"""Rules that cannot be meant: they never match, or contradict another.

A problem is reported, never raised: the rest of the policy still stands. What this module refuses
to know: any register list. A rule that merely finds nothing to do is no problem.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from armferry.policy.rules import (
    CapAtDestination,
    DifferInMask,
    FieldsAtMostDestination,
    NotOnBothEnds,
    OnlySourceIf,
    OnlySourceIfReset,
    Origin,
    OriginKind,
    Policy,
    Rekey,
    Selector,
    TakeDestination,
    TolerancePlaced,
)
from armferry.policy.tolerance import format_register, format_selector, format_tolerance
from armferry.registers import Kind, Unknown, decode, describe, kind

__all__ = ["Problem", "problems"]

_THE_GUESTS = (
    Kind.CORE,
    Kind.CONTEXT,
    Kind.TIMER,
    Kind.RUNNING_COUNTER,
    Kind.POINTER_AUTH_KEY,
)
"""Kinds of which neither KVM nor TCG fixes any register; of others TCG fixes a few."""
_SAYS_A_VALUE = (CapAtDestination, DifferInMask, TakeDestination)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: what is wrong and what to do, and who wrote the rules concerned."""

    text: str
    origins: tuple[Origin, ...]

    def __str__(self) -> str:
        return f"{self.text} (from {', '.join(dict.fromkeys(o.where for o in self.origins))})"


def problems(policy: Policy) -> tuple[Problem, ...]:
    """Everything wrong with the policy, in the order of its rules; empty when all is well."""
    return (
        *_undecodable(policy),
        *_impossible(policy),
        *_hidden(policy),
        *_rekeys(policy),
        *_values(policy),
        *_pins(policy),
    )


def _undecodable(policy: Policy) -> Iterator[Problem]:
    listed = [*policy.hidden.items(), *policy.safe_missing.items()]
    for placed in policy.tolerances:
        ends = (placed.tolerance.select, getattr(placed.tolerance, "new", None))
        listed += [(index, placed.origins) for index in ends if isinstance(index, int)]
    for index, origins in listed:
        if isinstance(decode(index), Unknown):
            yield Problem(
                f"{index:#018x} is no register index that KVM or QEMU could list, so it can never "
                "match: look for a missing digit",
                origins,
            )


def _impossible(policy: Policy) -> Iterator[Problem]:
    for placed in policy.tolerances:
        rule = format_tolerance(placed.tolerance)
        match placed.tolerance:
            case OnlySourceIf(mask=0, expected=0):
                yield Problem(
                    f"{rule!r} looks at no bit, so it always matches: write not-on-both-ends, "
                    "or a mask",
                    placed.origins,
                )
            case OnlySourceIf(mask=mask, expected=expected) if expected & ~mask:
                yield Problem(
                    f"{rule!r} can never match: {expected:#x} has bits outside the mask "
                    f"{mask:#x} ({expected & ~mask:#x})",
                    placed.origins,
                )
            case OnlySourceIf(select=int(index), expected=expected) if expected >> _bits(index):
                yield Problem(f"{rule!r} can never match: {_too_wide(index)}", placed.origins)
            case OnlySourceIfReset(select=int(index), reset=reset) if any(
                value >> _bits(index) for value in reset
            ):
                yield Problem(f"{rule!r} can never match: {_too_wide(index)}", placed.origins)
            case DifferInMask(mask=0):
                yield Problem(f"{rule!r} allows no bit to differ: give a mask", placed.origins)
            case Rekey(select=old, new=new) if old == new:
                yield Problem(f"{rule!r} gives the register its own index", placed.origins)
            case Rekey(select=old, new=new) if _bits(old) > _bits(new):
                yield Problem(
                    f"{rule!r} gives a register of {_bits(old)} bits the index of one of "
                    f"{_bits(new)}: a value that does not fit is refused",
                    placed.origins,
                )
            case CapAtDestination(select=select) if not _kind(select).is_firmware:
                yield Problem(
                    f"{rule!r} can never match: only a firmware version or a firmware bitmap is "
                    "capped; for an identification register write field <= destination",
                    placed.origins,
                )
            case DifferInMask() | FieldsAtMostDestination() | TakeDestination() if (
                _kind(placed.tolerance.select) in _THE_GUESTS
            ):
                yield Problem(
                    f"{rule!r} can never match: it is the guest's own state, which is sent as it "
                    "is and no destination refuses",
                    placed.origins,
                )


def _hidden(policy: Policy) -> Iterator[Problem]:
    for index, origins in policy.hidden.items():
        listed = policy.safe_missing.get(index, ())
        # what a shipped level says cannot be edited, and a user who lists it says the same in a way
        if listed and _by_a_user(origins) and _by_a_user(listed):
            yield Problem(
                f"{format_register(index)} is hidden and safe-missing: a hidden register is never "
                "sent, so the other never decides; keep one of the two",
                listed + origins,
            )
        for placed in policy.tolerances:
            if not _by_a_user(placed.origins):
                continue
            if placed.tolerance.select == index:
                yield Problem(
                    f"{format_tolerance(placed.tolerance)!r} can never match: the register is "
                    "hidden, so it is never compared; keep one of the two",
                    placed.origins + origins,
                )
            elif isinstance(placed.tolerance, Rekey) and placed.tolerance.new == index:
                yield Problem(
                    f"{format_tolerance(placed.tolerance)!r} leads to a hidden register, which "
                    "is never accepted; keep one of the two",
                    placed.origins + origins,
                )


def _rekeys(policy: Policy) -> Iterator[Problem]:
    by_old: dict[int, list[TolerancePlaced]] = {}
    by_new: dict[int, list[TolerancePlaced]] = {}
    target: dict[int, int] = {}
    for placed in policy.tolerances:
        if isinstance(placed.tolerance, Rekey) and placed.tolerance.select != placed.tolerance.new:
            by_old.setdefault(placed.tolerance.select, []).append(placed)
            by_new.setdefault(placed.tolerance.new, []).append(placed)
            target[placed.tolerance.select] = placed.tolerance.new
    for old, rules in by_old.items():
        if len(rules) > 1:
            news = " and ".join(
                format_register(r.tolerance.new) for r in rules if isinstance(r.tolerance, Rekey)
            )
            yield Problem(
                f"{format_register(old)} is re-keyed to {news}: keep one of them",
                tuple(origin for rule in rules for origin in rule.origins),
            )
    for new, rules in by_new.items():
        if len(rules) > 1:
            olds = " and ".join(format_selector(rule.tolerance.select) for rule in rules)
            yield Problem(
                f"{olds} are both re-keyed to {format_register(new)}: keep one of them",
                tuple(origin for rule in rules for origin in rule.origins),
            )
        # a move finds one of two that go to and fro, never both
        if new in by_old and any(rule.tolerance.select != target[new] for rule in rules):
            yield Problem(
                f"{format_register(new)} is a re-key's new index and is re-keyed itself to "
                f"{format_register(target[new])}: re-keys do not chain, write the last index",
                tuple(origin for rule in (*rules, *by_old[new]) for origin in rule.origins),
            )


def _values(policy: Policy) -> Iterator[Problem]:
    """Two conditions on one register of which the first makes the second pointless or false."""
    for placed in policy.tolerances:
        index = placed.tolerance.select
        listed = policy.safe_missing.get(index, ()) if isinstance(index, int) else ()
        if _by_a_user(listed) and _conditional(placed):
            yield Problem(
                f"{format_tolerance(placed.tolerance)!r} never decides: the register is "
                "safe-missing whatever it holds; keep one of the two",
                placed.origins + listed,
            )
    for one in policy.tolerances:
        for other in policy.tolerances:
            if one.tolerance.select != other.tolerance.select:
                continue
            match one.tolerance, other.tolerance:
                case (NotOnBothEnds(), _) if _conditional(other):
                    yield Problem(
                        f"{format_tolerance(other.tolerance)!r} never decides: "
                        f"{format_tolerance(one.tolerance)!r} allows more; keep one of the two",
                        one.origins + other.origins,
                    )
                case (CapAtDestination(), TakeDestination()):
                    yield Problem(
                        f"{format_tolerance(one.tolerance)!r} and "
                        f"{format_tolerance(other.tolerance)!r} say which value is sent in two "
                        "ways; keep one of the two",
                        one.origins + other.origins,
                    )


def _pins(policy: Policy) -> Iterator[Problem]:
    if len(policy.psci) > 1:
        versions = " and ".join(str(version) for version in policy.psci)
        yield Problem(
            f"kvm-psci-version is set to {versions}; {policy.psci_version} is used: keep one",
            tuple(origin for origins in policy.psci.values() for origin in origins),
        )
    for placed in policy.tolerances:
        rule = placed.tolerance
        psci = format_selector(rule.select) == "PSCI_VERSION"
        if policy.psci and psci and isinstance(rule, _SAYS_A_VALUE):
            yield Problem(
                f"{format_tolerance(rule)!r} never decides: kvm-psci-version pins "
                f"{policy.psci_version}; keep one of the two",
                placed.origins + policy.psci_origins,
            )


def _conditional(placed: TolerancePlaced) -> bool:
    """Whether it lets a register stay behind on a condition, and somebody could leave it out.

    What a shipped level allows on a condition, a user may well allow without.
    """
    return isinstance(placed.tolerance, OnlySourceIf | OnlySourceIfReset) and _by_a_user(
        placed.origins
    )


def _by_a_user(origins: tuple[Origin, ...]) -> bool:
    """Whether anybody but a shipped level says so, whose word alone does not accept a risk."""
    return any(origin.kind is not OriginKind.BUILTIN for origin in origins)


def _kind(select: Selector) -> Kind:
    return select if isinstance(select, Kind) else kind(select)


def _bits(index: int) -> int:
    return 8 * describe(index).size


def _too_wide(index: int) -> str:
    return f"{format_register(index)} has {_bits(index)} bits only"
