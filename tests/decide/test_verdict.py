"""The verdict on a whole guest: what counts as a change, what is shared, what was not measured."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.decide import Answer, Risk, decide, judge, stock_verdict, verdict_document
from armferry.decide.shared import decide_all
from armferry.ends import Destination, End, Move
from armferry.policy import EMPTY, Policy, from_options
from armferry.registers import Accelerator, parse_register
from armferry.stream.description import DeviceLayout, StructLayout

from .moves import move_of
from .test_decision_laws import destinations, policies, register_lists

TTBR, MPIDR, PSCI, ISAR0 = (
    parse_register(name) for name in ("TTBR0_EL1", "MPIDR_EL1", "PSCI_VERSION", "ID_AA64ISAR0_EL1")
)
KVM, TCG = Accelerator.KVM, Accelerator.TCG


def cpu(*parts: str) -> DeviceLayout:
    below = tuple(StructLayout(name, 1, (), ()) for name in parts)
    return DeviceLayout("cpu", 0, 22, StructLayout("cpu", 22, (), below))


def test_a_subsection_that_is_left_out_is_a_change_though_no_register_is() -> None:
    move = move_of(
        [{TTBR: 1}],
        Destination({TTBR: 0}, TCG),
        source=(cpu("cpu/fpmr"),),
        destination=(cpu(),),
        contents=({"cpu/fpmr": bytes(8)},),
        qemu="10.0.13",
    )
    verdict = judge(move, EMPTY)
    assert not any(decision.altered for decision in verdict.decisions)
    assert (verdict.answer, verdict.changed) == (Answer.WORKS_WITH_POLICY, True)
    assert verdict.dropped_subsections(0) == {"cpu/fpmr"}


@pytest.mark.parametrize(("pin", "sent"), [("1.1", 0x10001), ("1.0", 0x10000), ("1.3", None)])
def test_a_pin_decides_and_no_cap_beside_it(pin: str, sent: int | None) -> None:
    policy = from_options(
        psci_versions=[pin],
        tolerate=["PSCI_VERSION: cap at destination"],
        accept_risk=["guest-visible"],
    )
    [outcome] = decide({PSCI: 0x10003}, Destination({PSCI: 0x10001}, KVM), policy).outcomes
    assert outcome.outgoing == sent
    assert outcome.refused is (sent is None)


@given(register_lists, destinations, policies, st.data())
def test_what_vcpus_share_is_decided_once_with_the_same_result(
    incoming: dict[int, int], there: Destination, policy: Policy, data: st.DataObject
) -> None:
    if not incoming:
        return
    changed = data.draw(st.sets(st.sampled_from(sorted(incoming))))
    others = {index: data.draw(st.sampled_from([0, 1, 5, 0x10003])) for index in sorted(changed)}
    move = move_of([incoming, incoming | others, incoming], there, qemu="11.1.3")
    for registers, decision in zip(move.lists, decide_all(move, policy), strict=True):
        alone = decide(registers, move.destinations[0], policy)
        assert decision == alone
        assert (decision.outgoing, decision.risk) == (alone.outgoing, alone.risk)
        assert list(decision.outgoing) == list(alone.outgoing)


def test_counter_is_judged_by_the_timer_of_its_own_vcpu() -> None:
    """The second vCPU uses the physical timer, which the first does not."""
    counter, control = parse_register("CNTPCT_EL0"), parse_register("CNTP_CTL_EL0")
    access = parse_register("CNTKCTL_EL1")
    idle = {PSCI: 0x10001, access: 0, counter: 0x1234, control: 0}
    there = Destination({PSCI: 0x10001, access: 0, control: 0}, KVM)
    move = move_of([idle, idle | {control: 1}], there)
    shared = decide_all(move, EMPTY)
    alone = [decide(registers, there, EMPTY) for registers in move.lists]
    assert list(shared) == alone
    assert shared[0].risk < shared[1].risk


def test_stock_verdict_looks_at_the_value_of_every_vcpu() -> None:
    lists = [{ISAR0: 1, MPIDR: 0}, {ISAR0: 2, MPIDR: 1}]
    verdict = stock_verdict(move_of(lists, Destination({ISAR0: 1, MPIDR: 0}, TCG), qemu="10.0.13"))
    assert verdict.culprits == (ISAR0,)
    assert "instance 0x1" in verdict.message
    same = [{ISAR0: 1, MPIDR: 0}, {ISAR0: 1, MPIDR: 1}]
    assert stock_verdict(
        move_of(same, Destination({ISAR0: 1, MPIDR: 0}, TCG), qemu="10.0.13")
    ).loads


def test_what_stock_qemu_drops_unseen_is_no_reason_to_refuse() -> None:
    """11.1 lets an unknown register pass where a tolerated one sorts last."""
    tolerated = parse_register("PIR_EL1")
    unknown = parse_register("TPIDR_EL0") & ~0xFFFF | 0xC100 + 9
    guest = {PSCI: 0x10001, unknown: 0, tolerated: 0}
    move = move_of([guest], Destination({PSCI: 0x10001}, KVM), qemu="11.1.3")
    assert stock_verdict(move).loads
    verdict = judge(move, EMPTY)
    assert (verdict.answer, verdict.risk) == (Answer.WORKS_WITH_POLICY, Risk.LOSSLESS)
    lossy = move_of([guest | {unknown: 7}], Destination({PSCI: 0x10001}, KVM), qemu="11.1.3")
    assert judge(lossy, EMPTY).answer is Answer.FAILS


@pytest.mark.parametrize(
    ("qemu", "machine", "kernel", "said"),
    [
        ("11.1.3", "virt-11.1", "7.3.4", []),
        ("12.0.0", "virt-11.1", "7.3.4", ["QEMU 12.0.0: not measured beyond 11.1.3"]),
        ("4.2.0", "virt-11.1", "7.3.4", ["QEMU 4.2.0: not measured before 5.2.0"]),
        ("11.1.3", "virt-12.0", "7.3.4", ["machine type virt-12.0: not measured beyond virt-11.1"]),
        ("11.1.3", "virt-11.1", "7.4.0", ["Linux 7.4.0: not measured beyond 7.3"]),
        ("11.0.92", "virt-11.1", "7.3.4", []),
    ],
)
def test_what_was_not_measured_is_said(
    qemu: str, machine: str, kernel: str, said: list[str]
) -> None:
    move = move_of([{TTBR: 1}], Destination({TTBR: 0}, KVM), qemu=qemu)
    move = Move(
        replace(move.source, machine=machine),
        replace(move.destination, machine=machine, kernel=kernel),
        move.reset,
        move.qemu,
    )
    verdict = judge(move, EMPTY)
    assert verdict_document(verdict)["unmeasured"] == said
    assert [note for note in verdict.notes if "not measured" in note] == [
        f"{one}: what is known of {one.rpartition(' ')[2]} is taken for it" for one in said
    ]


def test_what_is_left_out_of_each_section_is_listed_by_section() -> None:
    parts = ("arm_gicv3/gicd_nmi", "arm_gicv3_cpu/nmi")

    def device(instance: int, *inside: str) -> DeviceLayout:
        below = tuple(StructLayout(name, 1, (), ()) for name in inside)
        return DeviceLayout("arm_gicv3", instance, 1, StructLayout("arm_gicv3", 1, (), below))

    guest = End(
        "GUEST",
        ({TTBR: 1},),
        TCG,
        False,
        guest=True,
        devices=(device(0, *parts), device(1, *parts)),
        parts={
            ("arm_gicv3", 0, parts[0]): bytes(4),
            ("arm_gicv3", 0, parts[1]): bytes(4),
            ("arm_gicv3", 1, parts[0]): bytes(4),
            ("arm_gicv3", 1, parts[1]): b"\0\0\0\1",  # in use
        },
    )
    host = End("HOST", ({TTBR: 0},), TCG, True, devices=(device(0), device(1)))
    verdict = judge(Move.between(guest, host, qemu="7.2.22"), EMPTY)
    assert verdict.dropped_elsewhere == {
        ("arm_gicv3", 0): frozenset(parts),
        ("arm_gicv3", 1): frozenset(parts[:1]),
    }
    assert verdict.dropped_subsections(0) == frozenset()
    assert not verdict.all_compared  # of a host without memory, machine type and the rest


def test_a_pin_of_psci_says_nothing_of_other_firmware() -> None:
    workaround = parse_register("SMCCC_ARCH_WORKAROUND_1")
    policy = from_options(
        psci_versions=["1.1"],
        tolerate=["SMCCC_ARCH_WORKAROUND_1: cap at destination"],
        accept_risk=["guest-visible"],
    )
    [outcome] = decide({workaround: 2}, Destination({workaround: 1}, KVM), policy).outcomes
    assert outcome.outgoing == 1
    assert outcome.why == "it is capped at the destination's: not required -> available"


def test_no_cap_at_a_version_that_there_is_not() -> None:
    policy = from_options(
        tolerate=["PSCI_VERSION: cap at destination"], accept_risk=["guest-visible"]
    )
    [outcome] = decide({PSCI: 0x3}, Destination({PSCI: 0x10001}, KVM), policy).outcomes
    assert outcome.refused
    assert outcome.outgoing is None
