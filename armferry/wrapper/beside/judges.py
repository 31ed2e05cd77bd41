"""The judges of a wrapped QEMU's migrations: one that is still being made, one that is heard."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from armferry.gateway import Judge
from armferry.gateway.errors import Refused
from armferry.gateway.judge import Judgement
from armferry.gateway.session import Judging
from armferry.stream.events import DeviceSection, RamBlock

__all__ = ["LoggingJudge", "Notify", "PendingJudge"]

Notify = Callable[[str], None]
"""Says something to the person who started QEMU."""


class PendingJudge:
    """A judge that is still being made: what the destination accepts is asked meanwhile."""

    def __init__(self, made: "Future[Judge]") -> None:
        self._made = made

    def begin(self, machine: str, blocks: tuple[RamBlock, ...]) -> None:
        """Nothing: the destination is a QEMU with its own command line, which compares them."""

    def prepare(self, machine: str) -> None:
        """Waits, and lets the real judge prepare."""
        self._made.result().prepare(machine)

    def __call__(self, machine: str, sections: Sequence[DeviceSection]) -> Judgement:
        """The real judge's decision. Raises what making it raised."""
        return self._made.result()(machine, sections)


class LoggingJudge:
    """A judge whose refusals are printed before anything is done about them, so that a log has
    the reason when QEMU says that its migration failed."""

    def __init__(self, judge: Judging, notify: Notify) -> None:
        self._judge = judge
        self._notify = notify

    def begin(self, machine: str, blocks: tuple[RamBlock, ...]) -> None:
        """Lets the judge compare them. Raises Refused."""
        try:
            self._judge.begin(machine, blocks)
        except Refused as refused:
            self._notify(str(refused))
            raise

    def prepare(self, machine: str) -> None:
        """Lets the judge prepare."""
        self._judge.prepare(machine)

    def __call__(self, machine: str, sections: Sequence[DeviceSection]) -> Judgement:
        """The judge's decision. Raises what the judge raises."""
        judgement = self._judge(machine, sections)
        if not judgement.accepted:
            self._notify(f"the migration is refused: {judgement.reason}")
        return judgement
