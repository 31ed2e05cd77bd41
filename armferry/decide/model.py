"""The values of a decision: classes, risks, and what was decided for each register.

Knows what can be said of one register and of one vCPU; refuses to know how it is found out
(`merge`) and where lists come from.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from armferry.decide.causes import Cause
from armferry.decide.risk_level import Risk
from armferry.decide.words import why
from armferry.policy import Origin

__all__ = ["Decision", "RegisterClass", "RegisterOutcome"]


class RegisterClass(enum.StrEnum):
    """Where each register of the two lists ends; exactly one of these."""

    MATCHED = "matched"
    HIDDEN = "hidden"
    TOLERATED_ONLY_INCOMING = "tolerated, only incoming"
    ONLY_INCOMING = "only incoming"
    TOLERATED_ONLY_DESTINATION = "tolerated, only on the destination"
    ONLY_DESTINATION = "only on the destination"
    NOT_KEPT = "value not kept"
    VALUE_TOLERATED = "value tolerated"
    VALUE_REFUSED = "value refused"

    @property
    def refused(self) -> bool:
        """Whether one register of this class refuses the whole load."""
        return self in (RegisterClass.ONLY_INCOMING, RegisterClass.VALUE_REFUSED)


@dataclass(frozen=True, slots=True)
class RegisterOutcome:
    """What becomes of one register.

    Values are None on the side that lacks the register; `outgoing` is the value sent to the
    destination, None when it is left out. `origins` are the rules that allowed it.
    """

    index: int
    name: str
    register_class: RegisterClass
    source: int | None
    destination: int | None
    outgoing: int | None
    risk: Risk
    cause: Cause
    origins: tuple[Origin, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether this register refuses the load."""
        return self.register_class.refused

    @property
    def fate(self) -> str:
        """What becomes of it, as a person reads it: `only in source: dropped`."""
        match self.register_class:
            case RegisterClass.TOLERATED_ONLY_INCOMING:
                return "only in source: dropped"
            case RegisterClass.ONLY_INCOMING:
                return "only in source: refused"
            case RegisterClass.TOLERATED_ONLY_DESTINATION | RegisterClass.ONLY_DESTINATION:
                return f"only on destination: {'kept' if self.outgoing is None else 'sent'}"
            case RegisterClass.VALUE_TOLERATED:
                return "value rewritten"
            case other:
                return other.value

    @property
    def why(self) -> str:
        """The cause in words, empty where it is simply matched."""
        return why(self.index, self.name, self.cause)


@dataclass(frozen=True)
class Decision:
    """The verdict on one vCPU: an outcome for every register of both lists, by index.

    `order` are the destination's registers in its own order, empty where that ascends; `reordered`
    says that the guest's come in another.
    """

    outcomes: tuple[RegisterOutcome, ...]
    order: tuple[int, ...] = ()
    reordered: bool = False

    @cached_property
    def anomalies(self) -> tuple[RegisterOutcome, ...]:
        """Every register that is not simply matched."""
        matched = RegisterClass.MATCHED
        return tuple(one for one in self.outcomes if one.register_class is not matched)

    @property
    def refused(self) -> tuple[RegisterOutcome, ...]:
        """The registers that refuse the load; empty when it is accepted."""
        return tuple(outcome for outcome in self.anomalies if outcome.refused)

    @property
    def accepted(self) -> bool:
        """Whether no register refuses the load."""
        return not self.refused

    @cached_property
    def outgoing(self) -> dict[int, int]:
        """The list to send, in the destination's order; only of use when the load is accepted."""
        sent = {one.index: one.outgoing for one in self.outcomes if one.outgoing is not None}
        if not self.order:
            return sent
        place = {index: number for number, index in enumerate(self.order)}
        return dict(sorted(sent.items(), key=lambda one: place[one[0]]))

    @property
    def altered(self) -> bool:
        """Whether the list that is sent is another than the one that came."""
        others = any(outcome.outgoing != outcome.source for outcome in self.anomalies)
        return others or self.reordered

    @property
    def risk(self) -> Risk:
        """The highest risk of any register."""
        return max((outcome.risk for outcome in self.anomalies), default=Risk.NONE)

    def with_others(self, others: Mapping[int, RegisterOutcome]) -> "Decision":
        """The same but for the registers in `others`, all of which it has."""
        outcomes = list(self.outcomes)
        for index, outcome in others.items():
            outcomes[self._places[index]] = outcome
        made = Decision(tuple(outcomes), self.order, self.reordered)
        sent = {index: one.outgoing for index, one in others.items() if one.outgoing is not None}
        if len(sent) == len(others) and sent.keys() <= self.outgoing.keys():
            # the same registers are sent: the list need not be made out of the outcomes again
            made.__dict__["outgoing"] = self.outgoing | sent
        return made

    @cached_property
    def _places(self) -> dict[int, int]:
        return {outcome.index: place for place, outcome in enumerate(self.outcomes)}
