"""The English of causes that no recorded pair of hosts shows, and of each piece of a sentence."""

import pytest

from armferry.decide.causes import (
    Capped,
    Condition,
    Dropped,
    HeldReset,
    Meaningless,
    PartTaken,
    Permission,
    StockIgnores,
    Unlisted,
    ValueChanged,
)
from armferry.decide.harms import Harm, NothingLost, ReadsElse, ResetByRule, SameThere, Zero
from armferry.decide.words import why
from armferry.ends import UNKNOWN
from armferry.policy import aggregate, format_tolerance, parse_tolerance
from armferry.registers import Accelerator, parse_register

TTBR = parse_register("TTBR0_EL1")
GONE = NothingLost(Zero())


def said(permission: Permission, harm: Harm = GONE) -> str:
    return why(TTBR, "TTBR0_EL1", Dropped(permission, harm))


@pytest.mark.parametrize(
    ("permission", "words"),
    [
        (Condition(0xFF, 1), "may be dropped while value & 0xff is 0x1"),
        (HeldReset(), "may be dropped while it holds its reset value"),
        (StockIgnores(), "the destination's QEMU loads the guest without it"),
        (Unlisted(), "the destination has it, though not in its list"),
    ],
)
def test_why_it_may_stay_behind(permission: Permission, words: str) -> None:
    assert said(permission) == f"{words}; it is zero, as after reset, so nothing is lost"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (NothingLost(ResetByRule()), "its value is a reset value by the rule, so nothing is lost"),
        (SameThere(), "the destination holds the same value, so nothing is lost"),
        (
            ReadsElse(5, None),
            "the guest sees 0x5 now; on the destination the register does not exist",
        ),
        (
            ReadsElse(5, UNKNOWN),
            "the guest sees 0x5 now; what it sees on the destination is not known",
        ),
        (ReadsElse(5, 7), "the guest sees 0x5 now; on the destination 0x7"),
    ],
)
def test_what_it_costs(harm: Harm, words: str) -> None:
    assert said(HeldReset(), harm) == f"may be dropped while it holds its reset value; {words}"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Capped(), "it is capped at the destination's: bit 2 1 -> 0"),
        (PartTaken(4), "its bits 0x4 do not stay and are the destination's: bit 2 1 -> 0"),
        (Meaningless(4), "its bits 0x4 do not stay and mean nothing (RES0): left out"),
    ],
)
def test_why_another_value_is_sent(rule: Capped | PartTaken | Meaningless, words: str) -> None:
    assert why(TTBR, "TTBR0_EL1", ValueChanged(rule, 5, 1, SameThere())) == words


def test_a_move_without_a_machine_type_is_noted() -> None:
    assert len(aggregate("", Accelerator.KVM).notes) == 1
    assert not aggregate("virt", Accelerator.KVM).notes


@pytest.mark.parametrize("register", ["TCR2_EL1", "CNTV_CVAL_EL0", "SCTLR_S"])
def test_a_register_is_written_so_that_it_reads_back(register: str) -> None:
    index = parse_register(register, Accelerator.TCG)
    for number in (index, 0x603000000013DF1A, 0x603000000013DF02):
        rule = parse_tolerance(f"{number:#x}: not-on-both-ends")
        assert parse_tolerance(format_tolerance(rule)) == rule
