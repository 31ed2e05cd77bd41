"""How a move through the gateway ended, as a value and as JSON."""

import enum
from collections import Counter
from dataclasses import dataclass
from typing import Any

from armferry.decide import verdict_document
from armferry.gateway.judge import Judgement

__all__ = ["Ending", "TransferReport"]

SCHEMA = 1


class Ending(enum.StrEnum):
    """What became of a move."""

    COMPLETED = "completed"
    """The destination said on the return path that it has loaded everything."""
    DELIVERED = "delivered"
    """Everything was passed on; without a return path it is unknown whether it was loaded."""
    REFUSED = "refused"
    """The decision refused it; the source has the guest."""
    CANCELLED = "cancelled"
    """The source ended it before its device state was whole; the source has the guest."""
    FAILED = "failed"
    """A connection, a peer or the stream itself failed; `reason` tells which."""

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return {
            Ending.COMPLETED: 0,
            Ending.DELIVERED: 0,
            Ending.REFUSED: 2,
            Ending.CANCELLED: 4,
            Ending.FAILED: 4,
        }[self]


@dataclass(frozen=True, slots=True)
class TransferReport:
    """One move. Bytes are those of all channels; times are in seconds.

    `mode` is `precopy`, `postcopy` or `recovery`. `held_seconds` passed from the first byte of
    device state to the last one sent, `decision_seconds` of them from the last byte that came to
    the first that could be sent.
    `before_state` says that the destination never got a byte of device state, `return_path` that
    the source waits for the destination's last word.
    """

    number: int
    ending: Ending
    reason: str
    machine: str
    mode: str
    channels: int
    bytes_forward: int
    bytes_back: int
    pages: int
    zero_pages: int
    state_bytes: int
    held_seconds: float
    decision_seconds: float
    seconds: float
    before_state: bool
    return_path: bool
    judgement: Judgement | None

    @property
    def moved(self) -> bool:
        """Whether the destination has everything."""
        return self.ending in (Ending.COMPLETED, Ending.DELIVERED)

    @property
    def source_stopped(self) -> bool:
        """Whether the source sent all it had, was refused, and believes that the move is done."""
        return self.before_state and not self.return_path and self.judgement is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the records that the decision was made from."""
        return () if self.judgement is None else self.judgement.notes

    @property
    def fates(self) -> Counter[str]:
        """The same as `classes` in a person's words, each register once for all of its vCPUs."""
        if self.judgement is None:
            return Counter()
        seen = {(one.outcome.index, one.outcome.fate) for one in self.judgement.verdict.events}
        return Counter(fate for _, fate in seen)

    @property
    def classes(self) -> Counter[str]:
        """How many registers of all vCPUs ended in each class but `matched`."""
        counted: Counter[str] = Counter()
        if self.judgement is not None:
            counted.update(e.outcome.register_class.value for e in self.judgement.verdict.events)
        return counted

    def document(self) -> dict[str, Any]:
        """The JSON object of `--json`; `version` counts its schema."""
        return {
            "version": SCHEMA,
            "move": self.number,
            "outcome": self.ending.value,
            "reason": self.reason,
            "machine": self.machine,
            "mode": self.mode,
            "channels": self.channels,
            "bytes_forward": self.bytes_forward,
            "bytes_back": self.bytes_back,
            "pages": self.pages,
            "zero_pages": self.zero_pages,
            "state_bytes": self.state_bytes,
            "held_seconds": round(self.held_seconds, 6),
            "decision_seconds": round(self.decision_seconds, 6),
            "seconds": round(self.seconds, 6),
            "destination_got_state": not self.before_state,
            "return_path": self.return_path,
            "verdict": None if self.judgement is None else verdict_document(self.judgement.verdict),
        }
