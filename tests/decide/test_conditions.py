"""Registers that KVM takes away with a field of an identification register, while QEMU loads."""

import pytest

from armferry.decide import MessageClass, Risk, decide, stock_verdict
from armferry.decide.conditions import taken_away
from armferry.ends import Move, SourceFacts
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.policy import EMPTY, aggregate, from_options
from armferry.registers import Accelerator, parse_register

KVM, TCG = Accelerator.KVM, Accelerator.TCG
MMFR3, SCTLR2 = parse_register("ID_AA64MMFR3_EL1"), parse_register("SCTLR2_EL1")
TCR2, PIR, PIRE0 = (parse_register(f"{name}_EL1") for name in ("TCR2", "PIR", "PIRE0"))


def list_of(kernel: str) -> dict[int, int]:
    return dict(read_atlas().find(f"{kernel}/max").fingerprint.cpus[0])


@pytest.mark.parametrize(
    ("source", "destination", "gone"),
    [
        ("6.16", "6.17", {SCTLR2: (MMFR3,)}),
        ("6.12", "6.17", {SCTLR2: (MMFR3,)}),
        ("6.1", "6.16", {TCR2: (MMFR3,), PIR: (MMFR3,), PIRE0: (MMFR3,)}),
        # it has them on every CPU
        ("6.1", "6.12", {}),
        ("6.17", "6.16", {}),
        ("6.17", "6.17", {}),
    ],
)
def test_what_a_lower_field_takes_away(
    source: str, destination: str, gone: dict[int, tuple[int, ...]]
) -> None:
    fpmr = parse_register("FPMR")
    found = taken_away(list_of(source), list_of(destination), KVM)
    assert {index: on for index, on in found.items() if index != fpmr} == gone


def test_tcg_takes_nothing_away() -> None:
    assert taken_away(list_of("6.16"), list_of("6.17"), TCG) == {}


@pytest.mark.parametrize("version", ["7.2.22", "10.0.13", "11.1.3"])
def test_stock_fails_where_a_register_of_its_own_is_gone(version: str) -> None:
    ends = [end_of(read_atlas().find(f"{kernel}/max").fingerprint) for kernel in ("6.16", "6.17")]
    verdict = stock_verdict(Move.between(*ends, qemu=version))
    assert (verdict.loads, verdict.message_class) == (False, MessageClass.REGISTERS_REFUSED)
    assert verdict.culprits == (SCTLR2,)


def test_a_field_that_takes_a_register_away_is_not_sent_unasked() -> None:
    (there,) = end_of(read_atlas().find("6.17/max").fingerprint).destinations(1)
    running = SourceFacts(reset=list_of("6.16"))
    decision = decide(list_of("6.16"), there, aggregate("virt-7.2", KVM), running)
    (refused,) = decision.refused
    assert (refused.index, refused.outgoing, refused.risk) == (MMFR3, None, Risk.GUEST_VISIBLE)
    assert "SCTLRX 0 -> 1" in refused.why
    accepted = decide(
        list_of("6.16"),
        there,
        aggregate("virt-7.2", KVM, command_line=from_options(accept_risk=["ID_AA64MMFR3_EL1"])),
        running,
    )
    assert accepted.accepted
    sent = accepted.outgoing
    assert sent[MMFR3] == there.registers[MMFR3]
    assert taken_away(sent, there.registers, KVM) == {}


def test_without_a_rule_the_refusal_says_what_would_be_gone() -> None:
    (there,) = end_of(read_atlas().find("6.17/max").fingerprint).destinations(1)
    nothing = decide(list_of("6.16"), there, EMPTY)
    (refused,) = (one for one in nothing.refused if one.index == MMFR3)
    assert refused.why.startswith(
        "the destination's kernel then takes SCTLR2_EL1 away, which its QEMU puts: SCTLRX 0 -> 1"
    )
