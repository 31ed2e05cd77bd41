"""Compat levels and what applies to a machine type."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armferry.policy import (
    EMPTY,
    AcceptedRisk,
    CapAtDestination,
    DifferInMask,
    DocumentError,
    MachineError,
    OnlySourceIfReset,
    OriginKind,
    Policy,
    PropertyError,
    PsciVersion,
    TakeDestination,
    Tolerance,
    aggregate,
    builtin_levels,
    from_options,
    parse_document,
    problems,
    resolve,
)
from armferry.registers import Accelerator, parse_register

KVM, TCG = Accelerator.KVM, Accelerator.TCG
DBGDTRTX = 0x40200000200E0298
BMAP_2 = 0x6030000000160003
PERMISSIONS = {0x603000000013C103, 0x603000000013C512, 0x603000000013C513}
# A kernel's steps, for every machine type: OSLSR_EL1, CCSIDR, the physical timer, PMMIR_EL1.
CACHES = {0x6020000000110000 + number for number in range(3, 0xE)}
STEPS = {
    OnlySourceIfReset(index)
    for index in (
        *CACHES,
        0x603000000013808C,
        0x603000000013C4F6,
        0x603000000013DF11,
        0x603000000013DF12,
        BMAP_2,
        *PERMISSIONS,
    )
}
# What waits for the user's word: the physical counter and firmware bitmaps that an older kernel
# lacks, and values that it fixes.
WAITING = {0x603000000013DF01, *(0x6030000000160000 + number for number in range(3))}
FIXED = {
    CapAtDestination(0x6030000000140000),
    *(TakeDestination(0x6020000000110000 + number) for number in range(3)),
    *(
        TakeDestination(parse_register(name))
        for name in (
            *("ID_AA64DFR0_EL1", "ID_DFR0_EL1", "ID_AA64MMFR2_EL1", "ID_AA64MMFR3_EL1"),
            *("ID_MMFR4_EL1", "ID_AA64PFR0_EL1", "CLIDR_EL1"),
        )
    ),
}
KERNELS = STEPS | FIXED | {DifferInMask(0x603000000013C039, 0xF << 60)}  # ECBHB
# What QEMU's own CPU code lists, for every machine type.
QEMUS = {OnlySourceIfReset(index) for index in (DBGDTRTX, 0x40200000200E0280, 0x6030000000139820)}


@pytest.mark.parametrize(
    ("machine", "accelerator", "hidden", "safe_missing", "tolerances"),
    [
        ("virt-11.0", KVM, set(), WAITING, KERNELS),
        ("virt-10.2", KVM, set(), {DBGDTRTX, *WAITING}, KERNELS),
        ("virt-10.2", TCG, set(), {DBGDTRTX}, QEMUS),
        ("virt-10.2", None, set(), {DBGDTRTX}, set()),
        ("virt-10.1", KVM, {BMAP_2}, {DBGDTRTX, *PERMISSIONS, *WAITING}, KERNELS),
        ("virt-10.0", TCG, set(), {DBGDTRTX}, QEMUS),
        ("virt-5.2", KVM, {BMAP_2}, {DBGDTRTX, *PERMISSIONS, *WAITING}, KERNELS),
        ("virt-2.6", TCG, set(), {DBGDTRTX}, QEMUS),
        ("virt", KVM, set(), WAITING, KERNELS),
        ("sbsa-ref", TCG, set(), set(), QEMUS),
        ("none", TCG, set(), set(), QEMUS),
        ("raspi4b", TCG, set(), set(), QEMUS),
        ("xlnx-versal-virt", TCG, set(), set(), QEMUS),
    ],
)
def test_a_machine_type_inherits_every_newer_level(
    machine: str,
    accelerator: Accelerator | None,
    hidden: set[int],
    safe_missing: set[int],
    tolerances: set[Tolerance],
) -> None:
    policy = aggregate(machine, accelerator)
    assert set(policy.hidden) == hidden
    assert set(policy.safe_missing) == safe_missing
    assert {placed.tolerance for placed in policy.tolerances} == tolerances
    assert aggregate(machine, accelerator, builtin=False) == EMPTY


def test_reset_values_come_with_the_levels() -> None:
    assert aggregate("virt-10.1", KVM).resets == {
        DBGDTRTX: {0},
        BMAP_2: {0},
        **{index: {0, 0x1DE7EC7EDBADC0DE} for index in PERMISSIONS},
        **{index: {2} for index in CACHES},
        0x603000000013808C: {8},
        0x603000000013C4F6: {0},
        0x603000000013DF11: {0, 4},
        0x603000000013DF12: {0},
    }


def test_every_shipped_entry_is_justified_and_none_is_a_problem() -> None:
    for document in builtin_levels():
        for number, entry in enumerate(document.everyone.entries, 1):
            for text in (entry.reason, entry.source, entry.risk):
                assert text.endswith("."), f"{document.name}: entry {number}"
    for accelerator in Accelerator:
        assert problems(aggregate("virt-2.6", accelerator)) == ()


@pytest.mark.parametrize(
    "machine", ["virt-rhel99.4.0", "virt-jamboree", "pve", "virt-7.2-hardened", "sbsa-reff"]
)
def test_a_machine_type_of_a_distribution_takes_the_defaults_and_says_so(machine: str) -> None:
    policy = aggregate(machine, KVM)
    assert replace(policy, notes=frozenset()) == aggregate("virt", KVM)
    assert policy.notes == {
        (
            f"machine type {machine} is none of QEMU's own, so it is decided with the defaults "
            "alone; if it is a distribution's, say in a policy file which version it is like: "
            f'[machine."{machine}"] like = "virt-8.2"'
        )
    }
    declared = parse_document(f'[machine."{machine}"]\nlike = "virt-8.2"\n', "site.toml")
    assert aggregate(machine, KVM, site=[declared]) == aggregate("virt-8.2", KVM)


@pytest.mark.parametrize(
    ("like", "hint"), [("virt-10", "."), ("sbsa-reff", ", did you mean 'sbsa-ref'?")]
)
def test_a_machine_type_like_one_that_nothing_declares_is_refused(like: str, hint: str) -> None:
    document = parse_document(f'[machine."homemade"]\nlike = "{like}"\n', "site.toml")
    with pytest.raises(MachineError) as error:
        aggregate("homemade", KVM, site=[document])
    assert str(error.value) == (
        f"unknown machine type {like!r}{hint} Accepted: virt, virt-X.Y such as virt-10.0, and "
        "QEMU's unversioned Arm machine types such as sbsa-ref"
    )


@pytest.mark.parametrize(
    "machine", ["virt-12345.0", f"virt-{'9' * 5000}.0", "virt-10.00", "x" * 101]
)
def test_a_machine_type_that_qemu_cannot_have_is_refused(machine: str) -> None:
    shown = machine if len(machine) <= 100 else f"{machine[:100]}..."
    with pytest.raises(MachineError) as error:
        aggregate(machine, KVM)
    assert str(error.value).startswith(f"unknown machine type {shown!r}. Accepted: virt, virt-X.Y")
    document = parse_document('[machine."homemade"]\nlike = "virt-12345.0"\n', "site.toml")
    with pytest.raises(MachineError):
        aggregate("homemade", KVM, site=[document])
    assert aggregate("x" * 100, KVM).notes


def test_the_series_own_options_on_an_old_machine_need_no_warning() -> None:
    """Nobody can take VENDOR_HYP_BMAP_2 out of a shipped level."""
    options = from_options(safe_missing=["VENDOR_HYP_BMAP_2"])
    for machine in ("virt-10.0", "virt-11.1"):
        assert problems(aggregate(machine, KVM, command_line=options)) == ()
    both = options.union(from_options(hidden=["VENDOR_HYP_BMAP_2"]))
    assert [str(one) for one in problems(both)] == [
        (
            "VENDOR_HYP_BMAP_2 is hidden and safe-missing: a hidden register is never sent, so the "
            "other never decides; keep one of the two (from --safe-missing-regs, --hidden-regs)"
        )
    ]


def test_a_re_key_into_a_narrower_register_is_a_problem() -> None:
    rules = from_options(tolerate=["TTBR0_EL1: re-key 0x40200000200e0280"])
    assert [str(one) for one in problems(rules)] == [
        (
            "'TTBR0_EL1: re-key DBGDTRTXINT' gives a register of 64 bits the index of one of 32: a "
            "value that does not fit is refused (from --tolerate)"
        )
    ]


SITE = parse_document(
    """
level = "virt-10.0"
[[entry]]
register = "PSCI_VERSION"
action = "cap at destination"
[[entry]]
register = "VENDOR_HYP_BMAP_2"
action = "hidden"
reason = "Ours too."
[machine."virt-rhel9.4.0"]
like = "virt-8.2"
[[machine."virt-rhel9.4.0".entry]]
register = "TCR2_EL1"
action = "hidden"
[machine."virt-8.2"]
accept-risk = ["lossy"]
[machine.homemade]
""",
    "/etc/armferry/site.toml",
    OriginKind.SITE,
)


def test_a_declared_machine_type_takes_levels_and_sections_of_what_it_is_like() -> None:
    assert resolve("virt-rhel9.4.0", [SITE]).names == ("virt-rhel9.4.0", "virt-8.2")
    assert resolve("virt-rhel9.4.0", [SITE]).version == (8, 2)
    policy = aggregate("virt-rhel9.4.0", KVM, site=[SITE])
    plain = aggregate("virt-8.2", KVM, site=[SITE])
    assert set(policy.hidden) - set(plain.hidden) == {0x603000000013C103}
    assert policy.accepted == plain.accepted == AcceptedRisk(lossy=True)
    capped = CapAtDestination(0x6030000000140000)
    assert {p.tolerance for p in policy.tolerances} == {capped, *KERNELS}
    assert aggregate("homemade", KVM, site=[SITE]) == aggregate("none", KVM)


def test_an_index_remembers_every_level_that_listed_it() -> None:
    options = from_options(hidden=["0x6030000000160003", "VENDOR_HYP_BMAP_2"])
    policy = aggregate("virt-10.0", KVM, site=[SITE], command_line=options)
    assert [origin.where for origin in policy.hidden[BMAP_2]] == [
        "compat level virt-10.1",
        "/etc/armferry/site.toml: level virt-10.0",
        "--hidden-regs",
    ]
    assert set(aggregate("virt-10.1", KVM, site=[SITE]).hidden[BMAP_2]) == set(
        aggregate("virt-10.1", KVM).hidden[BMAP_2]
    )


def test_machine_types_declared_in_a_circle_or_twice() -> None:
    circle = parse_document('[machine.a]\nlike = "b"\n[machine.b]\nlike = "a"\n', "c")
    with pytest.raises(MachineError) as error:
        resolve("a", [circle])
    assert str(error.value) == "machine type 'a' is declared in a circle: a like b like a"
    one = parse_document('[machine.a]\nlike = "virt-8.2"\n', "one")
    two = parse_document('[machine.a]\nlike = "virt-9.0"\n', "two")
    assert resolve("a", [one, one]) == resolve("a", [one])
    with pytest.raises(MachineError) as error:
        resolve("a", [one, two])
    assert str(error.value) == (
        "machine type 'a' is declared like virt-8.2 and like virt-9.0; keep one of them: one, two"
    )


def test_a_level_that_is_no_version_is_refused() -> None:
    document = parse_document('level = "rhel9"\n', "p.toml")
    with pytest.raises(DocumentError) as error:
        aggregate("virt", KVM, files=[document])
    assert str(error.value) == (
        "p.toml: level: 'rhel9' is no compat level; accepted: defaults, or a version of virt "
        'such as virt-10.1. For one machine type write [machine."NAME"]'
    )


DOCUMENTS = [
    SITE,
    parse_document('[[entry]]\nregister = "PSCI_VERSION"\naction = "take destination\'s"\n', "a"),
    parse_document('level = "defaults"\nkvm-psci-version = "1.0"\n', "b"),
    parse_document('[[entry]]\nregister = "TCR2_EL1"\nreset = [5]\n', "c"),
]


@given(st.sampled_from(list(itertools.permutations(DOCUMENTS))), st.integers(0, 4))
def test_aggregation_does_not_depend_on_order(order: tuple[object, ...], cut: int) -> None:
    documents = [document for document in order if isinstance(document, type(SITE))]
    expected = aggregate("virt-10.0", KVM, files=DOCUMENTS)
    assert aggregate("virt-10.0", KVM, site=documents[:cut], files=documents[cut:]) == expected
    assert aggregate("virt-10.0", KVM, files=documents * 2) == expected


def test_options_become_a_policy() -> None:
    policy = from_options(
        hidden=["0x6030000000160003"],
        safe_missing=["TCR2_EL1,PIR_EL1", ""],
        tolerate=["PSCI_VERSION: cap at destination"],
        psci_versions=["1.1"],
        accept_risk=["TCR2_EL1", "lossy"],
    )
    assert set(policy.safe_missing) == {0x603000000013C103, 0x603000000013C513}
    assert policy.psci_version == PsciVersion(1, 1)
    assert policy.accepted == AcceptedRisk(frozenset({0x603000000013C103}), lossy=True)
    origins = {o.where for placed in policy.tolerances for o in placed.origins}
    origins |= {o.where for listed in policy.safe_missing.values() for o in listed}
    assert origins == {"--tolerate", "--safe-missing-regs"}
    assert from_options() == Policy()
    with pytest.raises(PropertyError):
        from_options(safe_missing=["1,,,2"])


@pytest.mark.parametrize(
    ("machine", "version"),
    [
        ("virt-rhel9.4.0", (8, 2)),
        ("virt-rhel10.0.0", (9, 1)),
        ("virt-jammy", (6, 2)),
        ("virt-9.2+pve1", (9, 2)),
    ],
)
def test_machine_types_of_known_distributions(machine: str, version: tuple[int, int]) -> None:
    assert resolve(machine).version == version
    level = f"virt-{version[0]}.{version[1]}"
    assert aggregate(machine, KVM) == aggregate(level, KVM)


def test_site_knows_its_distribution_better() -> None:
    text = '[machine."virt-jammy"]\nlike = "virt-10.0"\n'
    document = parse_document(text, "site.toml", OriginKind.SITE)
    assert resolve("virt-jammy", [document]).version == (10, 0)
