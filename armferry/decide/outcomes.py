"""How an outcome of a register is made, whichever class it ends in.

What it costs the guest is asked of `risk`, whether it may be done unasked of `consent`.
"""

from collections.abc import Mapping

from armferry.decide.causes import (
    Cause,
    Dropped,
    Hidden,
    Permission,
    ValueChanged,
)
from armferry.decide.consent import accepts
from armferry.decide.harms import Evidence, Harm, NeverRan
from armferry.decide.model import RegisterClass, RegisterOutcome
from armferry.decide.reset import reset_evidence
from armferry.decide.risk import assess
from armferry.decide.risk_level import Risk
from armferry.decide.values import ValueRule
from armferry.ends import UNKNOWN, Destination, NotKnown, SourceFacts
from armferry.policy import (
    Origin,
    Policy,
)
from armferry.registers import Accelerator, accelerator_of, name

__all__ = ["Outcomes"]


class Outcomes:
    """Outcomes of the registers of one vCPU; its list tells an unknown `source_accelerator`."""

    def __init__(
        self,
        incoming: Mapping[int, int],
        destination: Destination,
        policy: Policy,
        facts: SourceFacts,
        source_accelerator: Accelerator | None,
    ) -> None:
        self._incoming = incoming
        self._destination = destination
        self._policy = policy
        self._facts = facts
        self._kvm = destination.accelerator is Accelerator.KVM
        self._source_accelerator = source_accelerator or accelerator_of(incoming)

    def _name(self, index: int) -> str:
        return name(index, self._source_accelerator)

    def _own(self, index: int) -> int:
        return self._destination.registers[index]

    def _outcome(
        self,
        index: int,
        group: RegisterClass,
        outgoing: int | None,
        risk: Risk,
        cause: Cause,
        origins: tuple[Origin, ...] = (),
    ) -> RegisterOutcome:
        return RegisterOutcome(
            index,
            self._name(index),
            group,
            self._incoming.get(index),
            self._destination.registers.get(index),
            outgoing,
            risk,
            cause,
            origins,
        )

    def _changed(
        self, index: int, value: int, rule: ValueRule, renamed: str = ""
    ) -> RegisterOutcome:
        """Another value is sent, by a rule, if its risk is allowed."""
        found = assess(index, value, rule.value, self._never_ran())
        allowed = self._accepts(index, found.risk, rule.origins, named=rule.named)
        return self._outcome(
            index,
            RegisterClass.VALUE_TOLERATED if allowed else RegisterClass.VALUE_REFUSED,
            rule.value if allowed else None,
            found.risk,
            ValueChanged(
                rule.rule, value, rule.value, found.harm, renamed, None if allowed else found.risk
            ),
            rule.origins,
        )

    def _hidden(self, index: int) -> RegisterOutcome:
        return self._dropped(index, Hidden(), self._policy.hidden[index])

    def _dropped(
        self,
        index: int,
        permission: Permission,
        origins: tuple[Origin, ...],
        evidence: Evidence | None = None,
        *,
        named: bool = True,
    ) -> RegisterOutcome:
        """The source's value does not travel, by a rule, if its risk is allowed."""
        there = index in self._destination.registers
        found = assess(
            index,
            self._incoming[index],
            self._reads_later(index),
            evidence or self._evidence(index),
        )
        if self._accepts(index, found.risk, origins, named=named):
            hidden = isinstance(permission, Hidden)
            return self._outcome(
                index,
                RegisterClass.HIDDEN if hidden else RegisterClass.TOLERATED_ONLY_INCOMING,
                self._own(index) if there and not self._kvm else None,
                found.risk,
                Dropped(permission, found.harm),
                origins,
            )
        return self._outcome(
            index,
            RegisterClass.VALUE_REFUSED if there else RegisterClass.ONLY_INCOMING,
            None,
            found.risk,
            Dropped(permission, found.harm, asks=found.risk),
            origins,
        )

    def _reads_later(self, index: int) -> int | NotKnown | None:
        """What the guest reads once its own value did not travel; None without the register.

        Under KVM nothing is sent, so that it is the destination's reset value: a list that was
        taken from a guest that ran does not tell it. Under TCG a register that is left out would
        be loaded from a slot that QEMU (up to 10.x) never filled, so the destination's is sent.
        """
        own = self._destination.registers.get(index)
        if own is None:
            return self._destination.unlisted.get(index)
        return UNKNOWN if self._kvm and not self._destination.at_reset else own

    def _evidence(self, index: int) -> Evidence | None:
        return reset_evidence(
            index,
            self._incoming,
            self._facts,
            self._policy.resets,
            self._source_accelerator,
        )

    def _never_ran(self) -> Evidence | None:
        return NeverRan() if self._facts.fresh else None

    def _harm(self, index: int, value: int) -> Harm:
        return assess(index, value, self._own(index), self._never_ran()).harm

    def _accepts(self, index: int, risk: Risk, origins: tuple[Origin, ...], *, named: bool) -> bool:
        return accepts(self._policy.accepted, index, risk, origins, named=named)
