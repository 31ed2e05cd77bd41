"""What KVM puts into registers at reset and lets be written, against every list of the atlas."""

import pytest

from armferry.facts.kvm import holds_kvm_reset_pattern, kvm_reset_pattern, kvm_values
from armferry.hosts.fingerprints.atlas import Entry, read_atlas
from armferry.registers import Kind, kind, parse_register

PATTERN = 0x1DE7_EC7E_DBAD_C0DE
PMCR, PMSELR = parse_register("PMCR_EL0"), parse_register("PMSELR_EL0")
TYPE, ENABLED = parse_register("PMEVTYPER3_EL0"), parse_register("PMCNTENSET_EL0")
SIX_COUNTERS = {PMCR: 6 << 11}


@pytest.mark.parametrize("entry", read_atlas().kernels, ids=lambda entry: entry.name)
def test_every_pmu_register_of_a_fresh_guest_holds_it_or_zero(entry: Entry) -> None:
    registers = entry.fingerprint.cpus[0]
    pmu = [i for i in registers if kind(i) is Kind.PMU and i != PMCR]
    held = [i for i in pmu if registers[i] and holds_kvm_reset_pattern(i, registers)]
    constants = {parse_register(f"PMCEID{n}_EL0") for n in (0, 1)}
    assert {i for i in pmu if registers[i]} - {*held, *constants} == set()
    assert len(held) >= 65


@pytest.mark.parametrize(
    ("index", "registers", "held"),
    [
        (TYPE, {TYPE: 0xC800_C0DE}, True),
        (TYPE, {TYPE: 0xC800_0011}, False),
        (ENABLED, {ENABLED: 0x8000_001E, **SIX_COUNTERS}, True),
        (ENABLED, {ENABLED: 0x8000_000F, **SIX_COUNTERS}, False),
        # the cycle counter, switched on by the guest, where there are no others
        (ENABLED, {ENABLED: 0x8000_0000, PMCR: 0}, False),
        (ENABLED, {ENABLED: 0x8000_0000}, False),
        (PMSELR, {PMSELR: 0x1E, **SIX_COUNTERS}, True),
        (PMSELR, {PMSELR: 0x1E, PMCR: 31 << 11}, False),
        (PMSELR, {PMSELR: 0x02, **SIX_COUNTERS}, False),
        (parse_register("PMCCNTR_EL0"), {parse_register("PMCCNTR_EL0"): PATTERN}, True),
        (parse_register("TPIDR_EL1"), {parse_register("TPIDR_EL1"): 0xDBAD_C0DE}, False),
    ],
)
def test_pattern_as_a_register_keeps_it(index: int, registers: dict[int, int], held: bool) -> None:
    assert kvm_reset_pattern() == PATTERN
    assert holds_kvm_reset_pattern(index, registers) is held


def test_bits_that_any_kernel_lets_be_written_are_those_of_the_atlas() -> None:
    ever: dict[int, int] = {}
    for entry in read_atlas().kernels:
        for index, mask in (entry.fingerprint.writable or {}).items():
            ever[index] = ever.get(index, 0) | mask
    assert kvm_values().ever_writable == {index: mask for index, mask in ever.items() if mask}
