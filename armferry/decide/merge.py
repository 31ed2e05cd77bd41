"""The heart: an incoming list, a destination and a policy in, an outcome for each register out.

Rules that hold here: no I/O; one linear merge of two ascending lists, both drained to their
ends; each register ends in exactly one class; nothing stops at the first refusal, and one
refused register refuses the load whatever comes after it.
"""

from collections.abc import Iterable, Iterator, Mapping

from armferry.decide.model import (
    Decision,
    Outcome,
    RegisterClass,
    Risk,
)
from armferry.decide.reset import read_only, reset_evidence
from armferry.decide.values import (
    ValueRule,
    differences,
    names_register,
    refusal,
    tolerated_values,
)
from armferry.ends import Destination, SourceFacts
from armferry.facts import tcg_ignores_writes
from armferry.policy import (
    NotOnBothEnds,
    OnlySourceIf,
    OnlySourceIfReset,
    Origin,
    Policy,
    Rekey,
    Source,
)
from armferry.registers import (
    Accelerator,
    accelerator_of,
    describe,
    explain_value,
    kind,
    name,
)

__all__ = ["UNNAMED", "UNRULED", "decide"]

UNRULED = " and no rule allows dropping it"
UNNAMED = "; not done unless you name it"
"""What a refusal says and the reason of the rule that lifts it does not."""

_NO_FACTS = SourceFacts()
_USER = (Source.SITE, Source.FILE, Source.COMMAND_LINE)


def decide(
    incoming: Mapping[int, int],
    destination: Destination,
    policy: Policy,
    facts: SourceFacts = _NO_FACTS,
) -> Decision:
    """What the load of `incoming` on `destination` does under `policy`, register by register."""
    return _Merge(incoming, destination, policy, facts).run()


class _Merge:
    def __init__(
        self,
        incoming: Mapping[int, int],
        destination: Destination,
        policy: Policy,
        facts: SourceFacts,
    ) -> None:
        self._incoming = incoming
        self._destination = destination
        self._policy = policy
        self._facts = facts
        self._source_accelerator = accelerator_of(incoming)
        self._rekeyed = self._rekeys()  # new index -> (old index, origins)
        self._new_index = {old: (new, origins) for new, (old, origins) in self._rekeyed.items()}

    def run(self) -> Decision:
        own = self._destination.registers
        left, right = sorted(self._incoming), sorted(own)
        outcomes: list[Outcome] = []
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
        return Decision(tuple(outcomes))

    # -- one register

    def _only_incoming(self, index: int) -> Outcome:
        value = self._incoming[index]
        if index in self._policy.hidden:
            return self._dropped(
                index, RegisterClass.HIDDEN, "hidden from the VM", self._policy.hidden[index]
            )
        new = self._new_index.get(index)
        if new is not None:
            target, origins = new
            return self._outcome(
                index,
                RegisterClass.TOLERATED_ONLY_INCOMING,
                value,
                None,
                None,
                Risk.LOSSLESS,
                f"sent as {self._name(target)}, its name on the destination",
                origins,
            )
        allowed = _first_accepted(self._permissions(index))
        if allowed is not None:
            return allowed
        evidence = self._evidence(index)
        risk = self._drop_risk(index, evidence)
        if evidence and risk is Risk.LOSSLESS:
            state = evidence
        elif read_only(index):
            state = self._then_reads(index)
        else:
            state = f"the guest's value is {value:#x}"
        return self._outcome(
            index,
            RegisterClass.ONLY_INCOMING,
            value,
            None,
            None,
            risk,
            f"the destination does not know it{UNRULED}; {state}",
        )

    def _permissions(self, index: int) -> Iterator[Outcome]:
        """What each rule that lets a register be missing makes of it, in their order."""
        value = self._incoming[index]
        group = RegisterClass.TOLERATED_ONLY_INCOMING
        if index in self._policy.safe_missing:
            origins = self._policy.safe_missing[index]
            yield self._dropped(index, group, "declared safe to be missing", origins)
        for placed in self._policy.tolerances_for(index):
            match placed.tolerance:
                case NotOnBothEnds():
                    words = "may exist on one end only"
                case OnlySourceIf(mask=mask, expected=expected) if value & mask == expected:
                    words = f"may be dropped while value & {mask:#x} is {expected:#x}"
                case OnlySourceIfReset(reset=reset) if value in reset or self._evidence(index):
                    words = "may be dropped while it holds its reset value"
                case _:
                    continue
            known = isinstance(placed.tolerance, OnlySourceIfReset) and (
                value in placed.tolerance.reset
            )
            yield self._dropped(
                index,
                group,
                words,
                placed.origins,
                known=known,
                named=names_register(placed.tolerance),
            )

    def _only_destination(self, index: int) -> Outcome:
        own = self._destination.registers[index]
        arriving = self._rekeyed.get(index)
        if arriving is not None:
            value = self._incoming[arriving[0]]
            refused = refusal(index, value, self._destination)
            words = f"comes as {self._name(arriving[0])}, its name on the source"
            if refused is not None:
                words += f"; {refused}: {differences(index, value, own)}"
            return self._outcome(
                index,
                RegisterClass.VALUE_TOLERATED if refused is None else RegisterClass.VALUE_REFUSED,
                None,
                own,
                value if refused is None else None,
                Risk.LOSSLESS if refused is None else Risk.GUEST_VISIBLE,
                words,
                arriving[1],
            )
        origins: tuple[Origin, ...] = ()
        group, named = RegisterClass.ONLY_DESTINATION, True
        if index in self._policy.hidden:
            group, origins = RegisterClass.HIDDEN, self._policy.hidden[index]
        else:
            for placed in reversed(self._policy.tolerances_for(index)):
                if isinstance(placed.tolerance, NotOnBothEnds):
                    group = RegisterClass.TOLERATED_ONLY_DESTINATION
                    origins, named = placed.origins, names_register(placed.tolerance)
        sent = self._own_value(index)
        if not sent or self._destination.at_reset or tcg_ignores_writes(index):
            return self._outcome(
                index, group, None, own, sent, Risk.LOSSLESS, self._keeps(), origins
            )
        risk, words = Risk.GUEST_VISIBLE, f"{sent:#x} is what another guest left there"
        allowed = self._allowed(index, risk, origins, named)
        if not allowed:
            group, sent, words = RegisterClass.VALUE_REFUSED, None, words + self._asks(index, risk)
        words = f"the source does not have it; {words}"
        return self._outcome(index, group, None, own, sent, risk, words, origins)

    def _on_both(self, index: int) -> Outcome:
        value = self._incoming[index]
        own = self._destination.registers[index]
        if index in self._policy.hidden:
            return self._dropped(
                index, RegisterClass.HIDDEN, "hidden from the VM", self._policy.hidden[index]
            )
        pinned = self._pinned(index, value)
        if pinned is not None:
            return pinned
        refused = refusal(index, value, self._destination)
        if refused is None:
            return self._outcome(index, RegisterClass.MATCHED, value, own, value, Risk.NONE, "")
        rules = tolerated_values(index, value, self._destination, self._policy)
        allowed = _first_accepted(self._changed(index, rule) for rule in rules)
        if allowed is not None:
            return allowed
        return self._outcome(
            index,
            RegisterClass.VALUE_REFUSED,
            value,
            own,
            None,
            self._value_risk(index),
            f"{refused}: {differences(index, value, own)}",
        )

    def _pinned(self, index: int, value: int) -> Outcome | None:
        """The outcome of a firmware version that kvm-psci-version pins, None for any other."""
        if self._policy.psci_version is None or describe(index).name != "PSCI_VERSION":
            return None
        pinned = self._policy.psci_version.value
        own = self._destination.registers[index]
        if pinned == value and value <= own:
            return None
        rule = next(tolerated_values(index, value, self._destination, self._policy), None)
        if pinned > own or rule is None:
            return self._outcome(
                index,
                RegisterClass.VALUE_REFUSED,
                value,
                own,
                None,
                Risk.GUEST_VISIBLE,
                f"kvm-psci-version pins PSCI {self._policy.psci_version}, which the "
                f"destination does not offer: {differences(index, pinned, own)}",
                self._policy.psci_origins,
            )
        return self._changed(index, rule)

    # -- what is common to several classes

    def _name(self, index: int) -> str:
        return name(index, self._source_accelerator)

    def _outcome(
        self,
        index: int,
        group: RegisterClass,
        source: int | None,
        destination: int | None,
        outgoing: int | None,
        risk: Risk,
        why: str,
        origins: tuple[Origin, ...] = (),
    ) -> Outcome:
        return Outcome(
            index, self._name(index), group, source, destination, outgoing, risk, why, origins
        )

    def _changed(self, index: int, rule: ValueRule) -> Outcome:
        """Another value is sent, by a rule, if its risk is allowed."""
        value = self._incoming[index]
        own = self._destination.registers[index]
        risk = self._value_risk(index)
        allowed = self._allowed(index, risk, rule.origins, rule.named)
        change = differences(index, value, rule.value)
        return self._outcome(
            index,
            RegisterClass.VALUE_TOLERATED if allowed else RegisterClass.VALUE_REFUSED,
            value,
            own,
            rule.value if allowed else None,
            risk,
            f"{rule.why}: {change}" + ("" if allowed else self._asks(index, risk)),
            rule.origins,
        )

    def _dropped(
        self,
        index: int,
        group: RegisterClass,
        words: str,
        origins: tuple[Origin, ...],
        *,
        known: bool = False,
        named: bool = True,
    ) -> Outcome:
        """The source's value does not travel, by a rule, if its risk is allowed."""
        value = self._incoming[index]
        own = self._destination.registers.get(index)
        evidence = "its value is a reset value by the rule" if known else self._evidence(index)
        if evidence is None and own == value:
            evidence = "the destination holds the same value"
        risk = Risk.LOSSLESS if own == value else self._drop_risk(index, evidence)
        if risk is Risk.LOSSLESS:
            cost = f"{evidence}, so nothing is lost"
        elif read_only(index):
            cost = self._then_reads(index)
        else:
            cost = f"its value {value:#x} is lost"
        allowed = self._allowed(index, risk, origins, named)
        if not allowed:
            group = RegisterClass.ONLY_INCOMING if own is None else RegisterClass.VALUE_REFUSED
            cost += self._asks(index, risk)
        return self._outcome(
            index,
            group,
            value,
            own,
            self._own_value(index) if allowed and own is not None else None,
            risk,
            f"{words}; {cost}",
            origins,
        )

    def _evidence(self, index: int) -> str | None:
        return reset_evidence(
            index,
            self._incoming[index],
            self._facts,
            self._policy.resets,
            self._source_accelerator,
        )

    def _drop_risk(self, index: int, evidence: str | None) -> Risk:
        """The risk of leaving a register out; what firmware offers was told, reset or not."""
        offered = kind(index).is_firmware and self._incoming[index] and not self._facts.fresh
        if offered:
            return Risk.GUEST_VISIBLE
        return Risk.LOSSLESS if evidence else self._value_risk(index)

    def _then_reads(self, index: int) -> str:
        """What changes for a guest that can only read the register."""
        own = self._destination.registers.get(index)
        now, then = (
            "what nobody listed" if value is None else explain_value(index, value) or f"{value:#x}"
            for value in (self._incoming[index], own)
        )
        return f"the guest reads {now} there now and then {then}"

    def _value_risk(self, index: int) -> Risk:
        """The risk of giving the guest another value than the one it has."""
        if self._facts.fresh:
            return Risk.LOSSLESS
        return Risk.GUEST_VISIBLE if read_only(index) else Risk.LOSSY

    def _allowed(self, index: int, risk: Risk, origins: tuple[Origin, ...], named: bool) -> bool:
        if risk <= Risk.LOSSLESS:
            return True
        accepted = self._policy.accepted
        if index in accepted.registers:
            return True
        if risk is Risk.GUEST_VISIBLE and (accepted.guest_visible or accepted.lossy):
            return True
        if risk is Risk.LOSSY and accepted.lossy:
            return True
        return named and any(origin.source in _USER for origin in origins)

    def _asks(self, index: int, risk: Risk) -> str:
        return f"{UNNAMED} (--accept-risk {self._name(index)} or {risk})"

    def _own_value(self, index: int) -> int | None:
        """What is sent for a register whose value does not come from the source.

        Under TCG a register that is left out would be loaded from a slot nobody filled (QEMU
        up to 10.x); under KVM leaving it out lets a running counter run on.
        """
        if self._destination.accelerator is Accelerator.KVM:
            return None
        return self._destination.registers[index]

    def _keeps(self) -> str:
        if self._destination.accelerator is Accelerator.KVM:
            return "the source does not have it; keeps its reset value"
        what = "its reset value" if self._destination.at_reset else "the value it was recorded with"
        return f"the source does not have it; sent at {what}"

    def _rekeys(self) -> dict[int, tuple[int, tuple[Origin, ...]]]:
        """Each re-keying that applies to these lists."""
        found: dict[int, tuple[int, tuple[Origin, ...]]] = {}
        for placed in self._policy.tolerances:
            rule = placed.tolerance
            if (
                isinstance(rule, Rekey)
                and rule.select in self._incoming
                and rule.select not in self._destination.registers
                and rule.new in self._destination.registers
                and rule.new not in self._incoming
                and not {rule.select, rule.new} & self._policy.hidden.keys()
            ):
                found.setdefault(rule.new, (rule.select, placed.origins))
        return found


def _first_accepted(outcomes: Iterable[Outcome]) -> Outcome | None:
    """The first that is not refused; else the first, which says what is asked of the user."""
    first = None
    for outcome in outcomes:
        if not outcome.refused:
            return outcome
        first = first or outcome
    return first
