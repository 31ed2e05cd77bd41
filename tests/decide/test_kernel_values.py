"""What real kernels take of every field of every register that a guest cannot write, and keep.

Each value of each field, set alone in the kernel's own list: `tests/lab/test_kernel_values.py`
(`make test-full`) asks the kernels and writes the data.
"""

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from armferry.decide.kernel_values import Put, kept, put
from armferry.ends import Destination
from armferry.lab.value_sweep import trials_of
from armferry.registers import Accelerator, name

DATA = Path(__file__).parent / "data/kernel-values.json.xz"
ANSWERS: dict[str, dict[str, Any]] = json.loads(lzma.decompress(DATA.read_bytes()))
KVM = Accelerator.KVM


def numbers(texts: dict[str, str]) -> dict[int, int]:
    return {int(index, 16): int(value, 16) for index, value in texts.items()}


def test_every_sort_of_cpu_and_kernel_is_there() -> None:
    kernels = {entry.partition("/")[0] for entry in ANSWERS}
    assert {entry.partition("/")[2] for entry in ANSWERS} == {
        *("neoverse-n1", "cortex-a72", "a64fx", "max")
    }
    assert {".".join(kernel.split(".")[:2]) for kernel in kernels} >= {"6.1", "6.12", "6.17", "7.3"}


@pytest.mark.parametrize("entry", ANSWERS)
def test_every_value_is_taken_and_kept_as_predicted(entry: str) -> None:
    said = ANSWERS[entry]
    writable, hardware = (
        None if said[key] is None else numbers(said[key]) for key in ("writable", "hardware")
    )
    there = Destination(numbers(said["registers"]), KVM, writable=writable, hardware=hardware)
    wrong, unsure, trials = [], 0, 0
    for text, rows in said["taken"].items():
        index = int(text, 16)
        taken = {int(value, 16): int(read, 16) for value, read in rows}
        for value in trials_of(index, there.registers[index]):
            trials += 1
            predicted = put(index, value, there)
            if predicted is Put.UNKNOWN:
                unsure += 1
            elif (predicted is Put.TAKEN) is not (value in taken):
                wrong.append(f"{name(index, KVM)} = {value:#x}: {predicted.value}")
            elif value in taken and kept(index, value, there) != taken[value]:
                wrong.append(f"{name(index, KVM)} = {value:#x}: reads {taken[value]:#x}")
    assert wrong == []
    # the newer PMUs that some kernels take and others refuse, and nothing else
    assert unsure <= 14
    assert trials > 8000
