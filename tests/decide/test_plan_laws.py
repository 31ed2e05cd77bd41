"""What holds of every plan: it keeps its promise, nothing in it is idle, and a file holds it."""

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from armferry.decide import (
    Answer,
    Plan,
    judge,
    make_plan,
    plan_toml,
)
from armferry.ends import Destination, Move
from armferry.policy import (
    AcceptedRisk,
    CapAtDestination,
    NotOnBothEnds,
    OnlySourceIfReset,
    Origin,
    OriginKind,
    Policy,
    PsciVersion,
    Rekey,
    TakeDestination,
    Tolerance,
    TolerancePlaced,
    aggregate,
    parse_document,
)
from armferry.registers import Accelerator, Kind, parse_register
from armferry.stream.description import DeviceLayout, StructLayout

from .moves import move_of

INDEXES = [
    parse_register(name)
    for name in (
        "TPIDR_EL0",
        "TCR2_EL1",
        "PMMIR_EL1",
        "MIDR_EL1",
        "CTR_EL0",
        "ID_AA64DFR0_EL1",
        "PSCI_VERSION",
        "STD_BMAP",
        "DBGDTRTX",
        "0x40200000200e0280",
    )
]

indexes = st.sampled_from(INDEXES)
values = st.sampled_from([0, 1, 2, 0x10001, 0x10003, 0x10305506, 0x1DE7EC7EDBADC0DE])
lists = st.dictionaries(indexes, values, min_size=1)
origins = st.sampled_from([(Origin(source, "somewhere"),) for source in OriginKind])
tolerances: st.SearchStrategy[Tolerance] = st.one_of(
    st.builds(NotOnBothEnds, indexes),
    st.builds(OnlySourceIfReset, indexes, st.tuples(values)),
    st.builds(CapAtDestination, st.sampled_from([Kind.FIRMWARE_VERSION, Kind.FIRMWARE_BITMAP])),
    st.builds(TakeDestination, st.just(Kind.IDENTIFICATION)),
    st.builds(Rekey, indexes, indexes),
)
policies = st.builds(
    Policy,
    hidden=st.dictionaries(indexes, origins, max_size=2),
    safe_missing=st.dictionaries(indexes, origins, max_size=2),
    tolerances=st.lists(st.builds(TolerancePlaced, tolerances, origins), max_size=4).map(tuple),
    psci=st.dictionaries(st.just(PsciVersion(1, 1)), origins, max_size=1),
)


def cpu(vcpu: int, parts: set[str]) -> DeviceLayout:
    below = tuple(StructLayout(name, 1, (), ()) for name in sorted(parts))
    return DeviceLayout("cpu", vcpu, 22, StructLayout("cpu", 22, (), below))


VERSIONS = (0x2, 0x10000, 0x10001, 0x10002, 0x10003)


def sensible(registers: dict[int, int]) -> dict[int, int]:
    """The list with a version of PSCI that there is; no host and no guest has another."""
    psci = parse_register("PSCI_VERSION")
    if psci not in registers:
        return registers
    return registers | {psci: VERSIONS[registers[psci] % len(VERSIONS)]}


@st.composite
def moves(draw: st.DrawFn) -> Move:
    vcpus = draw(st.integers(1, 2))
    came = draw(st.sets(indexes, min_size=1))  # the vCPUs of a guest list the same registers
    there = draw(lists)
    accelerator = draw(st.sampled_from([Accelerator.KVM, Accelerator.TCG]))
    at_reset = draw(st.booleans())
    reset = draw(st.none() | lists)
    names = draw(st.sets(st.sampled_from(["cpu/fpmr", "cpu/zt0"])))
    content = {name: draw(st.sampled_from([b"\0" * 8, b"\7" * 8])) for name in names}
    return move_of(
        [sensible({index: draw(values) for index in sorted(came)}) for _ in range(vcpus)],
        Destination(sensible(there), accelerator, at_reset),
        reset=reset,
        source=tuple(cpu(number, names) for number in range(vcpus)),
        destination=(cpu(0, set()),),
        contents=(content,) * vcpus,
        qemu="10.0.13",
    )


def smaller(plan: Plan) -> Iterator[Policy]:
    """The plan's policy, each time without another one of its rules."""
    policy = plan.policy
    rules, missing, accepted = policy.tolerances, policy.safe_missing, policy.accepted
    for at in range(len(rules)):
        yield Policy({}, missing, rules[:at] + rules[at + 1 :], accepted=accepted)
    for index in missing:
        yield Policy({}, {i: missing[i] for i in missing if i != index}, rules, accepted=accepted)
    for index in accepted.registers:
        less = AcceptedRisk(accepted.registers - {index}, subsections=accepted.subsections)
        yield Policy({}, missing, rules, accepted=less)
    for name in accepted.subsections:
        less = AcceptedRisk(accepted.registers, subsections=accepted.subsections - {name})
        yield Policy({}, missing, rules, accepted=less)


@given(moves(), policies)
@settings(max_examples=3 * settings().max_examples)
def test_nothing_in_a_plan_is_idle(move: Move, policy: Policy) -> None:
    plan = make_plan(move, policy)
    fewer = list(smaller(plan))
    assert len(fewer) == len(plan.entries)
    if plan.works:
        for less in fewer:
            assert judge(move, policy.union(less)).answer is Answer.FAILS
    else:
        assert plan.obstacles
        before = sum(len(one.refused) for one in judge(move, policy).decisions)
        after = sum(len(one.refused) for one in plan.verdict.decisions)
        assert after <= before


@given(moves(), policies)
@settings(max_examples=3 * settings().max_examples)
def test_a_plan_keeps_its_promise_when_its_file_is_read(move: Move, policy: Policy) -> None:
    plan = make_plan(move, policy)
    file = parse_document(plan_toml(plan), "plan.toml", OriginKind.FILE)
    accelerator = move.destinations[0].accelerator
    read = aggregate("virt", accelerator, builtin=False, files=[file], command_line=policy)
    again = judge(move, read)
    assert again.answer is plan.verdict.answer
    assert again.risk is plan.verdict.risk
    assert again.findings == plan.verdict.findings
    if plan.works:
        assert again.lists == plan.verdict.lists


@given(moves())
@settings(max_examples=3 * settings().max_examples)
def test_without_a_policy_of_ones_own_a_plan_always_helps(move: Move) -> None:
    plan = make_plan(move, Policy())
    assert plan.works, plan.obstacles
