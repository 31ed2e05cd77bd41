"""What each real kernel refuses of the others' register lists is what is foretold, to the register.

Every list of the atlas, set in a scratch vCPU of every other kernel on the same CPU model: eleven
kernels, six models. `tests/lab/test_kernel_refusals.py` (`make test-full`) asks the kernels and
writes the data.
"""

import json
import lzma
from pathlib import Path

import pytest

from armferry.decide.values import refusal
from armferry.ends import Destination
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.registers import Accelerator, name, parse_register

DATA = Path(__file__).parent / "data/kernel-refusals.json.xz"
KVM = Accelerator.KVM


def _named(indexes: set[int]) -> list[str]:
    return sorted(name(index, KVM) for index in indexes)


def test_every_refusal_is_foretold_and_no_other() -> None:
    entries = {entry.name: entry.fingerprint for entry in read_atlas().kernels}
    answers = json.loads(lzma.decompress(DATA.read_bytes()))
    assert answers.keys() == entries.keys()
    pairs = 0
    for there, sources in answers.items():
        (destination,) = end_of(entries[there]).destinations(1)
        for source, refused in sources.items():
            incoming = entries[source].cpus[0]
            foretold = {
                index
                for index, value in incoming.items()
                if index not in destination.registers or refusal(index, value, destination)
            }
            assert _named(foretold) == _named({int(index, 16) for index in refused}), (
                f"{source} to {there}"
            )
            pairs += 1
    assert pairs == 6 * 11 * 10


ISAR2 = parse_register("ID_AA64ISAR2_EL1")
MMFR2 = parse_register("ID_AA64MMFR2_EL1")
PFR0 = parse_register("ID_AA64PFR0_EL1")
MIDR = parse_register("MIDR_EL1")
ALL = (1 << 64) - 1


@pytest.mark.parametrize(
    ("index", "source", "own", "writable", "taken"),
    [
        pytest.param(ISAR2, 0x0, 1 << 60, ALL, True, id="less than the host has"),
        pytest.param(ISAR2, 1 << 60, 0x0, ALL, False, id="more than the host has"),
        pytest.param(ISAR2, 0x0, 1 << 60, ALL >> 4, False, id="bits that are not writable"),
        pytest.param(ISAR2, 0x0, 1 << 20, ALL, True, id="without the instruction BC"),
        pytest.param(MMFR2, 2 << 24, 0x0, 0x0, True, id="NV, which newer kernels forget"),
        pytest.param(MMFR2, 2 << 24, 1 << 24, 0x0, False, id="NV, on a kernel that shows it"),
        pytest.param(PFR0, 1 << 40, 0x0, 0x0, True, id="MPAM, which newer kernels forget"),
        pytest.param(MIDR, 0x410FD0C0, 0x414FD0C1, ALL, False, id="another CPU"),
        pytest.param(PFR0, 0x0, 1 << 60, None, True, id="CSV3 lowered on an old kernel"),
        pytest.param(PFR0, 1 << 60, 0x0, None, False, id="CSV3 raised on an old kernel"),
        pytest.param(MMFR2, 2 << 24, 0x0, None, False, id="NV on an old kernel"),
    ],
)
def test_what_a_kernel_lets_be_set(
    index: int, source: int, own: int, writable: int | None, taken: bool
) -> None:
    masks = None if writable is None else {index: writable}
    destination = Destination({index: own}, KVM, writable=masks)
    assert (refusal(index, source, destination) is None) is taken
