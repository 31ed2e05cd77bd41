"""Laws of the decision, for any lists and rules over a handful of real registers."""

import random

from hypothesis import given
from hypothesis import strategies as st

from armferry.decide import decide, stock_verdict
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
    Rekey,
    Source,
    TakeDestination,
    Tolerance,
    TolerancePlaced,
)
from armferry.registers import Accelerator, parse_register

from .moves import move_of

INDEXES = [
    parse_register(name)
    for name in (
        "TPIDR_EL0",
        "TCR2_EL1",
        "CTR_EL0",
        "ID_AA64DFR0_EL1",
        "ID_AA64ISAR0_EL1",
        "PSCI_VERSION",
        "STD_BMAP",
        "DBGDTRTX",
    )
]
ORIGIN = (Origin(Source.COMMAND_LINE, "--tolerate"),)

indexes = st.sampled_from(INDEXES)
values = st.sampled_from([0, 1, 2, 0x10001, 0x10003, 0x10305506, 0x1DE7EC7EDBADC0DE])
lists = st.dictionaries(indexes, values)
tolerances: st.SearchStrategy[Tolerance] = st.one_of(
    st.builds(NotOnBothEnds, indexes),
    st.builds(OnlySourceIf, indexes, st.sampled_from([0xFF]), st.sampled_from([0, 1])),
    st.builds(OnlySourceIfReset, indexes, st.tuples(values)),
    st.builds(DifferInMask, indexes, st.sampled_from([1, 0xFFFF])),
    st.builds(FieldsAtMostDestination, indexes),
    st.builds(CapAtDestination, indexes),
    st.builds(TakeDestination, indexes),
    st.builds(Rekey, indexes, indexes),
)
policies = st.builds(
    lambda hidden, missing, rules, accepted: Policy(
        hidden=dict.fromkeys(hidden, ORIGIN),
        safe_missing=dict.fromkeys(missing, ORIGIN),
        tolerances=tuple(TolerancePlaced(rule, ORIGIN) for rule in rules),
        accepted=accepted,
    ),
    st.sets(indexes, max_size=2),
    st.sets(indexes, max_size=3),
    st.lists(tolerances, max_size=4),
    st.builds(AcceptedRisk, st.frozensets(indexes), st.booleans(), st.booleans()),
)
destinations = st.builds(Destination, lists, st.sampled_from(Accelerator))
facts = st.builds(SourceFacts, st.none() | lists, st.booleans())


def shuffled(registers: dict[int, int], seed: int) -> dict[int, int]:
    items = list(registers.items())
    random.Random(seed).shuffle(items)
    return dict(items)


@given(lists, destinations, policies, facts, st.integers())
def test_order_does_not_matter(
    incoming: dict[int, int], there: Destination, policy: Policy, known: SourceFacts, seed: int
) -> None:
    elsewhere = Destination(shuffled(dict(there.registers), seed), there.accelerator)
    again = decide(shuffled(incoming, seed), elsewhere, policy, known)
    assert again == decide(incoming, there, policy, known)


@given(lists, destinations, policies, facts)
def test_every_register_ends_in_one_class(
    incoming: dict[int, int], there: Destination, policy: Policy, known: SourceFacts
) -> None:
    decision = decide(incoming, there, policy, known)
    ended = [outcome.index for outcome in decision.outcomes]
    assert ended == sorted({*incoming, *there.registers})


@given(lists, destinations, policies, facts)
def test_what_is_sent_is_what_the_destination_has(
    incoming: dict[int, int], there: Destination, policy: Policy, known: SourceFacts
) -> None:
    decision = decide(incoming, there, policy, known)
    assert set(decision.outgoing) <= set(there.registers)
    if decision.accepted and there.accelerator is Accelerator.TCG:
        assert set(decision.outgoing) == set(there.registers)


@given(lists, destinations, policies, facts)
def test_what_was_sent_is_sent_again(
    incoming: dict[int, int], there: Destination, policy: Policy, known: SourceFacts
) -> None:
    decision = decide(incoming, there, policy, known)
    if decision.accepted:
        again = decide(decision.outgoing, there, policy, known)
        assert again.accepted
        assert again.outgoing == decision.outgoing


@given(lists, st.sampled_from(Accelerator))
def test_equal_lists_and_no_policy_change_nothing(
    registers: dict[int, int], accelerator: Accelerator
) -> None:
    decision = decide(registers, Destination(registers, accelerator), EMPTY)
    assert decision.accepted
    assert decision.anomalies == ()
    assert decision.outgoing == dict(sorted(registers.items()))


@given(lists, destinations, policies, facts)
def test_a_refusal_is_never_overridden(
    incoming: dict[int, int], there: Destination, policy: Policy, known: SourceFacts
) -> None:
    whole = decide(incoming, there, policy, known)
    for outcome in whole.refused:
        rest = {index: value for index, value in incoming.items() if index != outcome.index}
        assert not whole.accepted
        assert len(decide(rest, there, policy, known).refused) <= len(whole.refused)


@given(lists, destinations, policies, facts, st.sampled_from(["5.2.0", "10.0.13", "11.1.3"]))
def test_stock_qemu_takes_what_is_sent(
    incoming: dict[int, int],
    there: Destination,
    policy: Policy,
    known: SourceFacts,
    version: str,
) -> None:
    decision = decide(incoming, there, policy, known)
    if decision.accepted and (decision.outgoing or not there.registers):
        stock = stock_verdict(move_of([decision.outgoing], there, qemu=version))
        assert stock.loads, (stock, decision)
