"""The physical counter, which kernels before 6.4 leave to the host, on the way there and back."""

import pytest

from armferry.decide import Answer, Risk, judge, make_plan
from armferry.decide.physical_counter import uses_physical_counter
from armferry.ends import End, Move
from armferry.policy import aggregate
from armferry.registers import Accelerator, parse_register

COUNTER = parse_register("CNTPCT_EL0")
CONTROL = parse_register("CNTP_CTL_EL0")
COMPARE = parse_register("CNTP_CVAL_EL0")
ACCESS = parse_register("CNTKCTL_EL1")
LINUX = 0b110 | 7 << 4  # programs read the virtual counter; its events
NEWER = {COUNTER: 0x123456, CONTROL: 0, COMPARE: 0, ACCESS: LINUX}
OLDER = {ACCESS: 0}


def move(guest: dict[int, int], host: dict[int, int], *, fresh: bool = False) -> Move:
    source = End("GUEST", (guest,), Accelerator.KVM, fresh, guest=True, machine="virt-7.2")
    return Move.between(source, End("HOST", (host,), Accelerator.KVM, True), qemu="10.0.13")


@pytest.mark.parametrize(
    ("values", "used"),
    [
        ({}, False),
        ({ACCESS: LINUX}, False),
        ({ACCESS: LINUX | 1}, True),
        ({ACCESS: 1 << 9}, True),
        ({CONTROL: 1}, True),
        ({CONTROL: 4}, False),
        ({COMPARE: 5}, True),
    ],
)
def test_who_uses_it(values: dict[int, int], used: bool) -> None:
    assert uses_physical_counter(NEWER | values) is used


def test_linux_loses_nothing_either_way() -> None:
    policy = aggregate("virt-7.2", Accelerator.KVM)
    there = judge(move(NEWER, OLDER), policy)
    assert (there.answer, there.risk) == (Answer.WORKS_WITH_POLICY, Risk.LOSSLESS)
    (event,) = [event for event in there.events if event.outcome.index == COUNTER]
    assert event.outcome.why == (
        "declared safe to be missing; the guest uses neither the physical counter nor its timer, "
        "so nothing is lost"
    )
    back = judge(move(OLDER | {ACCESS: LINUX}, NEWER), policy)
    assert (back.answer, back.risk) == (Answer.WORKS, Risk.LOSSLESS)


def test_a_guest_that_may_read_it_sees_it_jump_either_way() -> None:
    policy = aggregate("virt-7.2", Accelerator.KVM)
    for one in (
        move(NEWER | {ACCESS: LINUX | 1}, OLDER),
        move(OLDER | {ACCESS: LINUX | 1}, NEWER),
    ):
        found = judge(one, policy)
        assert (found.answer, found.risk) == (Answer.FAILS, Risk.GUEST_VISIBLE)
        plan = make_plan(one, policy)
        assert plan.works
        assert [entry.name for entry in plan.entries] == ["CNTPCT_EL0"]
    fresh = judge(move(OLDER | {ACCESS: LINUX | 1}, NEWER, fresh=True), policy)
    assert fresh.answer is Answer.WORKS
