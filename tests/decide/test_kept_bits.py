"""Values that QEMU under TCG does not read back: predicted, left out where they mean nothing."""

from dataclasses import replace

import pytest

from armferry.decide import Answer, RegisterClass, Risk, Verdict, judge, make_plan
from armferry.ends import End, Move
from armferry.policy import EMPTY, AcceptedRisk, Policy
from armferry.registers import Accelerator, parse_register

COUNTER = parse_register("PMEVCNTR0_EL0")
DFR0 = parse_register("ID_AA64DFR0_EL1")
FPCR = parse_register("FPCR")
MVBAR = parse_register("VBAR_EL1")
TIMER = parse_register("CNTKCTL_EL1")
OSDLR = parse_register("OSDLR_EL1")
WIDE = parse_register("0x40200000200f1800")  # DACR, 32 bits
OVERFLOWN = 0x1_8000_0005
NO_LONG_COUNTERS, LONG_COUNTERS = 0x10305106, 0x10305606


def verdict(
    index: int,
    value: int,
    qemu: str = "10.0.13",
    policy: Policy = EMPTY,
    *,
    source: int = NO_LONG_COUNTERS,
    there: int = NO_LONG_COUNTERS,
) -> Verdict:
    return judge(move(index, value, qemu, source=source, there=there), policy)


def move(index: int, value: int, qemu: str, *, source: int, there: int) -> Move:
    guest = End("GUEST", ({index: value, DFR0: source},), Accelerator.TCG, False, guest=True)
    host = End("HOST", ({index: 0, DFR0: there},), Accelerator.TCG, True, cpu="cortex-a57")
    return Move.between(guest, host, qemu=qemu)


@pytest.mark.parametrize("qemu", ["7.2.22", "10.0.2", "10.0.13", "11.1.3"])
def test_an_event_counter_past_32_bits_is_refused_by_qemu_and_carried(qemu: str) -> None:
    found = verdict(COUNTER, OVERFLOWN, qemu)
    assert found.stock is not None
    assert not found.stock.loads
    assert found.stock.culprits == (COUNTER,)
    assert (found.answer, found.risk) == (Answer.WORKS_WITH_POLICY, Risk.LOSSLESS)
    assert found.lists[0][COUNTER] == 0x8000_0005
    (event,) = found.events
    assert event.outcome.why == (
        "its bits 0x100000000 do not stay and mean nothing (RES0): left out"
    )


@pytest.mark.parametrize(
    ("value", "qemu"),
    [(0xFFFF_FFFF, "10.0.13"), (OVERFLOWN, "5.2.0")],  # 5.2 kept all 64 bits
)
def test_a_counter_that_stays_is_sent_as_it_is(value: int, qemu: str) -> None:
    found = verdict(COUNTER, value, qemu)
    assert (found.answer, found.risk, found.events) == (Answer.WORKS, Risk.NONE, ())
    assert found.stock is not None
    assert found.stock.loads


def test_the_upper_half_of_a_long_counter_is_the_guests() -> None:
    found = verdict(COUNTER, OVERFLOWN, source=LONG_COUNTERS, there=LONG_COUNTERS)
    assert found.answer is Answer.FAILS
    assert found.risk is Risk.LOSSY
    (event,) = [event for event in found.events if event.outcome.refused]
    assert event.outcome.why == "the destination's QEMU does not keep its bits 0x100000000"
    # what stays of it is sent when the loss is accepted
    plan = make_plan(
        move(COUNTER, OVERFLOWN, "10.0.13", source=LONG_COUNTERS, there=LONG_COUNTERS), EMPTY
    )
    assert plan.works
    assert plan.verdict.lists[0][COUNTER] == 0x8000_0005


@pytest.mark.parametrize(
    ("index", "value", "sent"),
    [
        (WIDE, 0xF_1234_5678, 0x1234_5678),
        (MVBAR, 0xFFFF_0000_0000_081F, 0xFFFF_0000_0000_0800),
    ],
)
def test_bits_without_a_meaning_are_left_out(index: int, value: int, sent: int) -> None:
    found = verdict(index, value)
    assert found.lists[0][index] == sent
    assert found.risk is Risk.LOSSLESS
    assert [event.outcome.register_class for event in found.events] == [
        RegisterClass.VALUE_TOLERATED
    ]


def test_a_bit_that_means_something_is_refused_by_name() -> None:
    found = verdict(FPCR, 1 << 19)  # FZ16, which a cortex-a57 has not
    assert [event.outcome.name for event in found.events if event.outcome.refused] == ["FPCR"]
    accepted = replace(EMPTY, accepted=AcceptedRisk(lossy=True))
    assert (
        verdict(FPCR, 1 << 19, policy=accepted).answer is Answer.FAILS
    )  # no rule says which value


def test_a_model_that_nobody_measured_is_told_by_the_older_rule() -> None:
    guest = End("GUEST", ({COUNTER: OVERFLOWN, OSDLR: 0},), Accelerator.TCG, False, guest=True)
    host = End("HOST", ({COUNTER: 0, OSDLR: 0},), Accelerator.TCG, True, cpu="cortex-x99")
    assert judge(Move.between(guest, host, qemu="10.0.13"), EMPTY).answer is Answer.WORKS


def test_kvm_keeps_what_it_takes() -> None:
    guest = End("GUEST", ({COUNTER: OVERFLOWN},), Accelerator.KVM, False, guest=True)
    host = End("HOST", ({COUNTER: 0},), Accelerator.KVM, True, cpu="host")
    assert judge(Move.between(guest, host, qemu="10.0.13"), EMPTY).answer is Answer.WORKS


def test_a_number_of_vcpus_is_not_compared_with_a_record_of_another_number() -> None:
    cores = parse_register("L2CTLR_EL1")
    host = End("HOST", ({cores: 1 << 24},), Accelerator.TCG, True, cpu="cortex-a57")
    answers = []
    for vcpus in (1, 2):
        lists = ({cores: 0},) * vcpus
        guest = End("GUEST", lists, Accelerator.TCG, False, guest=True)
        answers.append(judge(Move.between(guest, host, qemu="10.0.13"), EMPTY).answer)
    assert answers == [Answer.FAILS, Answer.WORKS]
