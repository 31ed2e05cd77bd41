"""What leaves a host where registers are carried: those as after reset stay behind, no other."""

import lzma
from pathlib import Path

from armferry.policy import EMPTY, Policy
from armferry.registers import Accelerator
from armferry.stream import read_saved
from armferry.stream.saved_state import SavedState
from armferry.wrapper.beside.outgoing_judge import HidingJudge

STREAM = Path(__file__).parents[1] / "stream" / "data" / "kvm_6.12_neoverse-n1_10.0.13.mig.xz"
TCR2, PIRE0, PIR = 0x603000000013C103, 0x603000000013C512, 0x603000000013C513


class _Window:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


def _saved() -> SavedState:
    return read_saved(_Window(lzma.decompress(STREAM.read_bytes())))


def _nothing(machine: str, accelerator: Accelerator) -> Policy:
    return EMPTY


def _left(carried: dict[int, int]) -> tuple[bool, set[int]]:
    """Whether the state may leave, and the registers that it leaves with."""
    saved = _saved()
    judgement = HidingJudge(_nothing, carried)(saved.machine, saved.sections)
    (decision,) = judgement.verdict.decisions
    return judgement.accepted, set(decision.outgoing)


def test_nothing_is_carried() -> None:
    accepted, left = _left({})
    assert accepted
    assert {TCR2, PIRE0, PIR} <= left


def test_registers_as_after_reset_stay_behind() -> None:
    own = _saved().cpus[0].registers
    accepted, left = _left({index: own[index] for index in (TCR2, PIRE0, PIR)})
    assert accepted
    assert left.isdisjoint((TCR2, PIRE0, PIR))
    assert left == set(own) - {TCR2, PIRE0, PIR}


def test_register_that_the_guest_wrote_goes_along() -> None:
    own = _saved().cpus[0].registers
    accepted, left = _left({TCR2: own[TCR2] + 1, PIR: own[PIR]})
    assert accepted
    assert TCR2 in left
    assert PIR not in left
