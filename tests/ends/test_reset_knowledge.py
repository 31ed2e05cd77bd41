"""The one door to reset values: which fingerprint of the source's host is used, which is not."""

from dataclasses import replace

import pytest

from armferry.decide import judge
from armferry.ends import UNKNOWN, End, GuestHadRun, Move, ResetKnowledge
from armferry.gateway import Judge
from armferry.policy import aggregate
from armferry.registers import Accelerator, parse_register

TCR2, MIDR, PSCI = (parse_register(name) for name in ("TCR2_EL1", "MIDR_EL1", "PSCI_VERSION"))
N1 = 0x413FD0C1

GUEST = End(
    "guest.state",
    ({PSCI: 0x10001, MIDR: N1, TCR2: 0x1234},) * 2,
    Accelerator.KVM,
    at_reset=False,
    guest=True,
    machine="virt-10.0",
)
HOST = End(
    "host.json",
    ({PSCI: 0x10001, MIDR: N1, TCR2: 0x1234},),
    Accelerator.KVM,
    at_reset=True,
    machine="virt-10.0",
    cpu="host",
)
THERE = replace(HOST, text="there.json", cpus=({PSCI: 0x10001, MIDR: N1},))


def test_fingerprint_of_the_guests_own_sort_is_used_for_every_vcpu() -> None:
    known = ResetKnowledge.of(GUEST, HOST)
    assert known == ResetKnowledge((HOST.cpus[0],) * 2)
    assert ResetKnowledge.of(GUEST, replace(HOST, machine=UNKNOWN)).notes == ()


def test_fingerprint_of_a_guest_that_ran_is_refused() -> None:
    with pytest.raises(GuestHadRun) as error:
        Move.between(GUEST, THERE, host=replace(HOST, at_reset=False))
    assert str(error.value) == (
        "host.json: --source-fingerprint wants values after reset, these are from a guest that "
        "had run"
    )
    assert error.value.exit_code == 3


def test_gateway_refuses_it_before_a_guest_comes() -> None:
    with pytest.raises(GuestHadRun):
        Judge(THERE, aggregate, replace(HOST, at_reset=False))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (
            replace(HOST, accelerator=Accelerator.TCG),
            "a guest under TCG, the source is of one under KVM",
        ),
        (
            replace(HOST, machine="virt-9.2"),
            "machine type virt-9.2, the source is of machine type virt-10.0",
        ),
        (
            replace(HOST, cpus=({MIDR: 0x410FD080, TCR2: 0x1234},)),
            "a CPU with MIDR_EL1 0x410fd080, the source is of one with 0x413fd0c1",
        ),
    ],
)
def test_fingerprint_of_another_sort_is_not_used_and_that_is_said(
    other: End, difference: str
) -> None:
    move = Move.between(GUEST, THERE, host=other)
    assert [fact.reset for fact in move.facts] == [None, None]
    assert move.notes == (f"host.json is not used for reset values: it is of {difference}",)


def test_a_host_at_reset_speaks_for_itself() -> None:
    assert ResetKnowledge.of(HOST, None).values == HOST.cpus
    assert ResetKnowledge.of(replace(HOST, at_reset=False), None).values == (None,)
    other = replace(HOST, cpu="max")
    assert ResetKnowledge.of(HOST, other).values == HOST.cpus
    assert ResetKnowledge.of(HOST, other).notes == (
        "host.json is not used for reset values: it is of CPU max, the source is of CPU host",
    )


def test_value_that_a_wrong_fingerprint_holds_too_is_not_called_lossless() -> None:
    """The guest's own TCR2_EL1, dropped as the reset value of a host that is another."""
    policy = aggregate("virt-10.0", Accelerator.KVM)
    fits = judge(Move.between(GUEST, THERE, host=HOST), policy)
    assert str(fits.risk) == "lossless"
    wrong = judge(Move.between(GUEST, THERE, host=replace(HOST, machine="virt-9.2")), policy)
    assert (str(wrong.answer), str(wrong.risk)) == ("fails", "lossy")
