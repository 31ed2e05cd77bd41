"""Moves between Macs: lists compared by place, one register that changed its encoding."""

from collections.abc import Mapping

import pytest

from armferry.decide import Answer, MessageClass, Risk, Verdict, judge
from armferry.ends import End, Move
from armferry.facts.hvf import hvf_order
from armferry.policy import aggregate
from armferry.registers import Accelerator, Arm64System, encode, parse_register

MDSCR = parse_register("MDSCR_EL1")
PFR1, OLD_PFR1 = 0x603000000013C021, 0x603000000013C022
FIXED = (
    *[(2, 0, 0, number, op2) for number in range(4) for op2 in (4, 5, 6, 7)],
    *[(3, 0, 0, 5, 0), (3, 0, 0, 6, 0), (3, 0, 0, 7, 2), (2, 0, 0, 2, 2), (3, 0, 1, 0, 0)],
    *[(3, 0, 2, 0, 0), (3, 0, 2, 0, 1), (3, 0, 2, 0, 2), (3, 0, 4, 0, 0), (3, 0, 4, 0, 1)],
    *[(3, 0, 12, 0, 0), (3, 2, 0, 0, 0), (3, 3, 13, 0, 2), (3, 3, 14, 3, 1), (3, 4, 4, 1, 0)],
)
PLAIN = {encode(Arm64System(*one)): 0 for one in FIXED}


def registers(qemu: str, changes: Mapping[int, int]) -> dict[int, int]:
    values = PLAIN | dict(changes)
    return {index: values[index] for index in hvf_order(values, qemu)}


def moved(
    here: str,
    there: str,
    mine: Mapping[int, int],
    theirs: Mapping[int, int],
    *,
    fresh: bool = False,
) -> Verdict:
    """The guest of a Mac with QEMU `here`, on its way to one with `there`."""
    guest = End("here", (registers(here, mine),), Accelerator.HVF, False, guest=True)
    host = End("there", (registers(there, theirs),), Accelerator.HVF, True, qemu=there)
    return judge(Move.between(guest, host), aggregate("virt-9.0", Accelerator.HVF))


BOTH = {PFR1: 0x20}


@pytest.mark.parametrize("qemu", ["9.1.0", "10.1.0", "10.2.0", "11.1.3"])
def test_same_release_loads_as_it_is(qemu: str) -> None:
    verdict = moved(qemu, qemu, BOTH, BOTH)
    assert (verdict.answer, verdict.risk) == (Answer.WORKS, Risk.NONE)
    assert verdict.stock is not None
    assert verdict.stock.loads


@pytest.mark.parametrize(("here", "there"), [("10.1.0", "10.2.0"), ("10.2.0", "10.1.0")])
def test_another_order_is_refused_by_qemu_and_sent_in_the_destinations(
    here: str, there: str
) -> None:
    verdict = moved(here, there, BOTH, BOTH)
    assert (verdict.answer, verdict.risk) == (Answer.WORKS_WITH_POLICY, Risk.NONE)
    assert [tuple(one) for one in verdict.lists] == [hvf_order(PLAIN | BOTH, there)]
    assert verdict.stock is not None
    assert verdict.stock.message_class is MessageClass.REGISTERS_REFUSED
    assert verdict.stock.culprits == (MDSCR,)


def test_qemu_11_names_it_by_place() -> None:
    """The table's order comes to a list that ascends: one is missing in its place, and unknown."""
    verdict = moved("10.1.0", "11.0.0", BOTH, BOTH)
    assert verdict.stock is not None
    lines = verdict.stock.message.splitlines()
    assert lines[0].startswith("warning: handle_cpreg_missing_in_incoming_stream: system register ")
    assert "handle_cpreg_only_in_incoming_stream" in lines[1]
    assert not verdict.stock.loads


@pytest.mark.parametrize(
    ("here", "there", "old", "new"),
    [("9.0.0", "9.1.0", OLD_PFR1, PFR1), ("9.1.0", "9.0.0", PFR1, OLD_PFR1)],
)
def test_register_that_changed_its_encoding(here: str, there: str, old: int, new: int) -> None:
    verdict = moved(here, there, {old: 0x20}, {new: 0x20})
    assert (verdict.answer, verdict.risk) == (Answer.WORKS_WITH_POLICY, Risk.LOSSLESS)
    (sent,) = verdict.lists
    assert sent[new] == 0x20
    assert old not in sent
    assert verdict.stock is not None
    assert not verdict.stock.loads


def test_fields_that_change_with_it_are_the_guests_to_notice() -> None:
    verdict = moved("9.0.0", "9.1.0", {OLD_PFR1: 0x20}, {PFR1: 0x21})
    assert verdict.answer is Answer.FAILS
    (refused,) = verdict.decisions[0].refused
    assert (refused.name, refused.risk) == ("ID_AA64PFR1_EL1", Risk.GUEST_VISIBLE)


def test_guest_of_whpx_does_not_move() -> None:
    end = End("windows", (PLAIN,), Accelerator.WHPX, True)
    verdict = judge(Move.between(end, end), aggregate("virt-10.0", Accelerator.WHPX))
    assert verdict.answer is Answer.FAILS
    assert len(verdict.obstacles) == 1
    assert verdict.obstacles[0].startswith("a guest under WHPX cannot be moved at all")
    assert verdict.events == ()
