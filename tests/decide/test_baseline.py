"""The register set that every host of a group can give a guest."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from armferry.decide.baseline import make_baseline
from armferry.decide.merge import decide
from armferry.ends import UNKNOWN, End, HostFacts, NotKnown
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.policy import EMPTY
from armferry.registers import Accelerator, name, parse_register

PSCI = parse_register("PSCI_VERSION")


def host(text: str) -> End:
    return end_of(read_atlas().find(text).fingerprint, text)


N1 = ("6.12/neoverse-n1", "6.17/neoverse-n1", "7.3/neoverse-n1")


def test_three_kernels_on_one_cpu() -> None:
    made = make_baseline([host(text) for text in N1])
    assert made.possible
    assert made.registers[PSCI] == 0x10001
    assert [[name(index) for index in part.hidden] for part in made.hosts] == [
        ["TCR2_EL1", "PIRE0_EL1", "PIR_EL1"],
        ["VENDOR_HYP_BMAP_2"],
        ["PMMIR_EL1", "VENDOR_HYP_BMAP_2"],
    ]
    assert [dict(part.changed) for part in made.hosts] == [
        {}, {PSCI: (0x10003, 0x10001)}, {PSCI: (0x10003, 0x10001)}
    ]  # fmt: skip


@pytest.mark.parametrize("there", N1)
def test_no_host_refuses_what_it_presents(there: str) -> None:
    made = make_baseline([host(text) for text in N1])
    end = host(there)
    own = {index: value for index, value in end.cpus[0].items() if index in made.registers}
    destination = replace(end, cpus=(own,)).destinations(1)[0]
    decision = decide(made.registers, destination, EMPTY)
    assert [one.name for one in decision.refused] == []


def test_one_host_is_its_own_baseline() -> None:
    one = host(N1[0])
    made = make_baseline([one])
    assert made.registers == one.cpus[0]
    assert made.hosts[0].as_it_is


def test_two_cpus_are_impossible_with_the_register_named() -> None:
    made = make_baseline([host("6.12/neoverse-n1"), host("6.12/neoverse-v1")])
    assert not made.possible
    assert str(made.impossible[0]) == (
        "MIDR_EL1: Arm Neoverse N1 r4p1 on 6.12/neoverse-n1; Arm Neoverse V1 r1p2 on "
        "6.12/neoverse-v1; the kernel of 6.12/neoverse-n1, 6.12/neoverse-v1 does not let it be set"
    )
    pfr0 = next(one for one in made.impossible if one.subject == "ID_AA64PFR0_EL1")
    assert pfr0.why.startswith("RAS 1 SVE 0 DIT 0 on 6.12/neoverse-n1; RAS 2 SVE 1 DIT 1 on ")


def test_order_of_the_hosts_does_not_matter() -> None:
    ends = [host(text) for text in N1]
    there = make_baseline(ends)
    back = make_baseline(ends[::-1])
    fixed = {index for part in there.hosts for index in part.changed}
    assert {i: there.registers[i] for i in fixed} == {i: back.registers[i] for i in fixed}
    assert {part.text: part for part in there.hosts} == {part.text: part for part in back.hosts}


def test_what_no_list_holds() -> None:
    facts = HostFacts(counter_hz=25_000_000, page_bytes=4096, gic=frozenset({2, 3}), its=True)
    here = replace(host(N1[0]), host=facts)
    there = replace(host(N1[1]), host=facts)
    assert make_baseline([here, there]).gic == 3
    slow = replace(there, host=replace(facts, counter_hz=1_000_000_000))
    assert [str(one) for one in make_baseline([here, slow]).impossible] == [
        (
            f"CNTFRQ_EL0: 25 MHz on {N1[0]}; 1000 MHz on {N1[1]}: a guest's clock would run wrong, "
            "and nothing changes that"
        )
    ]
    old = replace(there, host=replace(facts, gic=frozenset({2})))
    assert make_baseline([here, old]).gic == 2
    none = replace(here, host=replace(facts, gic=frozenset({3})))
    assert [str(one) for one in make_baseline([none, old]).impossible] == [
        f"interrupt controller: GICv3 on {N1[0]}; GICv2 on {N1[1]}"
    ]
    large = replace(there, host=replace(facts, page_bytes=65536))
    assert not make_baseline([here, large]).steal_time


SERVICES, MMFR1, VECTORS = map(parse_register, ("STD_BMAP", "ID_AA64MMFR1_EL1", "ZCR_EL1"))
SPEC_SEI, ALL = 1 << 24, (1 << 64) - 1


def bare(
    text: str,
    registers: Mapping[int, int],
    sve_bits: frozenset[int] | NotKnown = UNKNOWN,
    writable: Mapping[int, int] | NotKnown = UNKNOWN,
) -> End:
    facts = HostFacts(sve_bits=sve_bits)
    return End(text, (registers,), Accelerator.KVM, True, host=facts, writable=writable)


def test_only_services_that_every_firmware_offers() -> None:
    made = make_baseline([bare("A", {SERVICES: 0b101}), bare("B", {SERVICES: 0b110})])
    assert made.possible
    assert made.registers == {SERVICES: 0b100}
    assert [dict(part.changed) for part in made.hosts] == [
        {SERVICES: (0b101, 0b100)}, {SERVICES: (0b110, 0b100)}
    ]  # fmt: skip


def test_the_higher_value_where_that_is_the_careful_one() -> None:
    """SpecSEI warns of what may happen: the guest is to expect it on every host."""
    settable = {MMFR1: ALL}
    hosts = [
        bare("A", {MMFR1: SPEC_SEI}, writable=settable),
        bare("B", {MMFR1: 0}, writable=settable),
    ]
    for ends in (hosts, hosts[::-1]):
        made = make_baseline(ends)
        assert made.possible
        assert made.registers == {MMFR1: SPEC_SEI}


def test_vector_lengths_that_another_host_lacks_are_turned_off() -> None:
    long = bare("A", {VECTORS: 0}, frozenset({128, 256, 512}))
    short = bare("B", {VECTORS: 0}, frozenset({128, 256}))
    made = make_baseline([long, short])
    assert [part.vectors_off for part in made.hosts] == [(512,), ()]
    assert [part.as_it_is for part in made.hosts] == [False, True]
    not_said = make_baseline([long, bare("C", {VECTORS: 0})])
    assert [part.vectors_off for part in not_said.hosts] == [(), ()]
    assert "vector lengths of C not recorded, so not compared" in not_said.notes
