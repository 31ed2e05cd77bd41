"""Which bits of each register QEMU keeps under TCG, measured; and registers that it does not list.

QEMU writes each register of an incoming list and reads it back; where a bit does not read back as
it came, the load ends. kept.json is written by `tools/record_kept.py`, which measures it on
every release of the rig. Knows releases and CPU models, and tells a model by the identification
registers of its list where nobody says its name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from armferry.facts.release import qemu_release

__all__ = ["KeptBits", "identification", "kept_bits"]

_ALL = (1 << 64) - 1
_IDENTIFICATION = frozenset(
    0x6030_0000_0013_C000 | crm << 3 | op2 for crm in range(1, 8) for op2 in range(8)
)


@dataclass(frozen=True, slots=True)
class KeptBits:
    """What one CPU model of one release does.

    `release` is the measured release that this is of, `cpu` the model. `kept` maps an index to the
    bits that read back as they were written: 0 for a register that never changes. `unlisted` maps
    an identification register that is in no list to the value that a guest reads.
    """

    release: str
    cpu: str
    kept: Mapping[int, int]
    unlisted: Mapping[int, int]


def kept_bits(qemu: str, cpu: str, registers: Mapping[int, int]) -> KeptBits | None:
    """What QEMU `qemu` does with the CPU model `cpu`, or the one that has the list `registers`.

    None where nobody measured the model. A release that was not measured is taken for the newest
    measured one before it. Raises UnknownQemuVersion.
    """
    models = _models(qemu)
    name = cpu.partition(",")[0]
    if name not in models:
        wanted = identification(registers)
        known = [one for one in models if models[one]["identification"] == wanted]
        if not known:
            return None
        name = known[0]
    return _kept_bits(_release(qemu), name)


def identification(registers: Mapping[int, int]) -> str:
    """Tells CPU models of a release apart: a digest of the identification registers of a list."""
    import hashlib  # here: a move under KVM does without

    values = sorted((index, registers[index]) for index in registers.keys() & _IDENTIFICATION)
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


@cache
def _kept_bits(release: str, cpu: str) -> KeptBits:
    document = _document()
    model = document["models"][release][cpu]
    kept = {int(index, 16): int(bits, 16) for index, bits in document["kept"].items()}
    kept |= {int(index, 16): int(bits, 16) for index, bits in model["kept"].items()}
    unlisted = {int(index, 16): int(value, 16) for index, value in model["unlisted"].items()}
    return KeptBits(release, cpu, kept, unlisted)


def _models(qemu: str) -> Mapping[str, Any]:
    models: Mapping[str, Any] = _document()["models"][_release(qemu)]
    return models


def _release(qemu: str) -> str:
    """The newest measured release that is not above `qemu`; else the oldest."""
    measured: list[str] = _document()["measured"]
    number = qemu_release(qemu)
    return [measured[0], *(one for one in measured if qemu_release(one) <= number)][-1]


@cache
def _document() -> Mapping[str, Any]:
    text = Path(__file__).with_name("kept.json").read_text(encoding="utf-8")
    document: Mapping[str, Any] = json.loads(text)
    return document
