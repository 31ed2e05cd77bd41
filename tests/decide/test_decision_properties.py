"""What holds of every decision, whatever the lists, the destination and the policy."""

from hypothesis import given, settings
from hypothesis import strategies as st

from armferry.decide import RegisterClass, Risk, decide
from armferry.ends import Destination, SourceFacts
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
    Policy,
    PsciVersion,
    Rekey,
    Source,
    TakeDestination,
    Tolerance,
    TolerancePlaced,
)
from armferry.registers import Accelerator, Kind

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
ORIGINS = tuple(Origin(source, "somewhere") for source in Source)

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
    ),
)
destinations = st.builds(
    Destination, register_lists, st.sampled_from(list(Accelerator)), st.booleans()
)
facts = st.builds(SourceFacts, reset=st.one_of(st.none(), register_lists), fresh=st.booleans())

SEARCH = settings(max_examples=200, deadline=None)


def reversed_list(registers: dict[int, int]) -> dict[int, int]:
    return dict(list(registers.items())[::-1])


@given(register_lists, destinations, policies, facts)
@SEARCH
def test_order_does_not_matter(
    incoming: dict[int, int], destination: Destination, policy: Policy, known: SourceFacts
) -> None:
    other = Destination(
        reversed_list(dict(destination.registers)), destination.accelerator, destination.at_reset
    )
    turned = Policy(
        hidden=dict(list(policy.hidden.items())[::-1]),
        safe_missing=dict(list(policy.safe_missing.items())[::-1]),
        tolerances=policy.tolerances[::-1],
        resets=policy.resets,
        psci=policy.psci,
        accepted=policy.accepted,
    )
    assert decide(incoming, destination, policy, known) == decide(
        reversed_list(incoming), other, turned, known
    )


@given(register_lists, destinations, policies, facts)
@SEARCH
def test_every_register_appears_once_and_ascending(
    incoming: dict[int, int], destination: Destination, policy: Policy, known: SourceFacts
) -> None:
    decision = decide(incoming, destination, policy, known)
    seen = [outcome.index for outcome in decision.outcomes]
    assert seen == sorted({*incoming, *destination.registers})
    assert list(decision.outgoing) == sorted(decision.outgoing)
    assert {*decision.outgoing} <= {*destination.registers}
    for outcome in decision.outcomes:
        assert outcome.source == incoming.get(outcome.index)
        assert outcome.destination == destination.registers.get(outcome.index)
        if outcome.refused:
            assert outcome.outgoing is None
        assert bool(outcome.why) is (outcome.register_class is not RegisterClass.MATCHED)
    assert decision.accepted is not any(outcome.refused for outcome in decision.outcomes)


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
    """The list that goes out needs no rule any more: deciding on it again changes nothing."""
    first = decide(incoming, destination, policy, known)
    if not first.accepted:
        return
    again = decide(first.outgoing, destination, EMPTY, known)
    assert again.accepted, again.refused
    assert again.outgoing == first.outgoing


@given(register_lists, destinations, policies, facts)
@SEARCH
def test_no_guest_visible_or_lossy_step_without_a_user(
    incoming: dict[int, int], destination: Destination, policy: Policy, known: SourceFacts
) -> None:
    shipped = (Origin(Source.BUILTIN, "compat level"),)
    unnamed = Policy(
        hidden=dict.fromkeys(policy.hidden, shipped),
        safe_missing=dict.fromkeys(policy.safe_missing, shipped),
        tolerances=tuple(TolerancePlaced(p.tolerance, shipped) for p in policy.tolerances),
        resets=policy.resets,
        psci=dict.fromkeys(policy.psci, shipped),
    )
    for outcome in decide(incoming, destination, unnamed, known).outcomes:
        if outcome.risk >= Risk.GUEST_VISIBLE:
            assert outcome.refused, outcome


@given(register_lists, destinations, st.lists(placed, max_size=5), facts)
@SEARCH
def test_a_rule_for_a_whole_kind_accepts_no_risk(
    incoming: dict[int, int],
    destination: Destination,
    rules: list[TolerancePlaced],
    known: SourceFacts,
) -> None:
    user = (Origin(Source.COMMAND_LINE, "--tolerate"),)
    kinds = [rule.tolerance for rule in rules if isinstance(rule.tolerance.select, Kind)]
    policy = Policy(tolerances=tuple(TolerancePlaced(rule, user) for rule in kinds))
    for outcome in decide(incoming, destination, policy, known).outcomes:
        if outcome.risk >= Risk.GUEST_VISIBLE:
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
    user = (Origin(Source.COMMAND_LINE, "--tolerate"),)
    more = policy.union(Policy(tolerances=(TolerancePlaced(rule, user),)))
    after = decide(incoming, destination, more, known)
    assert index not in {outcome.index for outcome in after.refused}
