"""Laws of the decision, whatever the lists, the destination and the policy."""

import random
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from armferry.decide import (
    Answer,
    RegisterClass,
    RegisterOutcome,
    Risk,
    decide,
    judge,
    stock_verdict,
)
from armferry.decide.causes import Arrives, RenamedTo, ValueChanged
from armferry.decide.physical_counter import PHYSICAL_COUNTER, uses_physical_counter
from armferry.ends import Destination, SourceFacts
from armferry.facts import tcg_ignores_writes
from armferry.policy import (
    EMPTY,
    AcceptedRisk,
    CapAtDestination,
    DifferInMask,
    FieldsAtMostDestination,
    NotOnBothEnds,
    OnlySourceIf,
    OnlySourceIfReset,
    Origin,
    OriginKind,
    Policy,
    PsciVersion,
    Rekey,
    TakeDestination,
    Tolerance,
    TolerancePlaced,
)
from armferry.registers import Accelerator, Kind, accelerator_of, name

from .moves import move_of

INDEXES = (
    0x603000000013C000,  # MIDR_EL1
    0x603000000013C028,  # ID_AA64DFR0_EL1
    0x603000000013C103,  # TCR2_EL1
    0x603000000013C512,  # PIRE0_EL1
    0x603000000013C4F6,  # PMMIR_EL1
    0x603000000013C100,  # TTBR0_EL1
    0x603000000013DF01,  # CNTPCT_EL0
    0x6030000000140000,  # PSCI_VERSION
    0x6030000000160000,  # STD_BMAP
    0x6030000000160003,  # VENDOR_HYP_BMAP_2
    0x6020000000110003,  # CCSIDR
    0x40200000200E0298,  # an AArch32 debug register of QEMU 10.0.2
    0x40200000200E0280,
)
NOT_KEPT = RegisterClass.NOT_KEPT
ORIGINS = tuple(Origin(source, "somewhere") for source in OriginKind)

indexes = st.sampled_from(INDEXES)
values = st.one_of(
    st.sampled_from([0, 1, 0x10001, 0x10003, 0x1DE7EC7EDBADC0DE]), st.integers(0, (1 << 64) - 1)
)
register_lists = st.dictionaries(indexes, values, max_size=len(INDEXES))
origins = st.sampled_from(ORIGINS).map(lambda origin: (origin,))
selectors = st.one_of(indexes, st.sampled_from(list(Kind)))
tolerances: st.SearchStrategy[Tolerance] = st.one_of(
    st.builds(NotOnBothEnds, selectors),
    st.builds(OnlySourceIf, selectors, values, values),
    st.builds(OnlySourceIfReset, selectors, st.lists(values, max_size=2).map(tuple)),
    st.builds(DifferInMask, selectors, values),
    st.builds(FieldsAtMostDestination, selectors),
    st.builds(CapAtDestination, selectors),
    st.builds(TakeDestination, selectors),
    st.builds(Rekey, indexes, indexes),
)
placed = st.builds(TolerancePlaced, tolerances, origins)
listed = st.dictionaries(indexes, origins, max_size=3)
policies = st.builds(
    Policy,
    hidden=listed,
    safe_missing=listed,
    tolerances=st.lists(placed, max_size=5).map(tuple),
    resets=st.dictionaries(indexes, st.frozensets(values, max_size=2), max_size=2),
    psci=st.dictionaries(
        st.sampled_from([PsciVersion(1, 0), PsciVersion(1, 1), PsciVersion(1, 3)]),
        origins,
        max_size=1,
    ),
    accepted=st.builds(
        AcceptedRisk,
        registers=st.frozensets(indexes, max_size=2),
        guest_visible=st.booleans(),
        lossy=st.booleans(),
        breaks=st.booleans(),
    ),
)
# no guest goes to or comes from a QEMU under WHPX: it blocks every migration
accelerators = st.sampled_from([Accelerator.KVM, Accelerator.TCG, Accelerator.HVF])
destinations = st.builds(Destination, register_lists, accelerators, st.booleans())
facts = st.builds(SourceFacts, reset=st.one_of(st.none(), register_lists), fresh=st.booleans())

SEARCH = settings(max_examples=2 * settings().max_examples)


def shuffled(registers: Mapping[int, int], seed: int) -> dict[int, int]:
    items = list(registers.items())
    random.Random(seed).shuffle(items)
    return dict(items)


@given(register_lists, destinations, policies, facts, st.integers())
@SEARCH
def test_order_does_not_matter(
    incoming: dict[int, int],
    destination: Destination,
    policy: Policy,
    known: SourceFacts,
    seed: int,
) -> None:
    other, came = destination, incoming
    if destination.accelerator is not Accelerator.HVF:  # there the order of the list is a fact
        other = replace(destination, registers=shuffled(destination.registers, seed))
        came = shuffled(incoming, seed)
    turned = replace(
        policy,
        hidden=dict(list(policy.hidden.items())[::-1]),
        safe_missing=dict(list(policy.safe_missing.items())[::-1]),
        tolerances=policy.tolerances[::-1],
    )
    assert decide(incoming, destination, policy, known) == decide(came, other, turned, known)


@given(register_lists, destinations, policies, facts)
@SEARCH
def test_every_register_appears_once_and_ascending(
    incoming: dict[int, int], destination: Destination, policy: Policy, known: SourceFacts
) -> None:
    decision = decide(incoming, destination, policy, known)
    seen = [outcome.index for outcome in decision.outcomes]
    assert seen == sorted({*incoming, *destination.registers})
    if destination.accelerator is not Accelerator.HVF:
        assert list(decision.outgoing) == sorted(decision.outgoing)
    assert {*decision.outgoing} <= {*destination.registers}
    for outcome in decision.outcomes:
        assert outcome.source == incoming.get(outcome.index)
        assert outcome.destination == destination.registers.get(outcome.index)
        if outcome.refused:
            assert outcome.outgoing is None
        assert bool(outcome.why) is (outcome.register_class is not RegisterClass.MATCHED)
    assert decision.accepted is not any(outcome.refused for outcome in decision.outcomes)
    if decision.accepted and destination.accelerator is Accelerator.TCG:
        assert {*decision.outgoing} == {*destination.registers}


@given(register_lists, destinations, policies, facts, st.lists(placed, max_size=5))
@SEARCH
def test_rules_for_others_never_let_a_refused_register_through(
    incoming: dict[int, int],
    destination: Destination,
    policy: Policy,
    known: SourceFacts,
    more: list[TolerancePlaced],
) -> None:
    before = decide(incoming, destination, policy, known)
    refused = {outcome.index for outcome in before.refused}
    others = tuple(
        rule
        for rule in more
        if not isinstance(rule.tolerance.select, Kind)
        and rule.tolerance.select not in refused
        and not (isinstance(rule.tolerance, Rekey) and rule.tolerance.new in refused)
    )
    after = decide(incoming, destination, policy.union(Policy(tolerances=others)), known)
    assert refused <= {outcome.index for outcome in after.refused}


@given(register_lists, st.sampled_from(list(Accelerator)))
@example({0x603000000013C028: 0xF00}, Accelerator.KVM)  # a PMU that kernels forget when it is put
def test_equal_lists_match_without_any_policy(
    registers: dict[int, int], accelerator: Accelerator
) -> None:
    decision = decide(registers, Destination(registers, accelerator), EMPTY)
    assert {o.register_class for o in decision.outcomes} <= {RegisterClass.MATCHED}
    assert decision.outgoing == registers
    assert decision.risk is Risk.NONE
    assert decision.accepted


@given(register_lists, destinations, policies, facts)
@SEARCH
def test_what_is_sent_is_accepted_as_it_is(
    incoming: dict[int, int], destination: Destination, policy: Policy, known: SourceFacts
) -> None:
    """The list that goes out needs no rule any more: deciding on it again changes nothing.

    What it costs the guest is asked again: no rule is needed, the consent is.
    """
    first = decide(incoming, destination, policy, known)
    if not first.accepted:
        return
    agreed = AcceptedRisk(guest_visible=True, lossy=True, breaks=True)
    again = decide(first.outgoing, destination, Policy(accepted=agreed), known)
    assert again.accepted, again.refused
    assert again.outgoing == first.outgoing


@given(register_lists, destinations, policies, facts)
@SEARCH
def test_no_guest_visible_or_lossy_step_without_a_user(
    incoming: dict[int, int], destination: Destination, policy: Policy, known: SourceFacts
) -> None:
    shipped = (Origin(OriginKind.BUILTIN, "compat level"),)
    unnamed = Policy(
        hidden=dict.fromkeys(policy.hidden, shipped),
        safe_missing=dict.fromkeys(policy.safe_missing, shipped),
        tolerances=tuple(TolerancePlaced(p.tolerance, shipped) for p in policy.tolerances),
        resets=policy.resets,
        psci=dict.fromkeys(policy.psci, shipped),
    )
    for outcome in decide(incoming, destination, unnamed, known).outcomes:
        # what a kernel takes and does not keep is no step of armferry's: stock QEMU does the same
        if outcome.risk >= Risk.GUEST_VISIBLE and outcome.register_class is not NOT_KEPT:
            assert outcome.refused, outcome


@given(register_lists, destinations, st.lists(placed, max_size=5), facts)
@SEARCH
def test_a_rule_for_a_whole_kind_accepts_no_risk(
    incoming: dict[int, int],
    destination: Destination,
    rules: list[TolerancePlaced],
    known: SourceFacts,
) -> None:
    user = (Origin(OriginKind.COMMAND_LINE, "--tolerate"),)
    kinds = [rule.tolerance for rule in rules if isinstance(rule.tolerance.select, Kind)]
    policy = Policy(tolerances=tuple(TolerancePlaced(rule, user) for rule in kinds))
    for outcome in decide(incoming, destination, policy, known).outcomes:
        # what a kernel takes and does not keep is no step of armferry's: stock QEMU does the same
        if outcome.risk >= Risk.GUEST_VISIBLE and outcome.register_class is not NOT_KEPT:
            assert outcome.refused, outcome


@given(register_lists, destinations, policies, facts, st.data())
@SEARCH
def test_the_users_own_rule_for_a_register_is_never_hidden_by_another(
    incoming: dict[int, int],
    destination: Destination,
    policy: Policy,
    known: SourceFacts,
    data: st.DataObject,
) -> None:
    """Whatever else is said of a register, what the user says of it by name is done."""
    refused = decide(incoming, destination, policy, known).refused
    if not refused or policy.hidden or policy.psci:
        return
    index = data.draw(st.sampled_from([outcome.index for outcome in refused]))
    if index not in incoming:
        return
    missing = index not in destination.registers
    rule: Tolerance = OnlySourceIf(index, 0, 0) if missing else TakeDestination(index)
    user = (Origin(OriginKind.COMMAND_LINE, "--tolerate"),)
    more = policy.union(Policy(tolerances=(TolerancePlaced(rule, user),)))
    after = decide(incoming, destination, more, known)
    assert index not in {outcome.index for outcome in after.refused}


@given(register_lists, destinations, policies, facts)
@SEARCH
def test_a_refusal_is_never_overridden(
    incoming: dict[int, int], destination: Destination, policy: Policy, known: SourceFacts
) -> None:
    """What else is refused is refused without it too: none is let through by another."""
    whole = decide(incoming, destination, policy, known)
    renamed = [rule.tolerance for rule in policy.tolerances if isinstance(rule.tolerance, Rekey)]
    ends = {index for rule in renamed for index in (rule.select, rule.new)}
    for outcome in whole.refused:
        rest = {index: value for index, value in incoming.items() if index != outcome.index}
        assert not whole.accepted
        if outcome.index in ends or accelerator_of(rest) is not accelerator_of(incoming):
            continue
        others = {one.index for one in whole.refused} - {outcome.index}
        assert others <= {one.index for one in decide(rest, destination, policy, known).refused}


@given(register_lists, destinations, policies, facts)
@SEARCH
def test_lossless_means_that_it_reads_the_same_or_was_never_written(
    incoming: dict[int, int], destination: Destination, policy: Policy, known: SourceFacts
) -> None:
    for outcome in decide(incoming, destination, policy, known).outcomes:
        before = outcome.source
        if outcome.refused or outcome.risk > Risk.LOSSLESS or isinstance(outcome.cause, RenamedTo):
            continue
        if isinstance(outcome.cause, ValueChanged | Arrives):
            old = outcome.cause.renamed
            before = next((v for i, v in incoming.items() if old and name(i) == old), before)
        if before is None:
            # what no guest of the source ever saw: it is as after reset, or nobody can write it
            assert (
                destination.accelerator is Accelerator.KVM
                or destination.at_reset
                or tcg_ignores_writes(outcome.index)
            )
            continue
        after = later(outcome, destination)
        assert after == before or never_written(
            outcome.index, before, incoming, destination, policy, known
        )


def later(outcome: RegisterOutcome, destination: Destination) -> object:
    """What the guest reads on the destination: None without the register."""
    if outcome.outgoing is not None:
        return outcome.outgoing
    if outcome.destination is None:
        return None
    return outcome.destination if destination.at_reset else "not known"


def never_written(
    index: int,
    value: int,
    incoming: dict[int, int],
    destination: Destination,
    policy: Policy,
    known: SourceFacts,
) -> bool:
    listed = {
        one
        for placed in policy.tolerances_for(index)
        if isinstance(placed.tolerance, OnlySourceIfReset)
        for one in placed.tolerance.reset
    }
    return (
        known.fresh
        or (known.reset is not None and known.reset.get(index) == value)
        or value in policy.resets.get(index, ())
        or (index not in destination.registers and value in {0, *listed})
        or (accelerator_of(incoming) is Accelerator.KVM and value == 0x1DE7EC7EDBADC0DE)
        # not written, and not read either: nothing hangs on it
        or (index == PHYSICAL_COUNTER and not uses_physical_counter(incoming))
    )


VERSIONS = st.sampled_from(["5.2.0", "10.0.13", "11.0.0", "11.1.3"])


@given(register_lists, destinations, policies, facts, VERSIONS)
@SEARCH
def test_stock_qemu_takes_what_is_sent(
    incoming: dict[int, int],
    destination: Destination,
    policy: Policy,
    known: SourceFacts,
    version: str,
) -> None:
    decision = decide(incoming, destination, policy, known)
    if decision.accepted and (decision.outgoing or not destination.registers):
        stock = stock_verdict(move_of([decision.outgoing], destination, qemu=version))
        assert stock.loads, (stock, decision)


@given(register_lists.filter(bool), destinations, facts, VERSIONS)
@SEARCH
def test_what_stock_qemu_loads_fails_only_for_a_harm_to_the_guest(
    incoming: dict[int, int], destination: Destination, known: SourceFacts, version: str
) -> None:
    move = move_of([incoming], destination, reset=known.reset, fresh=known.fresh, qemu=version)
    verdict = judge(move, EMPTY)
    if stock_verdict(move).loads and verdict.answer is Answer.FAILS:
        refused = verdict.decisions[0].refused
        assert refused or verdict.obstacles  # another accelerator is one
        assert all(outcome.risk >= Risk.GUEST_VISIBLE for outcome in refused)
