"""Which step down of a version takes something away that a guest can use."""

import pytest

from armferry.decide.harms import LosesFeatures, ReadsElse
from armferry.decide.risk import assess, lost_features
from armferry.decide.risk_level import Risk
from armferry.registers import parse_register

DFR0, ID_DFR0, MMFR2, MIDR = map(
    parse_register, ("ID_AA64DFR0_EL1", "ID_DFR0_EL1", "ID_AA64MMFR2_EL1", "MIDR_EL1")
)


def named(index: int, shift: int, before: int, after: int) -> list[str]:
    return [one.field.name for one in lost_features(index, before << shift, after << shift)]


@pytest.mark.parametrize("version", range(1, 10))
def test_a_pmu_has_more_from_some_versions_on(version: int) -> None:
    lost = ["PMUVer"] if version in (1, 4, 6, 7, 8, 9) else []
    assert named(DFR0, 8, version, version - 1) == lost
    older = ["PerfMon"] if version in (1, 4, 6, 7, 8, 9) else []
    assert named(ID_DFR0, 24, version, version - 1) == older


@pytest.mark.parametrize("version", range(7, 12))
def test_debug_has_more_from_version_11_on(version: int) -> None:
    assert named(DFR0, 0, version, version - 1) == (["DebugVer"] if version == 11 else [])


def test_what_no_guest_can_use_takes_nothing_away() -> None:
    assert named(MMFR2, 24, 1, 0) == []  # NV
    assert named(MMFR2, 32, 1, 0) == ["AT"]
    assert named(MMFR2, 32, 0, 1) == []
    assert lost_features(MIDR, 0x413FD0C1, 0x410FD083) == ()


def test_lost_features_break_a_guest_and_others_are_seen() -> None:
    broken = assess(MMFR2, 1 << 32, 0, None)
    assert broken.risk is Risk.BREAKS
    assert isinstance(broken.harm, LosesFeatures)
    seen = assess(DFR0, 5 << 8, 4 << 8, None)
    assert seen.risk is Risk.GUEST_VISIBLE
    assert seen.harm == ReadsElse(5 << 8, 4 << 8)
