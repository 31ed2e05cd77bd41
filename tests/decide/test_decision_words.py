"""Each class and each risk, with what a person is told about it, word for word."""

import pytest

from armferry.decide import RegisterClass as Class
from armferry.decide import Risk, decide
from armferry.ends import Destination, SourceFacts
from armferry.policy import EMPTY, Policy, aggregate, from_options
from armferry.registers import Accelerator, parse_register

KVM, TCG = Accelerator.KVM, Accelerator.TCG
UNKNOWN = SourceFacts()

MIDR = 0x603000000013C000
DFR0 = 0x603000000013C028
ISAR1 = 0x603000000013C031
TTBR = 0x603000000013C100
TCR2 = 0x603000000013C103
PMMIR = 0x603000000013C4F6
PSCI = 0x6030000000140000
WORKAROUND = 0x6030000000140002
BMAP = 0x6030000000160003
VENDOR_BMAP = 0x6030000000160002
PMCR = 0x603000000013DCE0
STD_BMAP = 0x6030000000160000
CYCLES = 0x603000000013DCE8
OLD = 0x40200000200E0298
NEW = 0x40200000200E0280


def tolerate(*rules: str, accept: str = "") -> Policy:
    return from_options(tolerate=rules, accept_risk=[accept] if accept else [])


Row = tuple[Class, int | None, Risk, str]
Case = tuple[dict[int, int], dict[int, int], Accelerator, Policy, SourceFacts, list[Row]]

CASES: dict[str, Case] = {
    "matched": (
        {TTBR: 5},
        {TTBR: 0},
        KVM,
        EMPTY,
        UNKNOWN,
        [(Class.MATCHED, 0x5, Risk.NONE, "")],
    ),
    "hidden": (
        {TCR2: 0},
        {TCR2: 0},
        KVM,
        from_options(hidden=["TCR2_EL1"]),
        UNKNOWN,
        [
            (
                Class.HIDDEN,
                None,
                Risk.LOSSLESS,
                "hidden from the VM; the destination holds the same value, so nothing is lost",
            )
        ],
    ),
    "hidden on both ends, zero there and not here": (
        {TCR2: 0, PSCI: 0x10001},
        {TCR2: 0x1DE7EC7EDBADC0DE, PSCI: 0x10001},
        KVM,
        from_options(hidden=["TCR2_EL1"]),
        UNKNOWN,
        [
            (Class.HIDDEN, None, Risk.LOSSY, "hidden from the VM; its value 0x0 is lost"),
            (Class.MATCHED, 0x10001, Risk.NONE, ""),
        ],
    ),
    "hidden on both ends, another value is sent": (
        {TCR2: 0},
        {TCR2: 9},
        TCG,
        from_options(hidden=["TCR2_EL1"]),
        UNKNOWN,
        [(Class.HIDDEN, 9, Risk.LOSSY, "hidden from the VM; its value 0x0 is lost")],
    ),
    "hidden lossy": (
        {TCR2: 7},
        {},
        KVM,
        from_options(hidden=["TCR2_EL1"]),
        UNKNOWN,
        [(Class.HIDDEN, None, Risk.LOSSY, "hidden from the VM; its value 0x7 is lost")],
    ),
    "hidden dest": (
        {},
        {TCR2: 7},
        TCG,
        from_options(hidden=["TCR2_EL1"]),
        UNKNOWN,
        [
            (
                Class.HIDDEN,
                0x7,
                Risk.LOSSLESS,
                "the source does not have it; sent at its reset value",
            )
        ],
    ),
    "hidden firmware": (
        {STD_BMAP: 1},
        {},
        KVM,
        from_options(hidden=["STD_BMAP"]),
        SourceFacts(reset={STD_BMAP: 1}),
        [
            (
                Class.HIDDEN,
                None,
                Risk.GUEST_VISIBLE,
                (
                    "hidden from the VM; the guest sees TRNG_V1_0 now; on the destination the "
                    "register does not exist"
                ),
            )
        ],
    ),
    "firmware that the destination lacks": (
        {STD_BMAP: 1},
        {},
        KVM,
        EMPTY,
        SourceFacts(reset={STD_BMAP: 1}),
        [
            (
                Class.ONLY_INCOMING,
                None,
                Risk.GUEST_VISIBLE,
                (
                    "the destination does not know it and no rule allows dropping it; the guest "
                    "sees TRNG_V1_0 now; on the destination the register does not exist"
                ),
            )
        ],
    ),
    "firmware of a guest that never ran": (
        {STD_BMAP: 1},
        {},
        KVM,
        from_options(safe_missing=["STD_BMAP"]),
        SourceFacts(fresh=True),
        [
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                "declared safe to be missing; the guest never ran, so nothing is lost",
            )
        ],
    ),
    "a counter has run since its host was recorded": (
        {CYCLES: 0xCF24A158},
        {},
        KVM,
        tolerate("PMCCNTR_EL0: only-source-if-reset"),
        SourceFacts(reset={CYCLES: 0xCF24A158}),
        [
            (
                Class.ONLY_INCOMING,
                None,
                Risk.LOSSY,
                (
                    "the destination does not know it and no rule allows dropping it; the "
                    "guest's value is 0xcf24a158"
                ),
            )
        ],
    ),
    "safe": (
        {TCR2: 0},
        {},
        KVM,
        from_options(safe_missing=["TCR2_EL1"]),
        UNKNOWN,
        [
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                "declared safe to be missing; it is zero, as after reset, so nothing is lost",
            )
        ],
    ),
    "safe kvm mark": (
        {TCR2: 0x1DE7EC7EDBADC0DE},
        {},
        KVM,
        from_options(safe_missing=["TCR2_EL1"]),
        UNKNOWN,
        [
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSY,
                "declared safe to be missing; its value 0x1de7ec7edbadc0de is lost",
            )
        ],
    ),
    "only incoming reset": (
        {TCR2: 0},
        {},
        KVM,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                (
                    "the destination does not know it and no rule allows dropping it; it is "
                    "zero, as after reset"
                ),
            )
        ],
    ),
    "only incoming lossy": (
        {TCR2: 7},
        {},
        KVM,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.ONLY_INCOMING,
                None,
                Risk.LOSSY,
                (
                    "the destination does not know it and no rule allows dropping it; the "
                    "guest's value is 0x7"
                ),
            )
        ],
    ),
    "only incoming fresh": (
        {TCR2: 7},
        {},
        KVM,
        EMPTY,
        SourceFacts(fresh=True),
        [
            (
                Class.ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                (
                    "the destination does not know it and no rule allows dropping it; the guest "
                    "never ran"
                ),
            )
        ],
    ),
    "only incoming known reset": (
        {TCR2: 7},
        {},
        KVM,
        EMPTY,
        SourceFacts(reset={TCR2: 7}),
        [
            (
                Class.ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                (
                    "the destination does not know it and no rule allows dropping it; 0x7 is the "
                    "source's reset value"
                ),
            )
        ],
    ),
    "only incoming, read by the guest": (
        {PMMIR: 6},
        {},
        KVM,
        tolerate("PMMIR_EL1: only-source-if-reset"),
        SourceFacts(reset={PMMIR: 6}),
        [
            (
                Class.ONLY_INCOMING,
                None,
                Risk.GUEST_VISIBLE,
                (
                    "the destination does not know it and no rule allows dropping it; the guest "
                    "sees 0x6 now; on the destination the register does not exist"
                ),
            )
        ],
    ),
    "safe, read by the guest": (
        {PMMIR: 6},
        {},
        KVM,
        from_options(safe_missing=["PMMIR_EL1"]),
        SourceFacts(reset={PMMIR: 6}),
        [
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.GUEST_VISIBLE,
                (
                    "declared safe to be missing; the guest sees 0x6 now; on the destination the "
                    "register does not exist"
                ),
            )
        ],
    ),
    "hidden, read by the guest": (
        {BMAP: 3},
        {BMAP: 1},
        KVM,
        from_options(hidden=["VENDOR_HYP_BMAP_2"]),
        SourceFacts(reset={BMAP: 3}),
        [
            (
                Class.HIDDEN,
                None,
                Risk.GUEST_VISIBLE,
                (
                    "hidden from the VM; the guest sees DISCOVER_IMPL_VER, DISCOVER_IMPL_CPUS "
                    "now; on the destination DISCOVER_IMPL_VER"
                ),
            )
        ],
    ),
    "not both": (
        {TCR2: 7},
        {},
        KVM,
        tolerate("TCR2_EL1: not-on-both-ends"),
        UNKNOWN,
        [
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSY,
                "may exist on one end only; its value 0x7 is lost",
            )
        ],
    ),
    "not both, a kind": (
        {TCR2: 7},
        {},
        KVM,
        tolerate("translation: not-on-both-ends"),
        UNKNOWN,
        [
            (
                Class.ONLY_INCOMING,
                None,
                Risk.LOSSY,
                (
                    "may exist on one end only; its value 0x7 is lost; not done unless you name "
                    "it (--accept-risk TCR2_EL1 or lossy)"
                ),
            )
        ],
    ),
    "not both, a kind, at reset": (
        {TCR2: 0},
        {},
        KVM,
        tolerate("translation: not-on-both-ends"),
        UNKNOWN,
        [
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                "may exist on one end only; it is zero, as after reset, so nothing is lost",
            )
        ],
    ),
    "not both, a kind, accepted": (
        {TCR2: 7},
        {},
        KVM,
        tolerate("translation: not-on-both-ends", accept="lossy"),
        UNKNOWN,
        [
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSY,
                "may exist on one end only; its value 0x7 is lost",
            )
        ],
    ),
    "src if": (
        {TCR2: 7},
        {},
        KVM,
        tolerate("TCR2_EL1: only-source-if (value & 0x8) == 0x0"),
        UNKNOWN,
        [
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSY,
                "may be dropped while value & 0x8 is 0x0; its value 0x7 is lost",
            )
        ],
    ),
    "src reset": (
        {TCR2: 0},
        {},
        KVM,
        tolerate("TCR2_EL1: only-source-if-reset"),
        UNKNOWN,
        [
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                (
                    "may be dropped while it holds its reset value; it is zero, as after reset, "
                    "so nothing is lost"
                ),
            )
        ],
    ),
    "src reset val": (
        {TCR2: 9},
        {},
        KVM,
        tolerate("TCR2_EL1: only-source-if-reset 0x9"),
        UNKNOWN,
        [
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                (
                    "may be dropped while it holds its reset value; its value is a reset value "
                    "by the rule, so nothing is lost"
                ),
            )
        ],
    ),
    "dest kvm": (
        {},
        {PMMIR: 6},
        KVM,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.ONLY_DESTINATION,
                None,
                Risk.LOSSLESS,
                "the source does not have it; keeps its reset value",
            )
        ],
    ),
    "dest tcg": (
        {},
        {PMMIR: 6},
        TCG,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.ONLY_DESTINATION,
                0x6,
                Risk.LOSSLESS,
                "the source does not have it; sent at its reset value",
            )
        ],
    ),
    "dest tol": (
        {},
        {PMMIR: 6},
        TCG,
        tolerate("PMMIR_EL1: not-on-both-ends"),
        UNKNOWN,
        [
            (
                Class.TOLERATED_ONLY_DESTINATION,
                0x6,
                Risk.LOSSLESS,
                "the source does not have it; sent at its reset value",
            )
        ],
    ),
    "rekey": (
        {OLD: 3},
        {NEW: 0},
        TCG,
        tolerate("0x40200000200e0298: re-key 0x40200000200e0280"),
        UNKNOWN,
        [
            (
                Class.VALUE_REFUSED,
                None,
                Risk.LOSSY,
                (
                    "comes as DBGDTRTX, its name on the source; the destination fixes it at 0x0: "
                    "DTRTX 3 -> 0"
                ),
            ),
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                "sent as DBGDTRTXINT, its name on the destination",
            ),
        ],
    ),
    "rekey of a value that fits": (
        {OLD: 0},
        {NEW: 0},
        TCG,
        tolerate("0x40200000200e0298: re-key 0x40200000200e0280"),
        UNKNOWN,
        [
            (
                Class.VALUE_TOLERATED,
                0x0,
                Risk.LOSSLESS,
                "comes as DBGDTRTX, its name on the source",
            ),
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                "sent as DBGDTRTXINT, its name on the destination",
            ),
        ],
    ),
    "rekey of a value that a rule changes": (
        {OLD: 3},
        {NEW: 0},
        TCG,
        tolerate(
            "0x40200000200e0298: re-key 0x40200000200e0280",
            "0x40200000200e0280: take destination's",
        ),
        UNKNOWN,
        [
            (
                Class.VALUE_TOLERATED,
                0x0,
                Risk.LOSSY,
                (
                    "comes as DBGDTRTX, its name on the source; the destination's value is taken: "
                    "DTRTX 3 -> 0"
                ),
            ),
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                "sent as DBGDTRTXINT, its name on the destination",
            ),
        ],
    ),
    "rekey into a narrower register": (
        {TTBR: 0x123456789ABCDEF},
        {NEW: 0},
        TCG,
        tolerate("TTBR0_EL1: re-key 0x40200000200e0280"),
        UNKNOWN,
        [
            (
                Class.VALUE_REFUSED,
                None,
                Risk.LOSSY,
                (
                    "comes as TTBR0_EL1, its name on the source; its value 0x123456789abcdef has "
                    "more bits than the destination's register"
                ),
            ),
            (
                Class.TOLERATED_ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                "sent as DBGDTRTXINT, its name on the destination",
            ),
        ],
    ),
    "rekey never over a register that the source has": (
        {OLD: 0, NEW: 0},
        {NEW: 0},
        TCG,
        tolerate("0x40200000200e0298: re-key 0x40200000200e0280"),
        UNKNOWN,
        [
            (Class.MATCHED, 0x0, Risk.NONE, ""),
            (
                Class.ONLY_INCOMING,
                None,
                Risk.LOSSLESS,
                (
                    "the destination does not know it and no rule allows dropping it; it is zero, "
                    "as after reset"
                ),
            ),
        ],
    ),
    "another algorithm of pointer authentication": (
        {ISAR1: 1 << 4},
        {ISAR1: 5 << 4},
        TCG,
        from_options(accept_risk=["guest-visible", "lossy"]).union(
            tolerate("identification: take destination's")
        ),
        UNKNOWN,
        [
            (
                Class.VALUE_REFUSED,
                None,
                Risk.BREAKS,
                (
                    "the destination's value is taken: APA 1 -> 5; breaks a guest that uses APA; "
                    "not done unless you name it (--accept-risk ID_AA64ISAR1_EL1 or breaks)"
                ),
            )
        ],
    ),
    "what breaks is accepted by its own word": (
        {ISAR1: 1 << 4},
        {ISAR1: 5 << 4},
        TCG,
        tolerate("identification: take destination's", accept="breaks"),
        UNKNOWN,
        [
            (
                Class.VALUE_TOLERATED,
                5 << 4,
                Risk.BREAKS,
                "the destination's value is taken: APA 1 -> 5; breaks a guest that uses APA",
            )
        ],
    ),
    "fields that only rise": (
        {ISAR1: 1 << 20},
        {ISAR1: 2 << 20},
        TCG,
        tolerate("identification: field <= destination", accept="guest-visible"),
        UNKNOWN,
        [
            (
                Class.VALUE_TOLERATED,
                2 << 20,
                Risk.GUEST_VISIBLE,
                "no field is beyond the destination's: LRCPC 1 -> 2",
            )
        ],
    ),
    "value refused": (
        {MIDR: 0x410FD070},
        {MIDR: 0x410FD0C1},
        KVM,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.VALUE_REFUSED,
                None,
                Risk.GUEST_VISIBLE,
                (
                    "the destination fixes it at 0x410fd0c1: Arm Cortex-A57 r0p0 -> Arm Neoverse "
                    "N1 r0p1"
                ),
            )
        ],
    ),
    "dfr0": (
        {DFR0: 0x10305106},
        {DFR0: 0x10305006},
        KVM,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.VALUE_REFUSED,
                None,
                Risk.BREAKS,
                (
                    "the destination fixes it at 0x10305006: PMUVer 1 -> 0; breaks a guest that "
                    "uses PMUVer"
                ),
            )
        ],
    ),
    "take named": (
        {MIDR: 0x410FD070},
        {MIDR: 0x410FD0C1},
        KVM,
        tolerate("MIDR_EL1: take destination's"),
        UNKNOWN,
        [
            (
                Class.VALUE_TOLERATED,
                0x410FD0C1,
                Risk.GUEST_VISIBLE,
                "the destination's value is taken: Arm Cortex-A57 r0p0 -> Arm Neoverse N1 r0p1",
            )
        ],
    ),
    "take kind": (
        {MIDR: 0x410FD070},
        {MIDR: 0x410FD0C1},
        KVM,
        tolerate("identification: take destination's"),
        UNKNOWN,
        [
            (
                Class.VALUE_REFUSED,
                None,
                Risk.GUEST_VISIBLE,
                (
                    "the destination's value is taken: Arm Cortex-A57 r0p0 -> Arm Neoverse N1 "
                    "r0p1; "
                    "not done unless you name it (--accept-risk MIDR_EL1 or guest-visible)"
                ),
            )
        ],
    ),
    "take kind acc": (
        {MIDR: 0x410FD070},
        {MIDR: 0x410FD0C1},
        KVM,
        tolerate("identification: take destination's", accept="guest-visible"),
        UNKNOWN,
        [
            (
                Class.VALUE_TOLERATED,
                0x410FD0C1,
                Risk.GUEST_VISIBLE,
                "the destination's value is taken: Arm Cortex-A57 r0p0 -> Arm Neoverse N1 r0p1",
            )
        ],
    ),
    "take kind fresh": (
        {MIDR: 0x410FD070},
        {MIDR: 0x410FD0C1},
        KVM,
        tolerate("identification: take destination's"),
        SourceFacts(fresh=True),
        [
            (
                Class.VALUE_TOLERATED,
                0x410FD0C1,
                Risk.LOSSLESS,
                "the destination's value is taken: Arm Cortex-A57 r0p0 -> Arm Neoverse N1 r0p1",
            )
        ],
    ),
    "mask": (
        {MIDR: 0x410FD0C0},
        {MIDR: 0x410FD0C1},
        KVM,
        tolerate("MIDR_EL1: differ-in-mask 0xf"),
        UNKNOWN,
        [
            (
                Class.VALUE_TOLERATED,
                0x410FD0C1,
                Risk.GUEST_VISIBLE,
                "it differs in the bits 0xf only: Arm Neoverse N1 r0p0 -> Arm Neoverse N1 r0p1",
            )
        ],
    ),
    "field": (
        {DFR0: 0x10305006},
        {DFR0: 0x10305106},
        KVM,
        tolerate("ID_AA64DFR0_EL1: field <= destination"),
        UNKNOWN,
        [
            (
                Class.VALUE_TOLERATED,
                0x10305106,
                Risk.GUEST_VISIBLE,
                "no field is beyond the destination's: PMUVer 0 -> 1",
            )
        ],
    ),
    "psci": (
        {PSCI: 0x10003},
        {PSCI: 0x10001},
        KVM,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.VALUE_REFUSED,
                None,
                Risk.GUEST_VISIBLE,
                "the destination offers PSCI 1.1 at most: PSCI 1.3 -> PSCI 1.1",
            )
        ],
    ),
    "workaround that KVM takes for none": (
        {WORKAROUND: 1},
        {WORKAROUND: 0},
        KVM,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.NOT_KEPT,
                1,
                Risk.GUEST_VISIBLE,
                "the destination's kernel takes it and keeps unknown -> not available",
            )
        ],
    ),
    "workaround that is on": (
        {WORKAROUND: 0x12},
        {WORKAROUND: 3},
        KVM,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.NOT_KEPT,
                0x12,
                Risk.GUEST_VISIBLE,
                "the destination's kernel takes it and keeps available, enabled -> not required",
            )
        ],
    ),
    "workaround that is missing": (
        {WORKAROUND: 2},
        {WORKAROUND: 1},
        KVM,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.VALUE_REFUSED,
                None,
                Risk.GUEST_VISIBLE,
                "the destination offers unknown at most: available -> unknown",
            )
        ],
    ),
    "psci cap": (
        {PSCI: 0x10003},
        {PSCI: 0x10001},
        KVM,
        tolerate("PSCI_VERSION: cap at destination"),
        UNKNOWN,
        [
            (
                Class.VALUE_TOLERATED,
                0x10001,
                Risk.GUEST_VISIBLE,
                "it is capped at the destination's: PSCI 1.3 -> PSCI 1.1",
            )
        ],
    ),
    "psci pin": (
        {PSCI: 0x10003},
        {PSCI: 0x10001},
        KVM,
        from_options(psci_versions=["1.1"]),
        UNKNOWN,
        [
            (
                Class.VALUE_TOLERATED,
                0x10001,
                Risk.GUEST_VISIBLE,
                "kvm-psci-version pins PSCI 1.1: PSCI 1.3 -> PSCI 1.1",
            )
        ],
    ),
    "psci pin high": (
        {PSCI: 0x10001},
        {PSCI: 0x10001},
        KVM,
        from_options(psci_versions=["1.3"]),
        UNKNOWN,
        [
            (
                Class.VALUE_REFUSED,
                None,
                Risk.GUEST_VISIBLE,
                (
                    "kvm-psci-version pins PSCI 1.3, which the destination does not offer: PSCI "
                    "1.3 -> PSCI 1.1"
                ),
            )
        ],
    ),
    "not kept": (
        {PMCR: 0x4041},
        {PMCR: 0x3000},
        KVM,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.NOT_KEPT,
                0x4041,
                Risk.GUEST_VISIBLE,
                "the destination's kernel takes it and keeps N 8 -> 6",
            )
        ],
    ),
    "bmap": (
        {VENDOR_BMAP: 3},
        {VENDOR_BMAP: 1},
        KVM,
        EMPTY,
        UNKNOWN,
        [
            (
                Class.VALUE_REFUSED,
                None,
                Risk.GUEST_VISIBLE,
                ("the destination lacks PTP: FUNC_FEAT, PTP -> FUNC_FEAT"),
            )
        ],
    ),
    "bmap cap": (
        {VENDOR_BMAP: 3},
        {VENDOR_BMAP: 1},
        KVM,
        tolerate("VENDOR_HYP_BMAP: cap at destination"),
        UNKNOWN,
        [
            (
                Class.VALUE_TOLERATED,
                0x1,
                Risk.GUEST_VISIBLE,
                ("it is capped at the destination's: FUNC_FEAT, PTP -> FUNC_FEAT"),
            )
        ],
    ),
}


@pytest.mark.parametrize(
    ("incoming", "own", "accelerator", "policy", "facts", "expected"),
    list(CASES.values()),
    ids=list(CASES),
)
def test_what_becomes_of_a_register_and_why(
    incoming: dict[int, int],
    own: dict[int, int],
    accelerator: Accelerator,
    policy: Policy,
    facts: SourceFacts,
    expected: list[Row],
) -> None:
    decision = decide(incoming, Destination(own, accelerator), policy, facts)
    assert [
        (outcome.register_class, outcome.outgoing, outcome.risk, outcome.why)
        for outcome in decision.outcomes
    ] == expected


def test_the_cases_show_every_class_and_every_risk() -> None:
    rows = [row for case in CASES.values() for row in case[-1]]
    assert {row[0] for row in rows} == set(Class)
    assert {row[2] for row in rows} == set(Risk)


def test_the_mark_of_kvm_is_a_reset_value_only_where_kvm_wrote_it() -> None:
    mark = 0x1DE7EC7EDBADC0DE
    missing = from_options(safe_missing=["TCR2_EL1"])
    for also, risk in ((PSCI, Risk.LOSSLESS), (OLD, Risk.LOSSY)):
        decision = decide({also: 0, TCR2: mark}, Destination({also: 0}, KVM), missing)
        assert decision.outcomes[-1 if also == OLD else 0].risk is risk


@pytest.mark.parametrize(
    ("register", "value"),
    [
        ("PMEVTYPER3_EL0", 0xC800_C0DE),
        ("PMEVCNTR3_EL0", 0xDBAD_C0DE),
        ("PMCNTENSET_EL0", 0x8000_001E),
        ("PMCCNTR_EL0", 0x1DE7_EC7E_DBAD_C0DE),
    ],
)
def test_the_mark_of_kvm_counts_as_the_register_keeps_it(register: str, value: int) -> None:
    index, counters = parse_register(register), parse_register("PMCR_EL0")
    missing = from_options(safe_missing=[register])
    incoming = {PSCI: 0, counters: 6 << 11}
    for there, risk in ((value, Risk.LOSSLESS), (value ^ 0x10, Risk.LOSSY)):
        decision = decide({**incoming, index: there}, Destination(incoming, KVM), missing)
        (outcome,) = decision.anomalies
        assert (outcome.index, outcome.risk) == (index, risk)


@pytest.mark.parametrize("fact", [SourceFacts(), SourceFacts(reset={PMMIR: 6})])
def test_no_shipped_level_changes_what_the_guest_reads(fact: SourceFacts) -> None:
    """A level lets PMMIR_EL1 stay behind while it is 0, not whenever the host never changes it."""
    known = aggregate("virt-10.1", KVM)
    [zero] = decide({PSCI: 1, PMMIR: 0}, Destination({PSCI: 1}, KVM), known, fact).anomalies
    assert (zero.register_class, zero.risk) == (Class.TOLERATED_ONLY_INCOMING, Risk.LOSSLESS)
    [wide] = decide({PSCI: 1, PMMIR: 6}, Destination({PSCI: 1}, KVM), known, fact).anomalies
    assert (wide.register_class, wide.risk) == (Class.ONLY_INCOMING, Risk.GUEST_VISIBLE)


def test_another_guests_value_is_not_passed_on_unasked() -> None:
    used = Destination({TTBR: 0x40, TCR2: 0, MIDR: 5}, TCG, at_reset=False)
    refused, zero, constant = (decide({}, used, EMPTY).outcomes[at] for at in (1, 2, 0))
    assert (zero.outgoing, zero.risk) == (None, Risk.GUEST_VISIBLE)
    assert (refused.register_class, refused.outgoing, refused.risk, refused.why) == (
        Class.VALUE_REFUSED,
        None,
        Risk.GUEST_VISIBLE,
        (
            "the source does not have it; 0x40 is what another guest left there; not done unless "
            "you name it (--accept-risk TTBR0_EL1 or guest-visible)"
        ),
    )
    assert (constant.outgoing, constant.risk, constant.why) == (
        5,
        Risk.LOSSLESS,
        "the source does not have it; sent at the value it was recorded with",
    )
    for accepted in ("TTBR0_EL1", "guest-visible"):
        taken = decide({}, used, from_options(accept_risk=[accepted])).outcomes[1]
        assert (taken.register_class, taken.outgoing, taken.risk, taken.why) == (
            Class.ONLY_DESTINATION,
            0x40,
            Risk.GUEST_VISIBLE,
            "the source does not have it; 0x40 is what another guest left there",
        )
    kept = decide({PSCI: 0}, Destination({PSCI: 0, TTBR: 0x40}, KVM, at_reset=False), EMPTY)
    assert kept.outcomes[0].why == "the source does not have it; keeps its reset value"


def test_a_hidden_register_does_not_travel_under_another_name() -> None:
    rules = tolerate("0x40200000200e0298: re-key 0x40200000200e0280")
    hidden = rules.union(from_options(hidden=["0x40200000200e0298"]))
    decision = decide({OLD: 3}, Destination({NEW: 0}, TCG), hidden)
    assert decision.outgoing == {NEW: 0}


def test_a_list_of_a_guest_that_ran_does_not_tell_what_a_fresh_one_reads() -> None:
    """Under KVM nothing is sent for a hidden register: the destination's reset value is read."""
    hidden = from_options(hidden=["TTBR0_EL1"])
    ran = Destination({TTBR: 0x40, PSCI: 1}, KVM, at_reset=False)
    outcome = decide({TTBR: 0x40, PSCI: 1}, ran, hidden).outcomes[0]
    assert (outcome.risk, outcome.why) == (
        Risk.LOSSY,
        "hidden from the VM; its value 0x40 is lost",
    )
    fresh = Destination({TTBR: 0x40, PSCI: 1}, KVM)
    outcome = decide({TTBR: 0x40, PSCI: 1}, fresh, hidden).outcomes[0]
    assert (outcome.risk, outcome.why) == (
        Risk.LOSSLESS,
        "hidden from the VM; the destination holds the same value, so nothing is lost",
    )
