"""`field <= destination`: each field of an identification register, in the order it really has."""

import pytest

from armferry.decide import RegisterClass, decide
from armferry.ends import Destination
from armferry.policy import from_options
from armferry.registers import Accelerator, describe, parse_register

FITS = [
    # counted upwards from 0
    ("ID_AA64ISAR0_EL1", "CRC32", 0, 1),
    ("ID_AA64ISAR2_EL1", "BC", 0, 1),
    ("ID_AA64MMFR0_EL1", "TGran16", 0, 1),
    ("ID_AA64PFR0_EL1", "SVE", 0, 1),
    # 0xf: not there
    ("ID_AA64PFR0_EL1", "FP", 0xF, 0),
    ("ID_AA64PFR0_EL1", "AdvSIMD", 0xF, 1),
    ("ID_AA64PFR1_EL1", "MTE_frac", 0xF, 0),
    ("ID_AA64MMFR0_EL1", "TGran4", 0xF, 0),
    ("ID_AA64MMFR0_EL1", "TGran64", 0xF, 1),
    ("ID_AA64DFR0_EL1", "DoubleLock", 0xF, 0),
    # versions of the PMU go on above 7, and 0xf is none of them
    ("ID_AA64DFR0_EL1", "PMUVer", 5, 8),
    ("ID_AA64DFR0_EL1", "PMUVer", 8, 9),
    ("ID_DFR0_EL1", "PerfMon", 7, 8),
    # safer when greater
    ("ID_AA64MMFR1_EL1", "SpecSEI", 1, 0),
    ("CTR_EL0", "CWG", 5, 4),
    ("CTR_EL0", "ERG", 0, 4),
    # a line is never longer than the guest believes
    ("CTR_EL0", "DminLine", 4, 5),
    ("CTR_EL0", "IDC", 0, 1),
]
NEVER = [
    # how it works, not how much of it there is
    ("ID_AA64MMFR0_EL1", "TGran4_2", 1, 2),
    ("ID_AA64ISAR1_EL1", "APA", 1, 2),
    ("CTR_EL0", "L1Ip", 2, 3),
    ("DCZID_EL0", "BS", 4, 5),
    # 0 there says that it is unknown, so it could be more
    ("CTR_EL0", "CWG", 4, 0),
    # who it is
    ("MIDR_EL1", "PartNum", 0xD07, 0xD0C),
    ("MIDR_EL1", "Revision", 0, 1),
    ("CLIDR_EL1", "LoC", 1, 2),
]
REFUSED = [
    *((name, field, own, source) for name, field, source, own in FITS),
    *NEVER,
    ("MIDR_EL1", "Revision", 1, 0),
]
RULE = "{}: field <= destination"


def value(register: str, field: str, number: int) -> int:
    [low] = [f.low for f in describe(parse_register(register)).fields if f.name == field]
    return number << low


def accepted(register: str, source: int, own: int) -> bool:
    index = parse_register(register)
    rule = from_options(tolerate=[RULE.format(register)])
    decision = decide({index: source}, Destination({index: own}, Accelerator.TCG), rule)
    [outcome] = decision.outcomes
    if decision.accepted:
        assert outcome.register_class is RegisterClass.VALUE_TOLERATED
        assert outcome.outgoing == own
    return decision.accepted


@pytest.mark.parametrize(("register", "field", "source", "own"), FITS)
def test_field_is_no_greater(register: str, field: str, source: int, own: int) -> None:
    assert accepted(register, value(register, field, source), value(register, field, own))


@pytest.mark.parametrize(("register", "field", "source", "own"), REFUSED)
def test_field_is_greater_or_another(register: str, field: str, source: int, own: int) -> None:
    assert not accepted(register, value(register, field, source), value(register, field, own))


def test_one_field_that_is_greater_refuses_the_register() -> None:
    aes, crc = value("ID_AA64ISAR0_EL1", "AES", 2), value("ID_AA64ISAR0_EL1", "CRC32", 1)
    assert accepted("ID_AA64ISAR0_EL1", crc, crc | aes)
    assert not accepted("ID_AA64ISAR0_EL1", crc, aes)


def test_bits_without_a_name_must_stay_set() -> None:
    # S3_0_C0_C7_7 is in the reserved part of the identification space: nobody named its bits
    assert accepted("S3_0_C0_C7_7", 0b0001, 0b1001)
    assert not accepted("S3_0_C0_C7_7", 0b0100, 0b1001)
