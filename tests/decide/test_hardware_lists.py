"""Lists of real hardware: Neoverse N1, V1 and V2 on Linux 5.10, 6.1 and 6.18, every ordered pair.

No such hardware was run. The lists are made in the form in which others publish theirs
(Firecracker's cpu-template-helper): the kernel's list from the atlas, what the CPU says of itself
from public dumps and manuals.
"""

import itertools
import json
import re

import pytest

from armferry.decide import Answer, RegisterClass, Verdict, judge
from armferry.decide.features import common_causes
from armferry.ends import End, Move
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.hosts.fingerprints.documents import read_document
from armferry.policy import aggregate
from armferry.registers import Accelerator, parse_register

KERNELS = ("5.10", "6.1", "6.18")
CPUS = ("N1", "V1", "V2")
_MODELS = {"N1": "neoverse-n1", "V1": "neoverse-v1", "V2": "neoverse-n2"}
_HARDWARE = {
    "N1": {"MIDR_EL1": 0x413FD0C1, "CTR_EL0": 0x9444C004, "CLIDR_EL1": 0xC3000123},
    "V1": {"MIDR_EL1": 0x411FD401, "CTR_EL0": 0xB444C004, "CLIDR_EL1": 0xC3000123},
    "V2": {
        "MIDR_EL1": 0x410FD4F1,
        "REVIDR_EL1": 0x17,
        "CTR_EL0": 0xB444C004,
        "CLIDR_EL1": 0x82000023,
        "ID_AA64PFR0_EL1": 0x1101011021111111,
        "ID_AA64PFR1_EL1": 0x21,
        "ID_AA64DFR0_EL1": 0xF010305006,
        "ID_AA64ISAR0_EL1": 0x1221100110212120,
        "ID_AA64ISAR1_EL1": 0x11111100211002,
        "ID_AA64MMFR0_EL1": 0x22200101125,
        "ID_AA64MMFR1_EL1": 0x10312122,
        "ID_AA64MMFR2_EL1": 0x1221011112001011,
    },
}
_BY_KERNEL = {
    ("V2", "5.10"): {
        "ID_AA64MMFR1_EL1": 0x1000000010312122,  # ECBHB is shown
        "ID_AA64MMFR2_EL1": 0x1221011112101011,  # and NV
    },
}
_BARE = re.compile(r"0x[0-9a-f]{9,}")
"""A value so long that nobody reads it without its fields."""
_FIELDS = re.compile(r": .* -> ")


def document(cpu: str, kernel: str) -> bytes:
    """What cpu-template-helper would dump there."""
    own = read_atlas().find(f"{kernel}/{_MODELS[cpu]}").fingerprint
    changes = _HARDWARE[cpu] | _BY_KERNEL.get((cpu, kernel), {})
    registers = dict(own.cpus[0]) | {
        index: value
        for index, value in ((parse_register(name), value) for name, value in changes.items())
        if index in own.cpus[0]
    }
    rows = [
        {"addr": f"{index:#018x}", "bitmap": f"0b{value:0128b}"}
        for index, value in registers.items()
    ]
    text = {
        "firecracker_version": "1.13.0",
        "kernel_version": own.provenance.kernel,
        "guest_cpu_config": {"kvm_capabilities": [], "vcpu_features": [], "reg_modifiers": rows},
    }
    return json.dumps(text).encode()


def host(cpu: str, kernel: str) -> End:
    text = f"{cpu} on {kernel}"
    return end_of(read_document(document(cpu, kernel), text), text)


HOSTS = {(cpu, kernel): host(cpu, kernel) for cpu in CPUS for kernel in KERNELS}
PAIRS = tuple(itertools.permutations(HOSTS, 2))


def verdict(here: tuple[str, str], there: tuple[str, str]) -> Verdict:
    policy = aggregate("virt-9.2", Accelerator.KVM)
    return judge(Move.between(HOSTS[here], HOSTS[there]), policy)


def test_there_are_seventy_two() -> None:
    assert len(PAIRS) == 72


@pytest.mark.parametrize(
    ("here", "there"), PAIRS, ids=[f"{' '.join(a)} to {' '.join(b)}" for a, b in PAIRS]
)
def test_every_pair_is_answered_with_reasons(here: tuple[str, str], there: tuple[str, str]) -> None:
    said = verdict(here, there)
    (decision,) = said.decisions
    for outcome in decision.refused:
        assert not outcome.name.startswith(("0x", "S3_")), outcome
        assert outcome.why, outcome
        if outcome.register_class is RegisterClass.VALUE_REFUSED and _BARE.search(outcome.why):
            assert _FIELDS.search(outcome.why), outcome.why
    if here[0] != there[0]:
        assert said.answer is Answer.FAILS
        assert "MIDR_EL1" in {one.name for one in decision.refused}
        assert any(note.startswith("two different CPUs: Arm Neoverse ") for note in said.notes)
        assert "another CPU" in {one.subject for one in common_causes(decision.anomalies)}
    else:
        assert not any(note.startswith("two different CPUs") for note in said.notes)
        assert "MIDR_EL1" not in {one.name for one in decision.refused}


@pytest.mark.parametrize(("here", "there"), [("5.10", "6.1"), ("6.1", "5.10")])
def test_branch_history_that_one_kernel_shows(here: str, there: str) -> None:
    """ECBHB: a rule knows it; what the guest reads changes, so it waits for a word."""
    move = Move.between(HOSTS["V2", here], HOSTS["V2", there])
    quiet = judge(move, aggregate("virt-9.2", Accelerator.KVM))
    (mine,) = [o for o in quiet.decisions[0].anomalies if o.name == "ID_AA64MMFR1_EL1"]
    assert [origin.where for origin in mine.origins] == ["defaults (kernels.toml)"] or mine.origins
    assert "ECBHB" in mine.why
