"""One cause in the place of many lines."""

import pytest

from armferry.decide import judge
from armferry.decide.features import CommonCause, common_causes
from armferry.ends import Destination, Move
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.policy import EMPTY
from armferry.registers import Accelerator, name, parse_register

from .moves import move_of


def causes(here: str, there: str) -> dict[str, CommonCause]:
    ends = [end_of(read_atlas().find(text).fingerprint, text) for text in (here, there)]
    verdict = judge(Move.between(*ends), EMPTY)
    return {one.subject: one for one in common_causes(verdict.decisions[0].anomalies)}


def test_another_cpu_and_what_it_has() -> None:
    found = causes("6.12/neoverse-v1", "6.12/neoverse-n1")
    assert set(found) == {"pointer authentication", "another CPU"}
    pauth = found["pointer authentication"]
    assert len(pauth.outcomes) == 10
    assert {name(one.index)[:2] for one in pauth.outcomes} == {"AP"}
    assert pauth.why == (
        "the source lists registers of pointer authentication, the destination does not "
        "(-cpu ...,pauth=on or off)"
    )
    assert found["another CPU"].why == (
        "these are what Arm Neoverse V1 r1p2 and Arm Neoverse N1 r4p1 say of themselves"
    )


def test_caches_that_newer_kernels_list() -> None:
    found = causes("6.12/neoverse-n1", "6.1/neoverse-n1")
    assert len(found["caches"].outcomes) == 11
    assert found["caches"].why.startswith("the source lists registers of caches, ")


@pytest.mark.parametrize("there", ["6.17/neoverse-n1", "6.12/neoverse-n1"])
def test_few_registers_stay_single_lines(there: str) -> None:
    assert causes("6.12/neoverse-n1", there) == {}


def test_memory_tagging_that_one_end_was_started_without() -> None:
    tags = {parse_register(one): 0 for one in ("RGSR_EL1", "GCR_EL1", "TFSR_EL1", "TFSRE0_EL1")}
    verdict = judge(move_of([{}], Destination(tags, Accelerator.KVM)), EMPTY)
    (cause,) = common_causes(verdict.decisions[0].anomalies)
    assert cause.counted == "4 of memory tagging (RGSR_EL1, GCR_EL1, TFSR_EL1, ...)"
    assert cause.why == (
        "the destination lists registers of memory tagging, the source does not "
        "(-machine mte=on or off)"
    )
