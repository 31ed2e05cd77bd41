"""kept.json: what was measured of each release, and how a model is told."""

import json
from importlib.resources import files

import pytest

from armferry.facts import kept_bits
from armferry.facts.kept import identification
from armferry.lab.releases import RELEASES
from armferry.registers import parse_register

COUNTER = parse_register("PMEVCNTR0_EL0")
ISAR0 = parse_register("ID_AA64ISAR0_EL1")
TPIDR = parse_register("TPIDR_EL0")
ALL = (1 << 64) - 1
DOCUMENT = json.loads(files("armferry.facts").joinpath("kept.json").read_text())


def test_every_release_of_the_rig_was_measured() -> None:
    assert DOCUMENT["measured"] == [release.version for release in RELEASES]
    for release in DOCUMENT["measured"]:
        assert {"cortex-a57", "max"} <= DOCUMENT["models"][release].keys()


@pytest.mark.parametrize("release", DOCUMENT["measured"])
def test_what_is_known_of_the_registers(release: str) -> None:
    found = kept_bits(release, "cortex-a57", {})
    assert found is not None
    assert (found.release, found.cpu) == (release, "cortex-a57")
    assert found.kept[COUNTER] == (ALL if release == "5.2.0" else 0xFFFF_FFFF)
    assert found.kept[TPIDR] == ALL
    assert found.kept[ISAR0] == 0
    assert (ISAR0 in found.unlisted) is (release == "11.1.3")


def test_a_release_between_two_is_taken_for_the_older() -> None:
    releases = {
        asked: found.release
        for asked in ("4.2", "5.2.0", "9.2.1", "10.0.5", "10.1.0", "12.0")
        if (found := kept_bits(asked, "cortex-a57", {})) is not None
    }
    assert releases == {
        "4.2": "5.2.0",
        "5.2.0": "5.2.0",
        "9.2.1": "7.2.22",
        "10.0.5": "10.0.2",
        "10.1.0": "10.0.13",
        "12.0": "11.1.3",
    }


def test_a_model_is_told_by_its_name_or_by_its_registers() -> None:
    named = kept_bits("10.0.13", "max,pauth-impdef=on", {})
    assert named is not None
    assert named.cpu == "max"
    assert kept_bits("10.0.13", "", {TPIDR: 1}) is None
    assert kept_bits("10.0.13", "", {}) is None
    assert identification({ISAR0: 1, TPIDR: 7}) == identification({TPIDR: 8, ISAR0: 1})
    assert identification({ISAR0: 1}) != identification({ISAR0: 2})
