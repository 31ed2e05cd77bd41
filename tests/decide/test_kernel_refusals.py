"""What each real kernel refuses of the others' register lists is what is predicted, each register.

Every list of the atlas, set in a scratch vCPU of every other kernel on the same CPU model: eleven
kernels, six models. `tests/lab/test_kernel_refusals.py` (`make test-full`) asks the kernels and
writes the data.
"""

import json
import lzma
from pathlib import Path

import pytest

from armferry.decide import RegisterClass, Risk, decide
from armferry.decide.kernel_values import Put, kept, put
from armferry.decide.values import refusal
from armferry.ends import Destination
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.policy import EMPTY
from armferry.registers import Accelerator, name, parse_register

DATA = Path(__file__).parent / "data/kernel-refusals.json.xz"
KVM = Accelerator.KVM


def _named(indexes: set[int]) -> list[str]:
    return sorted(name(index, KVM) for index in indexes)


def test_every_refusal_is_predicted_and_no_other() -> None:
    entries = {entry.name: entry.fingerprint for entry in read_atlas().kernels}
    answers = json.loads(lzma.decompress(DATA.read_bytes()))
    assert answers.keys() <= entries.keys()
    pairs = 0
    for there, sources in answers.items():
        (destination,) = end_of(entries[there]).destinations(1)
        for source, refused in sources.items():
            incoming = entries[source].cpus[0]
            predicted = {
                index
                for index, value in incoming.items()
                if index not in destination.registers or refusal(index, value, destination)
            }
            assert _named(predicted) == _named({int(index, 16) for index in refused}), (
                f"{source} to {there}"
            )
            pairs += 1
    assert pairs == 6 * 11 * 10


ISAR2 = parse_register("ID_AA64ISAR2_EL1")
MMFR0, MMFR2 = parse_register("ID_AA64MMFR0_EL1"), parse_register("ID_AA64MMFR2_EL1")
PFR0, DFR0 = parse_register("ID_AA64PFR0_EL1"), parse_register("ID_AA64DFR0_EL1")
DEBUG, ISAR5 = parse_register("ID_DFR0_EL1"), parse_register("ID_ISAR5_EL1")
MIDR, CTR, CLIDR = (parse_register(f"{name}") for name in ("MIDR_EL1", "CTR_EL0", "CLIDR_EL1"))
CACHES = {0x6020_0000_0011_0000 + number: 2 for number in range(14)}
L1D, L1I = 0x6020_0000_0011_0000, 0x6020_0000_0011_0001
BITMAP_2, PSCI = 0x6030_0000_0016_0003, 0x6030_0000_0014_0000
WORKAROUND_2 = 0x6030_0000_0014_0002
ALL = (1 << 64) - 1
NV, MPAM = 2 << 24, 1 << 40


@pytest.mark.parametrize(
    ("index", "source", "own", "writable", "answer"),
    [
        pytest.param(ISAR2, 0x0, 1 << 60, ALL, Put.TAKEN, id="less than the host has"),
        pytest.param(ISAR2, 1 << 60, 0x0, ALL, Put.REFUSED, id="more than the host has"),
        pytest.param(ISAR2, 0x0, 1 << 60, ALL >> 4, Put.REFUSED, id="bits that are not writable"),
        pytest.param(ISAR2, 0x0, 1 << 20, ALL, Put.TAKEN, id="without the instruction BC"),
        pytest.param(MMFR2, NV, 0x0, 0x0, Put.UNKNOWN, id="NV, of hardware that was not asked"),
        pytest.param(MMFR2, NV, 1 << 24, 0x0, Put.REFUSED, id="NV, on a kernel that shows it"),
        pytest.param(PFR0, MPAM, 0x0, 0x0, Put.UNKNOWN, id="MPAM, of hardware that was not asked"),
        pytest.param(MIDR, 0x410FD0C0, 0x414FD0C1, ALL, Put.REFUSED, id="another CPU"),
        pytest.param(PFR0, 0x0, 1 << 60, None, Put.TAKEN, id="CSV3 lowered on an old kernel"),
        pytest.param(PFR0, 1 << 60, 0x0, None, Put.REFUSED, id="CSV3 raised on an old kernel"),
        pytest.param(MMFR2, NV, 0x0, None, Put.REFUSED, id="NV on an old kernel"),
        pytest.param(DFR0, 5, 8, ALL, Put.REFUSED, id="a debug architecture before Armv8"),
        pytest.param(DFR0, 6, 8, ALL, Put.TAKEN, id="the debug architecture of Armv8.0"),
        pytest.param(DFR0, 0xF06, 0x406, ALL, Put.TAKEN, id="a PMU not by the book"),
        pytest.param(DFR0, 0x806, 0x406, ALL, Put.UNKNOWN, id="a newer PMU than the host has"),
        pytest.param(DEBUG, 2 << 24 | 6, 4 << 24 | 6, ALL, Put.REFUSED, id="a PMU before PMUv3"),
        pytest.param(DEBUG, 6, 4 << 24 | 6, ALL, Put.TAKEN, id="no PMU"),
        pytest.param(MMFR0, 1 << 40, 3 << 40, ALL, Put.TAKEN, id="no granule in stage 2"),
        pytest.param(MMFR0, 2 << 40, 3 << 40, ALL, Put.REFUSED, id="another granule in stage 2"),
        pytest.param(CTR, 2 << 14, 3 << 14, ALL, Put.TAKEN, id="VIPT on PIPT"),
        pytest.param(CTR, 1 << 14, 3 << 14, ALL, Put.REFUSED, id="AIVIVT on PIPT"),
    ],
)
def test_what_a_kernel_lets_be_set(
    index: int, source: int, own: int, writable: int | None, answer: Put
) -> None:
    masks = None if writable is None else {index: writable}
    destination = Destination({index: own}, KVM, writable=masks)
    assert put(index, source, destination) is answer
    assert (refusal(index, source, destination) is None) is (answer is Put.TAKEN)


@pytest.mark.parametrize(
    ("index", "source", "own", "answer"),
    [
        pytest.param(ISAR2, 0x0, 1 << 60, Put.UNKNOWN, id="less than the host has"),
        pytest.param(ISAR2, 1 << 60, 0x0, Put.REFUSED, id="more than the host has"),
        pytest.param(MIDR, 0x410FD0C0, 0x414FD0C1, Put.REFUSED, id="another CPU"),
        pytest.param(MMFR2, NV, 0x0, Put.UNKNOWN, id="NV"),
        pytest.param(PFR0, 0x12, 0x12, Put.TAKEN, id="the same"),
    ],
)
def test_a_kernel_whose_masks_were_not_recorded(
    index: int, source: int, own: int, answer: Put
) -> None:
    """A stream: the kernel is one that lists all caches, so it takes values, but which?"""
    assert put(index, source, Destination({**CACHES, index: own}, KVM)) is answer
    assert put(L1D, 0x1A, Destination({**CACHES, index: own}, KVM)) is Put.TAKEN


@pytest.mark.parametrize("index", [MMFR2, PFR0])
@pytest.mark.parametrize("number", range(1, 16))
def test_a_field_that_kernels_hide_is_taken_at_the_hardwares_value_alone(
    index: int, number: int
) -> None:
    low = {MMFR2: 24, PFR0: 40}[index]
    for hardware, answer in (
        ({index: number << low}, Put.TAKEN),
        ({index: (number ^ 1) << low}, Put.REFUSED),
        ({index: 0}, Put.REFUSED),
        ({}, Put.REFUSED),
    ):
        there = Destination({index: 0x11}, KVM, writable={index: 0}, hardware=hardware)
        assert put(index, number << low | 0x11, there) is answer
        assert kept(index, number << low | 0x11, there) == 0x11


@pytest.mark.parametrize(
    ("index", "source", "registers", "answer"),
    [
        # lines of 64 bytes at least: CTR_EL0 counts words, CCSIDR sixteen bytes
        pytest.param(L1D, 0x1A, {**CACHES, CTR: 4 << 16 | 3}, Put.TAKEN, id="long lines"),
        pytest.param(L1D, 0x19, {**CACHES, CTR: 4 << 16 | 3}, Put.REFUSED, id="short lines"),
        pytest.param(L1I, 0x19, {**CACHES, CTR: 4 << 16 | 3}, Put.TAKEN, id="of instructions"),
        pytest.param(L1D, 0x1A, {L1D: 2, CTR: 0}, Put.REFUSED, id="a kernel that lists its own"),
        # no level of coherency says that nothing need be cleaned, and CTR_EL0.IDC does not
        pytest.param(CLIDR, 0x21, {CLIDR: 0x9200023, CTR: 0}, Put.REFUSED, id="IDC not there"),
        pytest.param(CLIDR, 1 << 24, {CLIDR: 0x9200023, CTR: 0}, Put.REFUSED, id="nor here"),
        pytest.param(CLIDR, 0x21, {CLIDR: 0x9200023, CTR: 1 << 28}, Put.TAKEN, id="IDC there"),
        pytest.param(CLIDR, 0x9200003, {CLIDR: 0x9200023, CTR: 0}, Put.TAKEN, id="fewer caches"),
        pytest.param(CLIDR, 1 << 47 | 0x9200023, {CLIDR: 0x9200023}, Put.REFUSED, id="no field"),
        pytest.param(PFR0, 0x10, {PFR0: 0x11, BITMAP_2: 0}, Put.REFUSED, id="no EL0"),
        pytest.param(PFR0, 0x10, {PFR0: 0x11}, Put.TAKEN, id="no EL0, up to 6.12"),
        pytest.param(ISAR5, 0x1, {ISAR5: 0, PFR0: 0x11}, Put.TAKEN, id="without AArch32"),
        pytest.param(ISAR5, 0x1, {ISAR5: 0, PFR0: 0x12}, Put.REFUSED, id="with AArch32"),
        pytest.param(BITMAP_2, 0x3, {BITMAP_2: 0}, Put.TAKEN, id="off after reset"),
        pytest.param(BITMAP_2, 0x4, {BITMAP_2: 0}, Put.REFUSED, id="no such service"),
        pytest.param(PSCI, 0x10002, {PSCI: 0x10003}, Put.TAKEN, id="an older PSCI"),
        pytest.param(PSCI, 0x3, {PSCI: 0x10003}, Put.REFUSED, id="no such PSCI"),
        pytest.param(WORKAROUND_2, 0x12, {WORKAROUND_2: 3}, Put.TAKEN, id="switched on"),
        pytest.param(WORKAROUND_2, 0x13, {WORKAROUND_2: 3}, Put.REFUSED, id="not to be switched"),
    ],
)
def test_what_depends_on_the_rest_of_the_list(
    index: int, source: int, registers: dict[int, int], answer: Put
) -> None:
    there = Destination(registers, KVM, writable={PFR0: ALL, CLIDR: ALL >> 17})
    assert put(index, source, there) is answer


@pytest.mark.parametrize(
    ("own", "after"), [(0, 0), (0x8000001E, 0x80000003)], ids=["before 6.13", "from 6.13 on"]
)
def test_a_counter_that_the_guest_enabled(own: int, after: int) -> None:
    """The kernel is put the register that sets, then the one that clears, with the same value."""
    enabled, overflows = parse_register("PMCNTENSET_EL0"), parse_register("PMOVSSET_EL0")
    there = Destination({enabled: own, overflows: 0x8000001E}, KVM)
    assert kept(enabled, 0x80000003, there) == after


def test_what_is_not_kept_is_said_with_what_the_guest_reads() -> None:
    pmcr = parse_register("PMCR_EL0")
    there = Destination({pmcr: 0x3000, PSCI: 0x10001}, KVM)
    (outcome,) = decide({pmcr: 0x410C4041, PSCI: 0x10001}, there, EMPTY).anomalies
    assert (outcome.register_class, outcome.outgoing, outcome.risk) == (
        RegisterClass.NOT_KEPT,
        0x410C4041,
        Risk.GUEST_VISIBLE,
    )
    assert outcome.why.startswith("the destination's kernel takes it and keeps ")
    assert "N 8 -> 6" in outcome.why


@pytest.mark.parametrize(
    ("register", "source", "own", "after"),
    [
        ("PMCR_EL0", 0x4000, 0x3000, 0x3000),
        ("PMCR_EL0", 0x2041, 0x3000, 0x2041),
        ("PMCR_EL0", 0x3F46, 0x3000, 0x3046),
        ("PMCR_EL0", 0x410C3041, 0x3000, 0x3041),
        ("PMCR_EL0", 0x410C3041, 0x410C3000, 0x410C3041),
        ("ID_AA64DFR0_EL1", 0xF06, 0x406, 0x006),
        ("SMCCC_ARCH_WORKAROUND_1", 0, 2, 2),
        ("TTBR0_EL1", 0x40, 0, 0x40),
    ],
)
def test_what_the_guest_reads_of_a_value_that_was_taken(
    register: str, source: int, own: int, after: int
) -> None:
    index = parse_register(register)
    assert kept(index, source, Destination({index: own}, KVM)) == after


def test_a_pair_is_kept_as_put_where_nothing_shows_that_it_is_cleared() -> None:
    enabled, overflows = parse_register("PMINTENSET_EL1"), parse_register("PMOVSSET_EL0")
    own = {enabled: 0}
    assert kept(enabled, 5, Destination(own, KVM)) == 5
    assert kept(enabled, 5, Destination(own | {overflows: 1}, KVM)) == 0
