"""The smallest policy, in all four forms; data/plan.txt shows them for review."""

from pathlib import Path
from typing import Any

import pytest

from armferry.decide import (
    Answer,
    Plan,
    Risk,
    judge,
    make_plan,
    plan_compat,
    plan_globals,
    plan_prose,
    plan_toml,
)
from armferry.ends import Destination, Move
from armferry.policy import EMPTY, OriginKind, Policy, aggregate, from_options, parse_document
from armferry.registers import Accelerator, parse_register
from armferry.stream.description import DeviceLayout, FieldLayout, StructLayout

from .moves import move_of

GOLDEN = Path(__file__).parent / "data" / "plan.txt"

TCR2 = parse_register("TCR2_EL1")
PIR = parse_register("PIR_EL1")
TPIDR = parse_register("TPIDR_EL0")
CTR = parse_register("CTR_EL0")
DFR0 = parse_register("ID_AA64DFR0_EL1")
ISAR0 = parse_register("ID_AA64ISAR0_EL1")
PSCI = parse_register("PSCI_VERSION")
BMAP = parse_register("STD_BMAP")
BMAP_2 = parse_register("VENDOR_HYP_BMAP_2")
PMMIR = parse_register("PMMIR_EL1")

GUEST = {
    TCR2: 0,
    PIR: 0x1234,
    TPIDR: 7,
    CTR: 0x8444C004,
    DFR0: 0x10305506,
    ISAR0: 0x11120,
    PSCI: 0x10003,
    BMAP: 1,
}
HOST = {
    TPIDR: 0,
    CTR: 0x9444C004,
    DFR0: 0x10305408,
    ISAR0: 0x21120,
    PSCI: 0x10001,
    BMAP: 0,
}


def cpu(*subsections: str) -> DeviceLayout:
    parts = tuple(StructLayout(name, 1, (), ()) for name in subsections)
    fields = (FieldLayout("env.pc", "uint64", 8, 1),)
    return DeviceLayout("cpu", 0, 22, StructLayout("cpu", 22, fields, parts))


def move(guest: dict[int, int], host: dict[int, int], **sections: Any) -> Move:
    return move_of([guest], Destination(host, Accelerator.KVM), **sections)


WHOLE = move(
    GUEST,
    HOST,
    source=(cpu("cpu/fpmr"),),
    destination=(cpu(),),
    contents=({"cpu/fpmr": b"\0\0\0\0\0\0\0\7"},),
    qemu="10.0.13",
)


def read_back(plan: Plan) -> Policy:
    document = parse_document(plan_toml(plan), "plan.toml", OriginKind.FILE)
    return aggregate("virt", Accelerator.KVM, builtin=False, files=[document])


def test_whole_plan_as_text() -> None:
    plan = make_plan(WHOLE, EMPTY)
    shown = "\n\n".join(
        (
            plan_prose(plan, "GUEST", "HOST"),
            "\n".join(plan_globals(plan)),
            plan_compat(plan),
            plan_toml(plan),
        )
    )
    assert shown == GOLDEN.read_text(encoding="utf-8")


def test_plan_keeps_its_promise_when_read_back() -> None:
    plan = make_plan(WHOLE, EMPTY)
    assert judge(WHOLE, EMPTY).answer is Answer.FAILS
    assert plan.works
    assert plan.obstacles == ()
    again = judge(WHOLE, read_back(plan))
    assert (again.answer, again.risk, again.lists) == (
        Answer.WORKS_WITH_POLICY,
        Risk.LOSSY,
        plan.verdict.lists,
    )


def test_no_entry_can_be_left_out() -> None:
    plan = make_plan(WHOLE, EMPTY)
    rules = plan.policy.tolerances
    for at in range(len(rules)):
        fewer = Policy(
            safe_missing=plan.policy.safe_missing,
            tolerances=rules[:at] + rules[at + 1 :],
            accepted=plan.policy.accepted,
        )
        assert judge(WHOLE, fewer).answer is Answer.FAILS
    fewer = Policy(tolerances=rules, accepted=plan.policy.accepted)
    assert judge(WHOLE, fewer).answer is Answer.FAILS
    fewer = Policy(safe_missing=plan.policy.safe_missing, tolerances=rules)
    assert judge(WHOLE, fewer).answer is Answer.FAILS


def test_nothing_is_planned_where_nothing_is_refused() -> None:
    plan = make_plan(move(HOST, HOST), EMPTY)
    assert plan.entries == ()
    assert plan_toml(plan) == ""
    assert plan_globals(plan) == ()
    assert plan_compat(plan) == ""
    assert plan_prose(plan, "A", "B") == "A moves to B as it is."


def test_nothing_is_planned_where_the_policy_suffices() -> None:
    known = aggregate("virt-10.1", Accelerator.KVM)
    plan = make_plan(move({TCR2: 0, TPIDR: 7}, {TPIDR: 0}), known)
    assert plan.entries == ()
    assert plan_prose(plan, "A", "B") == (
        "A moves to B with armferry, and nothing more need be allowed, risk lossless."
    )


def test_what_a_level_allows_in_general_is_named_where_it_loses_something() -> None:
    known = aggregate("virt-10.1", Accelerator.KVM)
    lossy = move({TCR2: 0x5, TPIDR: 7}, {TPIDR: 0})
    assert judge(lossy, known).answer is Answer.FAILS
    plan = make_plan(lossy, known)
    assert [(entry.name, entry.action, entry.risk, entry.reason) for entry in plan.entries] == [
        (
            "TCR2_EL1",
            "safe-missing",
            Risk.LOSSY,
            "declared safe to be missing; its value 0x5 is lost (risk lossy)",
        )
    ]
    assert plan.works


@pytest.mark.parametrize("known", [EMPTY, aggregate("virt-10.1", Accelerator.KVM)])
def test_what_the_guest_reads_is_let_go_at_this_value_only(known: Policy) -> None:
    plan = make_plan(move({PMMIR: 6, TPIDR: 7}, {TPIDR: 0}), known)
    assert [(entry.action, entry.risk, entry.reason) for entry in plan.entries] == [
        (
            "only-source-if (value & 0xffffffffffffffff) == 0x6",
            Risk.GUEST_VISIBLE,
            (
                "the destination does not know it; the guest sees 0x6 now; on the destination "
                "the register does not exist (risk guest-visible)"
            ),
        )
    ]
    assert plan.works
    assert judge(move({PMMIR: 7}, {TPIDR: 0}), known.union(plan.policy)).answer is Answer.FAILS


def test_a_hidden_register_in_use_needs_its_risk_and_nothing_else() -> None:
    hidden = aggregate("virt-10.1", Accelerator.KVM)
    plan = make_plan(move({BMAP_2: 3, TPIDR: 7}, {TPIDR: 0}), hidden)
    assert [(entry.name, entry.action, entry.reason) for entry in plan.entries] == [
        (
            "VENDOR_HYP_BMAP_2",
            "accept-risk",
            (
                "hidden from the VM; the guest sees DISCOVER_IMPL_VER, DISCOVER_IMPL_CPUS now; "
                "on the destination the register does not exist (risk guest-visible)"
            ),
        )
    ]
    assert plan.works
    assert plan_toml(plan) == 'accept-risk = ["0x6030000000160003"]\n'


def test_what_nothing_lifts_is_not_planned() -> None:
    pinned = from_options(psci_versions=["1.3"])
    plan = make_plan(move({PSCI: 0x10001, PIR: 5}, {PSCI: 0x10001}), pinned)
    assert [entry.name for entry in plan.entries] == ["PIR_EL1"]
    assert plan_prose(plan, "GUEST", "HOST") == (
        "GUEST cannot be moved to HOST by any policy:\n- PSCI_VERSION of vCPU 0: "
        "kvm-psci-version pins PSCI 1.3, which the destination does not offer: PSCI 1.3 -> PSCI "
        "1.1"
    )


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {
                "source": (
                    cpu(),
                    DeviceLayout("pl031", 0, 1, StructLayout("pl031", 1, (), ())),
                ),
                "destination": (
                    cpu(),
                    DeviceLayout("pl011", 0, 1, StructLayout("pl011", 1, (), ())),
                ),
            },
            (
                "GUEST cannot be moved to HOST by any policy:\n- section 'pl031' instance 0: the "
                "guest has this device, the destination has not; start the destination with the "
                "same devices"
            ),
        )
    ],
)
def test_what_no_policy_mends(sections: dict[str, Any], words: str) -> None:
    plan = make_plan(move(HOST, HOST, **sections), EMPTY)
    assert not plan.works
    assert plan_prose(plan, "GUEST", "HOST") == words


def test_permissions_of_one_cause_are_one_line_unless_all_are_asked_for() -> None:
    tags = ("RGSR_EL1", "GCR_EL1", "TFSR_EL1", "TFSRE0_EL1")
    guest = {parse_register(one): 1 for one in tags}
    plan = make_plan(move(guest | {PIR: 5}, {TPIDR: 0}), EMPTY)
    assert plan_prose(plan, "GUEST", "HOST") == (
        "GUEST needs 5 permissions to move to HOST, risk lossy:\n"
        "  4 of memory tagging (RGSR_EL1, GCR_EL1, TFSR_EL1, ...)\n"
        "    the source lists registers of memory tagging, the destination does not (-machine "
        "mte=on or off) (risk lossy; 4 rules; --verbose and the policy file list them)\n"
        "  PIR_EL1 (0x603000000013c513): safe-missing\n"
        "    the destination does not know it; the guest's value is 0x5 (risk lossy)"
    )
    every = plan_prose(plan, "GUEST", "HOST", verbose=True).splitlines()
    assert [line.split()[0] for line in every[1::2]] == [*tags, "PIR_EL1"]
