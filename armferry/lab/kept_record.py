"""Measures which bits of each register a QEMU under TCG keeps, and what it lists no register for.

QEMU writes every register of an incoming list and reads it back; one that does not read back as it
came ends the load without a name. Here a paused machine is saved as a snapshot in an empty qcow2
image, the snapshot's values are overwritten in the file, and `loadvm` loads them: it says whether
the load was taken, and the machine goes on either way, so that a second snapshot shows what each
register made of its value. A fraction of a second a machine.

Identification registers that are in no list are read by a few instructions (MRS) and taken out of
the guest's memory.

qcow2: docs/interop/qcow2 of QEMU. Encodings of MRS, STR, MOVZ, WFI, B: Arm DDI 0487.
"""

import os
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from armferry.errors import EnvironmentFault
from armferry.hosts.qmp.process import Launchable, MachineSpec, QemuProcess
from armferry.stream import CPU_SECTION

__all__ = ["KeptRecord", "RecordFault", "record_kept"]

_ALL = (1 << 64) - 1
_CLUSTER = 1 << 16
_VIRTUAL = 1 << 20
_LONGEST = 4096
"""Bytes of the cpu section before its register list, at most."""
_PMCR = (0x6030_0000_0013_DCE0, 0x4020_0000_200F_4E00)
"""PMCR_EL0 and PMCR: their field N must not shrink, which aborts QEMU 5.2 (measured)."""
_PROGRAM, _RESULT = 0x4020_0000, 0x4010_0000
"""Guest addresses: memory of virt begins at 0x40000000, with the device tree."""
_READ_LIMIT = 60.0


class RecordFault(EnvironmentFault):
    """A QEMU did not do what measuring it needs."""


@dataclass(frozen=True, slots=True)
class KeptRecord:
    """What one machine of one QEMU was measured to do.

    `registers` is its list after reset, `kept` maps each index to the bits that read back as they
    were written, `unlisted` an identification register that is in no list to what it reads as.
    """

    registers: Mapping[int, int]
    kept: Mapping[int, int]
    unlisted: Mapping[int, int]


def record_kept(
    qemu: Launchable,
    spec: MachineSpec,
    tried: dict[tuple[int, int], int],
    *,
    time_limit: float = 300.0,
) -> KeptRecord:
    """Measures one machine. Raises QemuProcessError, RecordFault.

    `tried` holds what single registers of this QEMU were found to keep, by index and by the bits
    that seemed to stay; it is added to.
    """
    with tempfile.TemporaryDirectory(prefix="armferry-kept-") as folder:
        with _Snapshots(qemu, spec, Path(folder, "vm.qcow2"), time_limit) as snapshots:
            registers = dict(zip(snapshots.indexes, snapshots.base, strict=True))
            kept = _kept(snapshots, tried)
        read = _read_identification(qemu, spec, Path(folder), time_limit)
    unlisted = {index: value for index, value in read.items() if index not in registers and value}
    return KeptRecord(registers, kept, unlisted)


def _kept(snapshots: "_Snapshots", tried: dict[tuple[int, int], int]) -> dict[int, int]:
    indexes, base = snapshots.indexes, snapshots.base
    zeros = snapshots.after(
        [own if index in _PMCR else 0 for index, own in zip(indexes, base, strict=True)]
    )
    ones = snapshots.after([_ALL] * len(indexes))
    kept = [_ALL if high == _ALL else low ^ high for low, high in zip(zeros, ones, strict=True)]
    for at, index in enumerate(indexes):
        # what was computed anew after the load reads otherwise, and was kept all the same
        seen = index, kept[at]
        if kept[at] not in (0, _ALL) and index not in _PMCR and seen not in tried:
            stays = snapshots.loads(_flipped(base, at, ~kept[at]))
            tried[seen] = _ALL if stays else kept[at]
        kept[at] = tried.get(seen, kept[at])
    if not snapshots.loads(_inverted(indexes, base, kept)):
        _narrow(snapshots, kept)
        if not snapshots.loads(_inverted(indexes, base, kept)):
            raise RecordFault(
                "a load of kept bits alone was refused: some registers' bits depend on each other"
            )
    return dict(zip(indexes, kept, strict=True))


def _narrow(snapshots: "_Snapshots", kept: list[int]) -> None:
    """Takes the bits out of `kept` that are refused all the same.

    A register that writes another one's place may read back otherwise than it is saved.
    """
    base = snapshots.base
    for at, index in enumerate(snapshots.indexes):
        if index in _PMCR or not kept[at] or snapshots.loads(_flipped(base, at, kept[at])):
            continue
        bits = (1 << bit for bit in range(64))
        kept[at] = sum(bit for bit in bits if snapshots.loads(_flipped(base, at, bit)))


def _inverted(indexes: Sequence[int], base: Sequence[int], kept: Sequence[int]) -> list[int]:
    """The values of `base` with every kept bit inverted."""
    return [
        own if index in _PMCR else own ^ mask
        for index, own, mask in zip(indexes, base, kept, strict=True)
    ]


def _flipped(base: Sequence[int], at: int, bits: int) -> list[int]:
    """The values of `base` with `bits` of one of them inverted."""
    values = list(base)
    values[at] ^= bits & _ALL
    return values


class _Snapshots:
    """A paused machine with a snapshot whose register values can be replaced."""

    def __init__(self, qemu: Launchable, spec: MachineSpec, image: Path, time_limit: float) -> None:
        _write_empty_image(image)
        drive = f"if=none,id=armferry,format=qcow2,file.locking=off,file={image}"
        words = replace(spec, extra=(*spec.extra, "-drive", drive))
        self._image = image
        self._process = QemuProcess(qemu, words, paused=True, time_limit=time_limit)
        self._say("savevm base")
        ((self._place, self.indexes),) = _lists(image.read_bytes())
        self.base = self._values(self._place)

    def __enter__(self) -> "_Snapshots":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()

    def loads(self, values: Sequence[int]) -> bool:
        """Whether a load of `values` is taken."""
        taken = self._load(values)
        if not taken:
            # 11.1 aborts at the next load unless a save came between (measured)
            self._say("savevm after")
            self._say("delvm after")
        return taken

    def after(self, values: Sequence[int]) -> tuple[int, ...]:
        """What the registers hold after a load of `values`, taken or not."""
        self._load(values)
        self._say("savevm after")
        places = [place for place, _ in _lists(self._image.read_bytes()) if place != self._place]
        held = self._values(places[-1])
        self._say("delvm after")
        return held

    def _load(self, values: Sequence[int]) -> bool:
        with self._image.open("r+b") as file:
            os.pwrite(file.fileno(), struct.pack(f">{len(values)}Q", *values), self._place)
        command = {"command-line": "loadvm base"}
        answer: str = self._process.execute("human-monitor-command", command)
        return not answer.strip()

    def _values(self, place: int) -> tuple[int, ...]:
        with self._image.open("rb") as file:
            content = os.pread(file.fileno(), 8 * len(self.indexes), place)
        return struct.unpack(f">{len(self.indexes)}Q", content)

    def _say(self, command: str) -> None:
        answer = self._process.execute("human-monitor-command", {"command-line": command})
        if answer.strip():
            raise RecordFault(f"QEMU's answer to {command}: {answer.strip()}")


def _write_empty_image(path: Path) -> None:
    """A qcow2 image of 1 MiB with nothing in it: header, refcount table and block, L1 table."""
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, _CLUSTER.bit_length() - 1, _VIRTUAL, 0, 1, 3 * _CLUSTER),
        *(_CLUSTER, 1, 0, 0, 0, 0, 0, 4, 104),
    )
    table = struct.pack(">Q", 2 * _CLUSTER)
    block = struct.pack(">4H", 1, 1, 1, 1)
    parts = (header, table, block, b"")
    path.write_bytes(b"".join(part.ljust(_CLUSTER, b"\0") for part in parts))


def _lists(image: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each register list in an image: the offset of its values, and its indexes."""
    name = bytes([len(CPU_SECTION)]) + CPU_SECTION.encode()
    at = image.find(name)
    while at != -1:
        begin = at + len(name) + 8  # instance and version
        for place in range(begin, begin + _LONGEST):
            (length,) = struct.unpack_from(">I", image, place)
            if not 16 <= length < 4096 or place + 4 + 16 * length > len(image):
                continue
            indexes = struct.unpack_from(f">{length}Q", image, place + 4)
            if indexes[0] >> 60 in (4, 6) and all(map(int.__lt__, indexes, indexes[1:])):
                yield place + 4 + 8 * length, indexes
                break
        at = image.find(name, at + 1)


def _read_identification(
    qemu: Launchable, spec: MachineSpec, folder: Path, time_limit: float
) -> dict[int, int]:
    """Every register of the identification space (op0 3, op1 0, CRn 0, CRm 1 to 7), by MRS."""
    encodings = [(crm, op2) for crm in range(1, 8) for op2 in range(8)]
    words = [_movz_high(1, _RESULT >> 16)]
    for crm, op2 in encodings:
        words += [0xD538_0000 | crm << 8 | op2 << 5, _STR_X0_X1]
    words += [0xD280_0020, _STR_X0_X1, 0xD503_207F, 0x17FF_FFFF]  # store 1; wait for ever
    program, memory = folder / "program", folder / "memory"
    program.write_bytes(struct.pack(f"<{len(words)}I", *words))
    loader = f"loader,file={program},addr={_PROGRAM:#x},cpu-num=0,force-raw=on"
    length = 8 * (len(encodings) + 1)
    with QemuProcess(
        qemu, replace(spec, extra=(*spec.extra, "-device", loader)), time_limit=time_limit
    ) as process:
        deadline = time.monotonic() + _READ_LIMIT
        while time.monotonic() < deadline:
            process.execute("pmemsave", {"val": _RESULT, "size": length, "filename": str(memory)})
            values = struct.unpack(f"<{len(encodings) + 1}Q", memory.read_bytes())
            if values[-1] == 1:
                return {
                    0x6030_0000_0013_C000 | crm << 3 | op2: value
                    for (crm, op2), value in zip(encodings, values[:-1], strict=True)
                }
            time.sleep(0.02)
    raise RecordFault(f"the program that reads registers did not end in {_READ_LIMIT:g} s")


_STR_X0_X1 = 0xF800_8420  # str x0, [x1], #8


def _movz_high(register: int, value: int) -> int:
    """MOVZ of 16 bits, shifted left by 16."""
    return 0xD2A0_0000 | value << 5 | register
