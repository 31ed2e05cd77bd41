"""The heart: an incoming list, a destination and a policy in, an outcome for each register out.

Rules that hold here: no I/O; one linear merge of two ascending lists, both drained to their
ends; each register ends in exactly one class; nothing stops at the first refusal, and one
refused register refuses the load whatever comes after it. What an outcome costs the guest is for
`risk`, whether it may be done unasked for `consent`.
"""

from collections.abc import Iterable, Iterator, Mapping

from armferry.decide.causes import (
    Arrives,
    Condition,
    CounterJumps,
    Declared,
    Dropped,
    HeldReset,
    KeepsOther,
    LeftByGuest,
    Matched,
    Meaningless,
    NotKept,
    NotOffered,
    OneEndOnly,
    OnlyThere,
    Permission,
    RenamedTo,
    StockIgnores,
    TakesAway,
    TooWide,
    Unlisted,
    ValueChanged,
    ValueRefused,
)
from armferry.decide.conditions import spoils
from armferry.decide.harms import Evidence, ResetByRule, SameThere
from armferry.decide.kept_bits import meaningless
from armferry.decide.kernel_values import is_of_the_host, kept
from armferry.decide.model import Decision, RegisterClass, RegisterOutcome
from armferry.decide.outcomes import Outcomes
from armferry.decide.physical_counter import PHYSICAL_COUNTER, uses_physical_counter
from armferry.decide.rekeys import rekeys
from armferry.decide.risk import assess
from armferry.decide.risk_level import Risk
from armferry.decide.values import names_register, refusal, tolerated_values
from armferry.ends import Destination, SourceFacts
from armferry.facts import tcg_ignores_writes
from armferry.policy import (
    NotOnBothEnds,
    OnlySourceIf,
    OnlySourceIfReset,
    Origin,
    Policy,
)
from armferry.registers import Accelerator, describe

__all__ = ["Merge", "decide"]

_NO_FACTS = SourceFacts()


def decide(
    incoming: Mapping[int, int],
    destination: Destination,
    policy: Policy,
    facts: SourceFacts = _NO_FACTS,
    *,
    stock_loads: bool = False,
) -> Decision:
    """What the load of `incoming` on `destination` does under `policy`, register by register.

    `stock_loads` says that the destination's QEMU loads the guest by itself: what it leaves out
    is then no reason to refuse, unless the guest would lose something.
    """
    return Merge(incoming, destination, policy, facts, stock_loads=stock_loads).run()


class Merge(Outcomes):
    """The decision on one vCPU; `like` is that of another that lists the same registers."""

    def __init__(
        self,
        incoming: Mapping[int, int],
        destination: Destination,
        policy: Policy,
        facts: SourceFacts,
        *,
        stock_loads: bool,
        like: "Merge | None" = None,
    ) -> None:
        super().__init__(
            incoming, destination, policy, facts, None if like is None else like._source_accelerator
        )
        self._stock_loads = stock_loads
        # new index -> (old index, origins)
        self._rekeyed: dict[int, tuple[int, tuple[Origin, ...]]] = (
            rekeys(incoming, destination, policy) if like is None else like._rekeyed
        )
        self._spoils: dict[int, tuple[int, ...]] = (
            spoils(incoming, destination.registers, destination.accelerator)
            if like is None
            else like._spoils
        )
        self._new_index = {old: (new, origins) for new, (old, origins) in self._rekeyed.items()}

    def run(self) -> Decision:
        """An outcome for each register of both lists."""
        own = self._destination.registers
        left, right = sorted(self._incoming), sorted(own)
        outcomes: list[RegisterOutcome] = []
        at = to = 0
        while at < len(left) or to < len(right):
            if to == len(right) or (at < len(left) and left[at] < right[to]):
                outcomes.append(self._only_incoming(left[at]))
                at += 1
            elif at == len(left) or right[to] < left[at]:
                outcomes.append(self._only_destination(right[to]))
                to += 1
            else:
                outcomes.append(self._on_both(left[at]))
                at += 1
                to += 1
        # QEMU compares by place, and HVF's list does not ascend in every release
        if self._destination.accelerator is not Accelerator.HVF:
            return Decision(tuple(outcomes))
        both = [index for index in own if index in self._incoming]
        reordered = both != [index for index in self._incoming if index in own]
        return Decision(tuple(outcomes), tuple(own), reordered)

    def like_first(self, first: Decision, differing: Iterable[int]) -> Decision:
        """The decision where only the registers in `differing` have other values than `first`."""
        again = {
            *differing,
            *(self._new_index[old][0] for old in differing if old in self._new_index),
        }
        if PHYSICAL_COUNTER in self._incoming or PHYSICAL_COUNTER in self._destination.registers:
            again.add(PHYSICAL_COUNTER)  # judged by what the registers of its timer hold
        return first.with_others({index: self._one(index) for index in again})

    def _one(self, index: int) -> RegisterOutcome:
        if index not in self._destination.registers:
            return self._only_incoming(index)
        return self._on_both(index) if index in self._incoming else self._only_destination(index)

    # -- one register

    def _only_incoming(self, index: int) -> RegisterOutcome:
        value = self._incoming[index]
        if index in self._policy.hidden:
            return self._hidden(index)
        new = self._new_index.get(index)
        if new is not None:
            target, origins = new
            return self._outcome(
                index,
                RegisterClass.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                RenamedTo(self._name(target)),
                origins,
            )
        allowed = _first_accepted(self._permissions(index))
        if allowed is not None:
            return allowed
        found = assess(index, value, self._reads_later(index), self._evidence(index))
        if index in self._destination.unlisted and found.risk <= Risk.LOSSLESS:
            return self._dropped(index, Unlisted(), ())
        if self._stock_loads and found.risk <= Risk.LOSSLESS:
            return self._dropped(index, StockIgnores(), ())
        cause = Dropped(None, found.harm)
        return self._outcome(index, RegisterClass.ONLY_INCOMING, None, found.risk, cause)

    def _permissions(self, index: int) -> Iterator[RegisterOutcome]:
        """What each rule that lets a register be missing makes of it, in their order."""
        value = self._incoming[index]
        if index in self._policy.safe_missing:
            yield self._dropped(index, Declared(), self._policy.safe_missing[index])
        for placed in self._policy.tolerances_for(index):
            evidence: Evidence | None = self._evidence(index)
            permission: Permission
            match placed.tolerance:
                case NotOnBothEnds():
                    permission = OneEndOnly()
                case OnlySourceIf(mask=mask, expected=expected) if value & mask == expected:
                    permission = Condition(mask, expected)
                case OnlySourceIfReset(reset=reset) if value in reset:
                    permission, evidence = HeldReset(), ResetByRule()
                case OnlySourceIfReset() if evidence:
                    permission = HeldReset()
                case _:
                    continue
            named = names_register(placed.tolerance)
            yield self._dropped(index, permission, placed.origins, evidence, named=named)

    def _only_destination(self, index: int) -> RegisterOutcome:
        own = self._destination.registers[index]
        arriving = self._rekeyed.get(index)
        if arriving is not None:
            old, origins = arriving
            return self._arriving(index, self._incoming[old], self._name(old), origins)
        origins = ()
        group, named = RegisterClass.ONLY_DESTINATION, True
        if index in self._policy.hidden:
            group, origins = RegisterClass.HIDDEN, self._policy.hidden[index]
        else:
            for placed in reversed(self._policy.tolerances_for(index)):
                if isinstance(placed.tolerance, NotOnBothEnds):
                    group = RegisterClass.TOLERATED_ONLY_DESTINATION
                    origins, named = placed.origins, names_register(placed.tolerance)
        risk = Risk.GUEST_VISIBLE
        if self._counter_jumps(index):
            if self._accepts(index, risk, origins, named=named):
                return self._outcome(index, group, None, risk, CounterJumps(), origins)
            jumps = CounterJumps(asks=risk)
            return self._outcome(index, RegisterClass.VALUE_REFUSED, None, risk, jumps, origins)
        if self._kvm:
            return self._outcome(index, group, None, Risk.LOSSLESS, OnlyThere(sent=False), origins)
        recorded = not self._destination.at_reset
        if not recorded or tcg_ignores_writes(index):
            cause = OnlyThere(sent=True, recorded=recorded)
            return self._outcome(index, group, own, Risk.LOSSLESS, cause, origins)
        if self._accepts(index, risk, origins, named=named):
            return self._outcome(index, group, own, risk, LeftByGuest(own), origins)
        refused = LeftByGuest(own, asks=risk)
        return self._outcome(index, RegisterClass.VALUE_REFUSED, None, risk, refused, origins)

    def _counter_jumps(self, index: int) -> bool:
        """Whether it is the physical counter, that the guest may read and the source leaves out."""
        return (
            self._kvm
            and index == PHYSICAL_COUNTER
            and not self._facts.fresh
            and uses_physical_counter(self._incoming)
        )

    def _on_both(self, index: int) -> RegisterOutcome:
        value = self._incoming[index]
        if index in self._policy.hidden:
            return self._hidden(index)
        pinned = self._pinned(index, value)
        if pinned is not None:
            return pinned
        refused = refusal(index, value, self._destination)
        if refused is None and index in self._spoils:
            refused = TakesAway(self._spoils[index])
        if refused is None:
            return self._taken(index, value)
        if isinstance(refused, NotKept) and meaningless(index, refused.bits, self._incoming):
            sent = value ^ refused.bits
            cause = ValueChanged(Meaningless(refused.bits), value, sent, SameThere())
            return self._outcome(index, RegisterClass.VALUE_TOLERATED, sent, Risk.LOSSLESS, cause)
        return self._other_value(index, value) or self._value_refused(
            index, value, ValueRefused(refused, value, self._own(index), self._harm(index, value))
        )

    def _taken(self, index: int, value: int) -> RegisterOutcome:
        """The source's value is sent: the guest reads it again, or what the kernel keeps of it."""
        after = kept(index, value, self._destination) if self._kvm else value
        if after == value:
            return self._outcome(index, RegisterClass.MATCHED, value, Risk.NONE, Matched())
        evidence = self._never_ran() if is_of_the_host(index) else self._evidence(index)
        found = assess(index, value, after, evidence)
        # what is not kept is no feature that a guest could use
        risk = min(found.risk, Risk.GUEST_VISIBLE) if is_of_the_host(index) else found.risk
        cause = KeepsOther(value, after, found.harm)
        return self._outcome(index, RegisterClass.NOT_KEPT, value, risk, cause)

    def _arriving(
        self, index: int, value: int, renamed: str, origins: tuple[Origin, ...]
    ) -> RegisterOutcome:
        """A register that comes under another index; then it is compared as any other."""
        own = self._own(index)
        refused = refusal(index, value, self._destination)
        if value >> 8 * describe(index).size:
            refused = TooWide()
        if refused is None:
            cause = Arrives(renamed)
            return self._outcome(
                index, RegisterClass.VALUE_TOLERATED, value, Risk.LOSSLESS, cause, origins
            )
        stated = ValueRefused(refused, value, own, self._harm(index, value), renamed)
        if isinstance(refused, TooWide):
            return self._value_refused(index, value, stated, origins)
        changed = self._other_value(index, value, renamed)
        return changed or self._value_refused(index, value, stated, origins)

    def _other_value(self, index: int, value: int, renamed: str = "") -> RegisterOutcome | None:
        """Another value is sent, by the first rule that may; None where no rule fits."""
        rules = tolerated_values(index, value, self._destination, self._policy)
        return _first_accepted(self._changed(index, value, rule, renamed) for rule in rules)

    def _value_refused(
        self,
        index: int,
        value: int,
        cause: ValueRefused,
        origins: tuple[Origin, ...] = (),
    ) -> RegisterOutcome:
        risk = assess(index, value, cause.own, self._never_ran()).risk
        return self._outcome(index, RegisterClass.VALUE_REFUSED, None, risk, cause, origins)

    def _pinned(self, index: int, value: int) -> RegisterOutcome | None:
        """The outcome of a firmware version that kvm-psci-version pins, None for any other."""
        version = self._policy.psci_version
        if version is None or describe(index).name != "PSCI_VERSION":
            return None
        own = self._own(index)
        if version.value == value and value <= own:
            return None
        if version.value > own:
            return self._outcome(
                index,
                RegisterClass.VALUE_REFUSED,
                None,
                Risk.GUEST_VISIBLE,
                NotOffered(version, own),
                self._policy.psci_origins,
            )
        # no other rule says a value where a version is pinned
        rule = next(tolerated_values(index, value, self._destination, self._policy))
        return self._changed(index, value, rule)


def _first_accepted(outcomes: Iterable[RegisterOutcome]) -> RegisterOutcome | None:
    """The first that is not refused; else the first, which says what is asked of the user."""
    first = None
    for outcome in outcomes:
        if not outcome.refused:
            return outcome
        first = first or outcome
    return first
