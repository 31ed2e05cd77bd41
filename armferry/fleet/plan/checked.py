"""What a check of a plan comes to."""

from dataclasses import dataclass, field

__all__ = ["Checked"]


@dataclass
class Checked:
    """What was found: `faults`, in the order of the plan, and what it really costs."""

    faults: list[str] = field(default_factory=list)
    cost: dict[str, int] = field(default_factory=dict)
    waves: int = 0
    steps: int = 0
    one_way: int = 0
    exempt: list[str] = field(default_factory=list)
    """Guests that had nowhere to go before the first step: no wave is held to it."""

    @property
    def holds(self) -> bool:
        """Whether the plan can be carried out as it is written."""
        return not self.faults
