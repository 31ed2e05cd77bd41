"""Policy documents: read, refused with the place, written and read again."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.policy import (
    AcceptedRisk,
    CapAtDestination,
    DocumentError,
    NotOnBothEnds,
    OnlySourceIf,
    OnlySourceIfReset,
    Origin,
    OriginKind,
    Policy,
    PsciVersion,
    Tolerance,
    TolerancePlaced,
    from_options,
    parse_document,
    read_file,
    read_site,
    to_toml,
)
from armferry.registers import Accelerator, Kind

TCR2 = 0x603000000013C103
PSCI = 0x6030000000140000
WHOLE = """
level = "virt-10.1"
kvm-psci-version = "1.1"
accept-risk = ["TCR2_EL1", "guest-visible"]

[[entry]]
register = "TCR2_EL1"
action = "safe-missing"
accelerator = "kvm"
reset = ["0x0", 7]
reason = "because"

[[entry]]
register = 0x6030000000160003
action = "hidden"

[[entry]]
kind = "identification"
action = "field <= destination"
accelerator = "tcg"

[machine."virt-rhel9.4.0"]
like = "virt-8.2"
[[machine."virt-rhel9.4.0".entry]]
register = "PSCI_VERSION"
action = "cap at destination"
"""


def test_a_whole_document_is_read() -> None:
    document = parse_document(WHOLE, "p.toml")
    where = "p.toml: level virt-10.1"
    assert document.level == "virt-10.1"
    kvm = document.general(Accelerator.KVM)
    assert kvm == Policy(
        hidden={0x6030000000160003: (Origin(OriginKind.FILE, where),)},
        safe_missing={TCR2: (Origin(OriginKind.FILE, where, "because"),)},
        resets={TCR2: frozenset({0, 7})},
        psci={PsciVersion(1, 1): (Origin(OriginKind.FILE, where),)},
        accepted=AcceptedRisk(frozenset({TCR2}), guest_visible=True),
    )
    assert [p.tolerance.select for p in document.general(Accelerator.TCG).tolerances] == [
        Kind.IDENTIFICATION
    ]
    assert document.single("virt-8.2", Accelerator.KVM) == Policy()
    assert document.single("virt-rhel9.4.0", Accelerator.KVM) == Policy(
        tolerances=(
            TolerancePlaced(
                CapAtDestination(PSCI),
                (Origin(OriginKind.FILE, "p.toml: machine virt-rhel9.4.0"),),
            ),
        )
    )


KINDS = ", ".join(kind.value for kind in Kind)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("level = virt", "p: not TOML: Invalid value (at line 1, column 9)"),
        (
            "levl = 'x'",
            (
                "p: unknown key 'levl', did you mean 'level'? Accepted: level, kvm-psci-version, "
                "present-as, accept-risk, entry, machine"
            ),
        ),
        (
            "[[entry]]\nregister='TCR2_EL1'\naction='hidden'\n[[entry]]\nzzz=1",
            (
                "p: entry 2: unknown key 'zzz'. Accepted: register, kind, action, accelerator, "
                "reset, reason, source, risk, kernel"
            ),
        ),
        ("entry = 3", "p: entry: must be an array of tables, written [[entry]]"),
        ("entry = [3]", "p: entry 1: must be a table, not 3"),
        ("level = 3", "p: level: must be text in quotes, not 3"),
        ("accept-risk = 'lossy'", "p: accept-risk: must be a list, not 'lossy'"),
        ("accept-risk = [1.5]", "p: accept-risk: must hold texts or numbers, not 1.5"),
        (
            "accept-risk = ['identification']",
            (
                "p: accept-risk: 'identification' is a kind of register; accepted is one "
                "register, guest-visible, lossy or breaks"
            ),
        ),
        (
            "kvm-psci-version = '2.0'",
            (
                "p: kvm-psci-version: Invalid PSCI version '2.0'. Valid values are 0.2, "
                "1.0, 1.1, 1.2, 1.3"
            ),
        ),
        (
            "[[entry]]\naction='hidden'",
            "p: entry 1: needs either a register or a kind of register",
        ),
        (
            "[[entry]]\nregister='TCR2_EL1'",
            (
                "p: entry 1: action: missing; accepted: hidden, safe-missing, or a tolerance "
                "such as only-source-if-reset"
            ),
        ),
        (
            "[[entry]]\nregister='TCR2_EL1'\naction='hidden'\naccelerator='xen'",
            "p: entry 1: accelerator: 'xen' is not known; accepted: any, kvm, tcg",
        ),
        (
            "[[entry]]\nkind='identity'\naction='hidden'",
            f"p: entry 1: kind: 'identity' is no kind of register; accepted: {KINDS}",
        ),
        (
            "[[entry]]\nkind='identification'\naction='hidden'",
            (
                "p: entry 1: action: hidden is for one register, not for a kind; accepted is a "
                "tolerance"
            ),
        ),
        (
            "[[entry]]\nkind='identification'\naction='not-on-both-ends'\nreset=[1]",
            "p: entry 1: reset: values belong to one register, not to a kind",
        ),
        (
            "[[entry]]\nregister='identification'\naction='hidden'",
            "p: entry 1: register: 'identification' is a kind of register; write kind = ",
        ),
        (
            "[[entry]]\nregister='TCR2_EL1'\naction='hidden'\nreset=['x']",
            (
                "p: entry 1: reset: 'x' is no value; accepted is a 64-bit number, hexadecimal "
                "or decimal"
            ),
        ),
        (
            "[machine.'virt-x1']\nlik='virt-8.2'",
            (
                "p: machine.\"virt-x1\": unknown key 'lik', did you mean 'like'? Accepted: like, "
                "kvm-psci-version, present-as, accept-risk, entry"
            ),
        ),
        ("machine = 3", "p: machine: must be a table, not 3"),
    ],
)
def test_a_malformed_document_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(DocumentError) as error:
        parse_document(text, "p")
    assert str(error.value) == message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as missing:
        read_file(tmp_path / "none.toml")
    assert str(missing.value) == f"{tmp_path}/none.toml: cannot be read: No such file or directory"
    (tmp_path / "binary.toml").write_bytes(b"a\xff")
    with pytest.raises(DocumentError) as binary:
        read_file(tmp_path / "binary.toml")
    assert str(binary.value) == f"{tmp_path}/binary.toml: not TOML: byte 1 is not UTF-8 text"


def test_the_site_is_every_toml_file_of_its_folder(tmp_path: Path) -> None:
    assert read_site(tmp_path / "absent") == ()
    for name in ("b.toml", "a.toml", "readme.txt"):
        (tmp_path / name).write_text('level = "virt-10.0"\n')
    documents = read_site(tmp_path)
    assert [d.name for d in documents] == [f"{tmp_path}/a.toml", f"{tmp_path}/b.toml"]
    assert {d.source for d in documents} == {OriginKind.SITE}


indexes = st.sampled_from([TCR2, PSCI, 0x40200000200E0298, 0x603000000013C512])
values = st.integers(0, 2**64 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
origins = st.lists(
    st.builds(Origin, st.sampled_from(OriginKind), texts, texts), min_size=1, max_size=2
).map(tuple)
selectors = st.one_of(indexes, st.sampled_from(Kind))
tolerances: st.SearchStrategy[Tolerance] = st.one_of(
    st.builds(NotOnBothEnds, selectors),
    st.builds(OnlySourceIf, selectors, values, values),
    st.builds(OnlySourceIfReset, selectors, st.lists(values, max_size=2).map(tuple)),
)
policies = st.builds(
    Policy,
    hidden=st.dictionaries(indexes, origins, max_size=3),
    safe_missing=st.dictionaries(indexes, origins, max_size=3),
    tolerances=st.lists(st.builds(TolerancePlaced, tolerances, origins), max_size=3).map(tuple),
    resets=st.dictionaries(indexes, st.frozensets(values, max_size=2), max_size=3),
    psci=st.dictionaries(st.just(PsciVersion(1, 1)), origins, max_size=1),
    accepted=st.builds(
        AcceptedRisk, st.frozensets(indexes, max_size=2), st.booleans(), st.booleans()
    ),
)


def anonymous(policy: Policy) -> Policy:
    """The same rules, nobody's: what is written comes back as the file's."""
    nobody = (Origin(OriginKind.FILE, ""),)
    return replace(
        policy,
        hidden=dict.fromkeys(policy.hidden, nobody),
        safe_missing=dict.fromkeys(policy.safe_missing, nobody),
        tolerances=tuple(TolerancePlaced(p.tolerance, nobody) for p in policy.tolerances),
        psci=dict.fromkeys(policy.psci, nobody),
    )


@given(policies, st.sampled_from([None, *Accelerator]))
def test_a_policy_written_is_the_policy_read(
    policy: Policy, accelerator: Accelerator | None
) -> None:
    read = parse_document(to_toml(policy), "p").general(accelerator)
    assert anonymous(read) == anonymous(policy)


def test_what_is_written_names_registers_and_reasons() -> None:
    origin = Origin(OriginKind.BUILTIN, "compat level virt-10.1", 'a "reason"')
    policy = Policy(safe_missing={TCR2: (origin,)}, resets={TCR2: frozenset({0})})
    assert to_toml(policy) == (
        "# from compat level virt-10.1\n"
        "[[entry]]\n"
        'register = "0x603000000013c103"  # TCR2_EL1\n'
        'action = "safe-missing"\n'
        'reset = ["0x0"]\n'
        'reason = "a \\"reason\\""\n'
    )


def test_an_entry_for_several_registers_is_one_for_each() -> None:
    several = parse_document(
        """
[[entry]]
register = ["PIR_EL1", 0x603000000013c512]
action = "only-source-if-reset"
reset = ["0x0"]
reason = "both."
""",
        "p",
    )
    single = [
        parse_document(
            f"""
[[entry]]
register = "{register}"
action = "only-source-if-reset"
reset = ["0x0"]
reason = "both."
""",
            "p",
        )
        for register in ("PIR_EL1", "PIRE0_EL1")
    ]
    assert several.everyone.entries == tuple(one.everyone.entries[0] for one in single)


@pytest.mark.parametrize("registers", ["[]", "['TCR2_EL1', 'TCR9_EL1']", "[['TCR2_EL1']]"])
def test_a_list_that_names_no_register_is_refused(registers: str) -> None:
    with pytest.raises(DocumentError, match="p: entry 1: register: "):
        parse_document(f"[[entry]]\nregister = {registers}\naction = 'hidden'", "p")


def test_a_file_longer_than_any_policy(tmp_path: Path) -> None:
    long = tmp_path / "long.toml"
    long.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(DocumentError, match=r"long\.toml: no policy is longer than \d+ bytes"):
        read_file(long)


def test_entries_of_one_accelerator_alone() -> None:
    told = from_options(tolerate=["PSCI_VERSION: cap at destination"])
    text = to_toml(told, accelerator=Accelerator.KVM)
    assert 'accelerator = "kvm"\n' in text
    document = parse_document(text, "p.toml")
    assert [p.tolerance for p in document.general(Accelerator.KVM).tolerances] == [
        CapAtDestination(PSCI)
    ]
    assert document.general(Accelerator.TCG).tolerances == ()
