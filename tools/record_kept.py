"""Measures every release of the rig anew and writes armferry/facts/kept.json.

    .venv/bin/python tools/record_kept.py

A second for each of some 90 machines. A register whose bits are not the same in all releases
and models is written under those that differ from the most.
"""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from armferry.facts.kept import identification
from armferry.hosts.qmp.process import MachineSpec, QemuProcessError
from armferry.lab.kept_record import KeptRecord, record_kept
from armferry.lab.qemu_install import install
from armferry.lab.releases import RELEASES

_MODELS = (
    *("cortex-a35", "cortex-a53", "cortex-a55", "cortex-a57", "cortex-a72", "cortex-a76"),
    *("cortex-a710", "a64fx", "neoverse-n1", "neoverse-n2", "neoverse-v1", "max"),
)
# What differs between these machines is the presence of registers, and which place of the two
# that a register has with EL3 is written; the plainer machine, last, decides.
_MACHINES = ("virt,virtualization=on,gic-version=3", "virt,gic-version=3")
_DOCUMENT = Path(__file__).parents[1] / "armferry" / "facts" / "kept.json"

Records = dict[tuple[str, str], KeptRecord]


def measure() -> Records:
    """(release, model) -> what was measured, the machines united."""
    records: Records = {}
    for release in RELEASES:
        qemu = install(release)
        tried: dict[tuple[int, int], int] = {}
        for model in _MODELS:
            for machine in _MACHINES:
                try:
                    one = record_kept(qemu, MachineSpec(machine=machine, cpu=model), tried)
                except QemuProcessError as fault:
                    if "unable to find CPU model" not in str(fault):
                        raise
                    continue
                before = records.get((qemu.version, model))
                kept = {**(before.kept if before else {}), **one.kept}
                records[qemu.version, model] = KeptRecord(one.registers, kept, one.unlisted)
                print(f"{qemu.version} {model} {machine}: {len(one.kept)} registers", flush=True)
    return records


def document(records: Records) -> dict[str, Any]:
    """The content of kept.json."""
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for record in records.values():
        for index, bits in record.kept.items():
            counts[index][bits] += 1
    common = {index: counts[index].most_common(1)[0][0] for index in sorted(counts)}
    models: dict[str, dict[str, Any]] = {}
    for (release, model), record in records.items():
        models.setdefault(release, {})[model] = {
            "identification": identification(record.registers),
            "kept": {
                f"{index:#x}": f"{bits:#x}"
                for index, bits in sorted(record.kept.items())
                if bits != common[index]
            },
            "unlisted": {
                f"{index:#x}": f"{value:#x}" for index, value in sorted(record.unlisted.items())
            },
        }
    return {
        "measured": list(models),
        "source": "each value loaded and read back: tools/record_kept.py",
        "kept": {f"{index:#x}": f"{bits:#x}" for index, bits in common.items()},
        "models": models,
    }


if __name__ == "__main__":
    written = json.dumps(document(measure()), indent=1)
    _DOCUMENT.write_text(f"{written}\n", encoding="utf-8")
    sys.exit(0)
