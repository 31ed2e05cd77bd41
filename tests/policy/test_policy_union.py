"""Policies as values: the union, its laws, and what a policy answers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.policy.rules import (
    EMPTY,
    AcceptedRisk,
    CapAtDestination,
    DifferInMask,
    NotOnBothEnds,
    OnlySourceIf,
    OnlySourceIfReset,
    Origin,
    OriginKind,
    Policy,
    PsciVersion,
    TakeDestination,
    Tolerance,
    TolerancePlaced,
)
from armferry.registers import Kind, parse_register

TCR2 = parse_register("TCR2_EL1")
PSCI = parse_register("PSCI_VERSION")
LEVEL = Origin(OriginKind.BUILTIN, "compat level virt-10.1", "because")
OPTION = Origin(OriginKind.COMMAND_LINE, "--hidden-regs")

indexes = st.sampled_from([TCR2, PSCI, 0x40200000200E0298, 0x603000000013C512])
values = st.integers(0, 2**64 - 1)
origins = st.lists(
    st.builds(
        Origin, st.sampled_from(OriginKind), st.sampled_from("abc"), st.sampled_from(["", "r"])
    ),
    min_size=1,
    max_size=3,
).map(tuple)
selectors = st.one_of(indexes, st.sampled_from(Kind))
tolerances: st.SearchStrategy[Tolerance] = st.one_of(
    st.builds(NotOnBothEnds, selectors),
    st.builds(OnlySourceIf, selectors, values, values),
    st.builds(OnlySourceIfReset, selectors, st.lists(values, max_size=2).map(tuple)),
    st.builds(DifferInMask, selectors, values),
    st.builds(CapAtDestination, selectors),
)
policies = st.builds(
    Policy,
    hidden=st.dictionaries(indexes, origins, max_size=3),
    safe_missing=st.dictionaries(indexes, origins, max_size=3),
    tolerances=st.lists(st.builds(TolerancePlaced, tolerances, origins), max_size=3).map(tuple),
    resets=st.dictionaries(indexes, st.frozensets(values, max_size=2), max_size=3),
    psci=st.dictionaries(st.builds(PsciVersion, st.just(1), st.integers(0, 3)), origins),
    accepted=st.builds(
        AcceptedRisk, st.frozensets(indexes, max_size=2), st.booleans(), st.booleans()
    ),
)


@given(policies, policies)
def test_union_is_commutative(a: Policy, b: Policy) -> None:
    assert a.union(b) == b.union(a)


@given(policies, policies, policies)
def test_union_is_associative(a: Policy, b: Policy, c: Policy) -> None:
    assert a.union(b).union(c) == a.union(b.union(c))


@given(policies)
def test_union_is_idempotent_and_empty_is_neutral(a: Policy) -> None:
    assert a.union(a) == a
    assert a.union(EMPTY) == a


@given(policies, policies)
def test_union_loses_no_origin(a: Policy, b: Policy) -> None:
    both = a.union(b)
    for index in {*a.hidden, *b.hidden}:
        listed = {*a.hidden.get(index, ()), *b.hidden.get(index, ())}
        assert set(both.hidden[index]) == listed
        assert list(both.hidden[index]) == sorted(listed)
    for placed in (*a.tolerances, *b.tolerances):
        (same,) = [p for p in both.tolerances if p.tolerance == placed.tolerance]
        assert set(placed.origins) <= set(same.origins)


def test_a_list_set_twice_remembers_everyone_who_set_it() -> None:
    policy = Policy(hidden={TCR2: (OPTION,)}).union(Policy(hidden={TCR2: (LEVEL,)}))
    assert policy.hidden == {TCR2: (LEVEL, OPTION)}
    assert [str(origin) for origin in policy.hidden[TCR2]] == [
        "compat level virt-10.1: because",
        "--hidden-regs",
    ]


def test_sources_rise_in_specificity() -> None:
    assert [s.value for s in sorted(OriginKind, key=lambda s: s.rank)] == [
        "builtin",
        "site",
        "file",
        "command line",
    ]
    placed = [Origin(source, "x") for source in OriginKind]
    assert all(low < high for low, high in itertools.pairwise(placed))


def test_tolerances_for_a_register_name_its_index_first() -> None:
    of_kind = TolerancePlaced(TakeDestination(Kind.FIRMWARE_VERSION), (LEVEL,))
    of_index = TolerancePlaced(CapAtDestination(PSCI), (OPTION,))
    of_other = TolerancePlaced(NotOnBothEnds(TCR2), (OPTION,))
    policy = Policy(tolerances=(of_kind, of_other, of_index))
    assert policy.tolerances_for(PSCI) == (of_index, of_kind)
    assert policy.tolerances_for(TCR2) == (of_other,)


@pytest.mark.parametrize(
    ("version", "value", "text"),
    [(PsciVersion(0, 2), 0x2, "0.2"), (PsciVersion(1, 1), 0x10001, "1.1")],
)
def test_psci_version_as_the_register_holds_it(version: PsciVersion, value: int, text: str) -> None:
    assert (version.value, str(version)) == (value, text)


def test_the_most_specific_pin_wins_and_of_equals_the_lowest() -> None:
    site = Origin(OriginKind.SITE, "site")
    pinned = Policy(psci={PsciVersion(1, 0): (LEVEL, site), PsciVersion(1, 3): (OPTION,)})
    assert (pinned.psci_version, pinned.psci_origins) == (PsciVersion(1, 3), (OPTION,))
    equal = Policy(psci={PsciVersion(1, 3): (OPTION,), PsciVersion(1, 1): (OPTION,)})
    assert equal.psci_version == PsciVersion(1, 1)
    assert (EMPTY.psci_version, EMPTY.psci_origins) == (None, ())
