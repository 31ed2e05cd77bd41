"""Tolerances as text, both directions, and rules that cannot be meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.policy import (
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
    RuleError,
    TakeDestination,
    Tolerance,
    TolerancePlaced,
    format_tolerance,
    from_options,
    parse_tolerance,
    problems,
)
from armferry.registers import Kind

TCR2 = 0x603000000013C103
PIR = 0x603000000013C513
PSCI = 0x6030000000140000
OPTION = (Origin(OriginKind.COMMAND_LINE, "--tolerate"),)
RULES = (
    "not-on-both-ends; only-source-if (value & MASK) == EXPECTED; only-source-if-reset "
    "[VALUE, ...]; differ-in-mask MASK; field <= destination; cap at destination; "
    "take destination's; re-key NEW-REGISTER"
)


@pytest.mark.parametrize(
    ("text", "tolerance"),
    [
        ("TCR2_EL1: not-on-both-ends", NotOnBothEnds(TCR2)),
        ("TCR2_EL1: only-source-if-reset", OnlySourceIfReset(TCR2)),
        ("TCR2_EL1: only-source-if-reset 0x0, 0x5", OnlySourceIfReset(TCR2, (0, 5))),
        ("TCR2_EL1: only-source-if (value & 0xff) == 0x0", OnlySourceIf(TCR2, 0xFF, 0)),
        ("TCR2_EL1: differ-in-mask 0xf", DifferInMask(TCR2, 0xF)),
        ("identification: field <= destination", FieldsAtMostDestination(Kind.IDENTIFICATION)),
        ("PSCI_VERSION: cap at destination", CapAtDestination(PSCI)),
        ("firmware version: cap at destination", CapAtDestination(Kind.FIRMWARE_VERSION)),
        ("identification: take destination's", TakeDestination(Kind.IDENTIFICATION)),
        ("TCR2_EL1: re-key PIR_EL1", Rekey(TCR2, PIR)),
    ],
)
def test_a_tolerance_is_read_and_written(text: str, tolerance: Tolerance) -> None:
    assert parse_tolerance(text) == tolerance
    assert format_tolerance(tolerance) == text


@pytest.mark.parametrize(
    ("text", "tolerance"),
    [
        ("TCR2_EL1:Only-Source-If(value&255)==0", None),
        ("TCR2_EL1 :  Only-Source-If  (VALUE&255)==0", OnlySourceIf(TCR2, 255, 0)),
        ("fw:0: cap at destination", CapAtDestination(PSCI)),
        ("TCR2_EL1: re-key fw:0", Rekey(TCR2, PSCI)),
        ("identification: take destination", TakeDestination(Kind.IDENTIFICATION)),
    ],
)
def test_other_spellings(text: str, tolerance: Tolerance | None) -> None:
    if tolerance is None:
        with pytest.raises(RuleError):
            parse_tolerance(text)
    else:
        assert parse_tolerance(text) == tolerance


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "TCR2_EL1",
            (
                "'TCR2_EL1' has no colon; accepted is REGISTER: RULE, such as "
                "TCR2_EL1: only-source-if-reset"
            ),
        ),
        (
            "TCR2_EL1: cap at destinatoin",
            (
                "'cap at destinatoin' is no tolerance, did you mean 'cap at destination'? "
                f"Accepted: {RULES}"
            ),
        ),
        ("TCR2_EL1: zzz", f"'zzz' is no tolerance. Accepted: {RULES}"),
        (
            "TCR2_EL1: only-source-if value == 0",
            (
                "'value == 0' is no condition; accepted is (value & MASK) == EXPECTED, such as "
                "(value & 0xff) == 0x0"
            ),
        ),
        (
            "TCR2_EL1: differ-in-mask 0x10000000000000000",
            (
                "'0x10000000000000000' is no value; accepted is a 64-bit number, hexadecimal "
                "or decimal"
            ),
        ),
        (
            "identification: re-key TCR2_EL1",
            (
                "re-key is for one register, 'identification' is a kind of register; write one "
                "rule for each register"
            ),
        ),
    ],
)
def test_a_malformed_tolerance_is_refused_with_the_text(text: str, message: str) -> None:
    with pytest.raises(RuleError) as error:
        parse_tolerance(text)
    assert str(error.value) == f"--tolerate: {message}"


def test_an_unknown_register_lists_the_kinds_too() -> None:
    with pytest.raises(RuleError) as error:
        parse_tolerance("TCR9_EL9: not-on-both-ends")
    kinds = ", ".join(kind.value for kind in Kind)
    assert str(error.value).startswith("--tolerate: 'TCR9_EL9': no register goes by this name")
    assert str(error.value).endswith(f". Or a kind of register: {kinds}")


values = st.integers(0, 2**64 - 1)
indexes = st.builds(int.__or__, st.integers(0, 2**60 - 1), st.sampled_from([4 << 60, 6 << 60]))
registers = st.one_of(indexes, st.sampled_from([TCR2, PSCI, 0x40200000200E0298]))
selectors = st.one_of(registers, st.sampled_from(Kind))
every_tolerance: st.SearchStrategy[Tolerance] = st.one_of(
    st.builds(NotOnBothEnds, selectors),
    st.builds(OnlySourceIf, selectors, values, values),
    st.builds(OnlySourceIfReset, selectors, st.lists(values, max_size=3).map(tuple)),
    st.builds(DifferInMask, selectors, values),
    st.builds(FieldsAtMostDestination, selectors),
    st.builds(CapAtDestination, selectors),
    st.builds(TakeDestination, selectors),
    st.builds(Rekey, registers, registers),
)


@given(every_tolerance)
def test_every_tolerance_written_is_the_tolerance_read(tolerance: Tolerance) -> None:
    assert parse_tolerance(format_tolerance(tolerance)) == tolerance


@given(st.text())
def test_any_text_is_a_tolerance_or_a_named_error(text: str) -> None:
    try:
        parse_tolerance(text, "x")
    except RuleError as error:
        assert str(error).startswith("x: ")  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (
            ["TCR2_EL1: only-source-if (value & 0xf) == 0x10"],
            (
                "'TCR2_EL1: only-source-if (value & 0xf) == 0x10' can never match: 0x10 has bits "
                "outside the mask 0xf (0x10) (from --tolerate)"
            ),
        ),
        (
            ["TCR2_EL1: only-source-if (value & 0x0) == 0x0"],
            (
                "'TCR2_EL1: only-source-if (value & 0x0) == 0x0' looks at no bit, so it always "
                "matches: write not-on-both-ends, or a mask (from --tolerate)"
            ),
        ),
        (
            ["TCR2_EL1: differ-in-mask 0"],
            (
                "'TCR2_EL1: differ-in-mask 0x0' allows no bit to differ: give a mask "
                "(from --tolerate)"
            ),
        ),
        (
            ["TCR2_EL1: re-key TCR2_EL1"],
            "'TCR2_EL1: re-key TCR2_EL1' gives the register its own index (from --tolerate)",
        ),
        (
            ["TCR2_EL1: re-key PIR_EL1", "TCR2_EL1: re-key PIRE0_EL1"],
            ("TCR2_EL1 is re-keyed to PIRE0_EL1 and PIR_EL1: keep one of them (from --tolerate)"),
        ),
        (
            ["TCR2_EL1: re-key PIR_EL1", "PIRE0_EL1: re-key PIR_EL1"],
            (
                "TCR2_EL1 and PIRE0_EL1 are both re-keyed to PIR_EL1: keep one of them "
                "(from --tolerate)"
            ),
        ),
        (
            ["TCR2_EL1: re-key PIR_EL1", "PIR_EL1: re-key PIRE0_EL1"],
            (
                "PIR_EL1 is a re-key's new index and is re-keyed itself to PIRE0_EL1: re-keys "
                "do not chain, write the last index (from --tolerate)"
            ),
        ),
        (
            ["TCR2_EL1: not-on-both-ends", "TCR2_EL1: only-source-if (value & 0x1) == 0x0"],
            (
                "'TCR2_EL1: only-source-if (value & 0x1) == 0x0' never decides: 'TCR2_EL1: "
                "not-on-both-ends' allows more; keep one of the two (from --tolerate)"
            ),
        ),
        (
            ["TCR2_EL1: not-on-both-ends", "TCR2_EL1: only-source-if-reset"],
            (
                "'TCR2_EL1: only-source-if-reset' never decides: 'TCR2_EL1: not-on-both-ends' "
                "allows more; keep one of the two (from --tolerate)"
            ),
        ),
        (
            ["0x6030000000990005: not-on-both-ends"],
            (
                "0x6030000000990005 is no register index that KVM or QEMU could list, so it can "
                "never match: look for a missing digit (from --tolerate)"
            ),
        ),
        (
            ["TCR2_EL1: re-key 0x6030000000990005"],
            (
                "0x6030000000990005 is no register index that KVM or QEMU could list, so it can "
                "never match: look for a missing digit (from --tolerate)"
            ),
        ),
        (
            ["DBGDTRTX: only-source-if (value & 0x100000000) == 0x100000000"],
            (
                "'DBGDTRTX: only-source-if (value & 0x100000000) == 0x100000000' can never match: "
                "DBGDTRTX has 32 bits only (from --tolerate)"
            ),
        ),
        (
            ["DBGDTRTX: only-source-if-reset 0x1de7ec7edbadc0de"],
            (
                "'DBGDTRTX: only-source-if-reset 0x1de7ec7edbadc0de' can never match: DBGDTRTX "
                "has 32 bits only (from --tolerate)"
            ),
        ),
        (
            ["ID_AA64ISAR0_EL1: cap at destination"],
            (
                "'ID_AA64ISAR0_EL1: cap at destination' can never match: only a firmware version "
                "or a firmware bitmap is capped; for an identification register write field <= "
                "destination (from --tolerate)"
            ),
        ),
        (
            ["running counter: take destination's"],
            (
                "'running counter: take destination's' can never match: it is the guest's own "
                "state, which is sent as it is and no destination refuses (from --tolerate)"
            ),
        ),
        (
            ["PSCI_VERSION: cap at destination", "PSCI_VERSION: take destination's"],
            (
                "'PSCI_VERSION: cap at destination' and 'PSCI_VERSION: take destination's' say "
                "which value is sent in two ways; keep one of the two (from --tolerate)"
            ),
        ),
    ],
)
def test_a_rule_that_cannot_be_meant_is_a_problem(rules: list[str], expected: str) -> None:
    placed = tuple(TolerancePlaced(parse_tolerance(rule), OPTION) for rule in rules)
    found = [str(problem).replace('"', "'") for problem in problems(Policy(tolerances=placed))]
    assert found == [expected]


def test_hidden_registers_contradict_their_tolerances() -> None:
    hidden = (Origin(OriginKind.SITE, "site.toml"),)
    rules = ("TCR2_EL1: not-on-both-ends", "PIR_EL1: re-key TCR2_EL1")
    placed = tuple(TolerancePlaced(parse_tolerance(rule), OPTION) for rule in rules)
    policy = Policy(hidden={TCR2: hidden}, safe_missing={TCR2: hidden}, tolerances=placed)
    assert [str(problem) for problem in problems(policy)] == [
        (
            "TCR2_EL1 is hidden and safe-missing: a hidden register is never sent, so the other "
            "never decides; keep one of the two (from site.toml)"
        ),
        (
            "'TCR2_EL1: not-on-both-ends' can never match: the register is hidden, so it is never "
            "compared; keep one of the two (from --tolerate, site.toml)"
        ),
        (
            "'PIR_EL1: re-key TCR2_EL1' leads to a hidden register, which is never accepted; keep "
            "one of the two (from --tolerate, site.toml)"
        ),
    ]


def test_a_condition_decides_nothing_beside_an_unconditional_list() -> None:
    rule = parse_tolerance("TCR2_EL1: only-source-if-reset 0x0")
    site = (Origin(OriginKind.SITE, "site.toml"),)
    both = Policy(safe_missing={TCR2: site}, tolerances=(TolerancePlaced(rule, OPTION),))
    assert [str(problem) for problem in problems(both)] == [
        (
            "'TCR2_EL1: only-source-if-reset 0x0' never decides: the register is safe-missing "
            "whatever it holds; keep one of the two (from --tolerate, site.toml)"
        )
    ]
    shipped = (Origin(OriginKind.BUILTIN, "compat level virt-10.2"),)
    wider = Policy(safe_missing={TCR2: site}, tolerances=(TolerancePlaced(rule, shipped),))
    assert problems(wider) == ()


def test_a_pin_decides_before_a_cap() -> None:
    rule = parse_tolerance("PSCI_VERSION: cap at destination")
    policy = Policy(
        tolerances=(TolerancePlaced(rule, OPTION),),
        psci={PsciVersion(1, 1): (Origin(OriginKind.SITE, "site.toml"),)},
    )
    assert [str(problem) for problem in problems(policy)] == [
        (
            "'PSCI_VERSION: cap at destination' never decides: kvm-psci-version pins 1.1; keep one "
            "of the two (from --tolerate, site.toml)"
        )
    ]


def test_two_pins_and_an_impossible_index_are_problems() -> None:
    policy = Policy(
        hidden={0x6030000000990005: OPTION},
        psci={PsciVersion(1, 1): OPTION, PsciVersion(1, 3): OPTION},
    )
    assert [str(problem) for problem in problems(policy)] == [
        (
            "0x6030000000990005 is no register index that KVM or QEMU could list, so it can never "
            "match: look for a missing digit (from --tolerate)"
        ),
        "kvm-psci-version is set to 1.1 and 1.3; 1.1 is used: keep one (from --tolerate)",
    ]


@given(
    st.sampled_from([0x6030, 0x6020, 0x6040, 0x4020, 0x4030]),
    st.sampled_from([0x10, 0x11, 0x13, 0x14, 0x15, 0x16, 0x20]),
    st.integers(0, 0xFFFF),
)
def test_the_name_of_any_register_reads_back(size: int, group: int, number: int) -> None:
    index = size << 48 | group << 16 | number
    rule = NotOnBothEnds(index)
    assert parse_tolerance(format_tolerance(rule)) == rule


def test_a_rule_for_another_register_than_the_hidden_one_is_no_problem() -> None:
    hidden = from_options(hidden=["TCR2_EL1"], tolerate=["PIR_EL1: not-on-both-ends"])
    assert problems(hidden) == ()
    again = from_options(hidden=["TCR2_EL1"], tolerate=["TCR2_EL1: not-on-both-ends"])
    assert len(problems(again)) == 1
