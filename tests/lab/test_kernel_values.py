"""Every value of every field of every register that a guest cannot write, tried on real kernels.

The long way round for `tests/decide/test_kernel_values.py`, whose data it writes: it boots each
kernel on each CPU model and sets each value alone, in a scratch vCPU.
"""

import json
import lzma
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from armferry.lab.atlas_record import KvmEntry
from armferry.lab.kernels import KernelStore, UnknownKernelError
from armferry.lab.value_sweep import sweep
from armferry.registers import describe

pytestmark = [pytest.mark.kernel, pytest.mark.full]

DATA = Path(__file__).parents[1] / "decide/data/kernel-values.json.xz"


def obtainable(entry: str) -> bool:
    """Whether the archive, or this machine, still has the kernel: point releases leave."""
    try:
        KernelStore().get(entry.partition("/")[0])
    except UnknownKernelError:
        return False
    return True


def test_every_kernel_takes_what_it_took() -> None:
    before = json.loads(lzma.decompress(DATA.read_bytes()))
    entries = [entry for entry in before if obtainable(entry)]
    assert len(entries) > len(before) / 2

    def asked(entry: str) -> dict[str, Any]:
        kernel, _, cpu = entry.partition("/")
        with KvmEntry(kernel, cpu).boot() as host:
            done = host.run(["armferry", "fingerprint", "kvm"], time_limit=600.0)
            found = json.loads(done.stdout)
            registers = {int(index, 16) for index in found["cpus"][0]["registers"]}
            fixed = [i for i in registers if describe(i).constant or describe(i).kind.is_firmware]
            trials = sweep(host, sorted(fixed))
        taken: dict[str, list[list[str]]] = {f"{index:#x}": [] for index in sorted(fixed)}
        for index, value, kept in trials:
            if kept is not None:
                taken[f"{index:#x}"].append([f"{value:#x}", f"{kept:#x}"])
        return {
            "registers": found["cpus"][0]["registers"],
            "writable": found["writable"],
            "hardware": found["hardware"],
            "taken": taken,
        }

    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip(entries, pool.map(asked, entries), strict=True))
    DATA.write_bytes(lzma.compress(json.dumps(before | answers).encode(), preset=9))
    for entry, answer in answers.items():
        for key in ("writable", "hardware", "taken"):
            assert answer[key] == before[entry][key], f"{entry}: {key}"
