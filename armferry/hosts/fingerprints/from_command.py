"""Fingerprints from a guest's own command line: with its memory, its vCPUs and its devices.

The command line is made fit for a question first (`guest_command`), so that nothing of the host is
opened or taken; what it starts is paused, saved, read and ended.
"""

import contextlib
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from armferry.errors import ArmferryError
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.fingerprints.fingerprint import Fingerprint, Provenance, Scope
from armferry.hosts.fingerprints.from_kvm import host_record
from armferry.hosts.fingerprints.from_stream import fingerprint_of_stream
from armferry.hosts.fingerprints.host_record import HostRecord
from armferry.hosts.fingerprints.kvm import ask
from armferry.hosts.qmp.guest_command import question_of
from armferry.hosts.qmp.process import MachineSpec, QemuProcess, QemuProcessError
from armferry.registers import Accelerator
from armferry.stream import read_saved
from armferry.stream.events import RamBlock

__all__ = ["CommandFingerprint", "fingerprint_of_command", "listed_blocks", "vectors_of"]

Execute = Callable[..., Any]

_LENGTHS = tuple(128 * n for n in range(1, 17))
_BLOCK = re.compile(
    r"^\s*(?P<name>\S.*?)\s+\d+ [KMG]?i?B\s+0x[0-9a-f]+\s+0x(?P<used>[0-9a-f]+)\s+0x[0-9a-f]+"
)
"""A line of the monitor's `info ramblock`: name, page size, offset, used and greatest length."""


@dataclass(frozen=True, slots=True)
class CommandFingerprint:
    """What was found, and the devices that the question had to do without."""

    fingerprint: Fingerprint
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Question(MachineSpec):
    """A whole command line in the place of a machine's description."""

    words: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """The words, and nothing shown."""
        return [*self.words, "-display", "none"]


def fingerprint_of_command(
    program: Path, words: Sequence[str], *, time_limit: float = 60.0
) -> CommandFingerprint:
    """What `program` would accept with a guest's own `words`.

    Raises QemuProcessError (with QEMU's own words), KvmFault or StreamError.
    """
    command = question_of(tuple(words))
    question = _Question(words=command.words)
    with tempfile.TemporaryDirectory(prefix="armferry-probe-") as folder:
        path = Path(folder) / "state"
        with QemuProcess(program, question, paused=True, time_limit=time_limit) as machine:
            about = machine.execute("query-version")
            kvm = bool(machine.execute("query-kvm")["enabled"])
            vectors = vectors_of(machine.execute, QemuProcessError)
            machine.save(path)
            machine.quit()
        with FileWindow(path) as window:
            saved = read_saved(window)
    host = ask() if kvm else None
    record = HostRecord() if host is None else host_record(host)
    numbers = about["qemu"]
    found = replace(
        fingerprint_of_stream(saved),
        provenance=Provenance(
            how="probe",
            machine=saved.machine,
            cpu=command.value_of("cpu"),
            accelerator=Accelerator.KVM if kvm else Accelerator.TCG,
            qemu=f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}",
            package=about["package"].strip(" ()"),
            kernel=os.uname().release if kvm else "",
            hardware=platform.machine(),
            scope=Scope.GUEST,
        ),
        at_reset=True,
        writable=None if host is None else host.writable,
        host=replace(record, sve_bits=vectors) if vectors is not None else record,
    )
    return CommandFingerprint(found, command.left_out)


def vectors_of(execute: Execute, refused: type[Exception]) -> tuple[int, ...] | None:
    """The SVE vector lengths in bits that the first vCPU has; None where QEMU does not say.

    Properties `sve128` to `sve2048` of the CPU (docs/system/arm/cpu-features.rst of QEMU); empty
    where it has them and no SVE. `refused` is what `execute` raises when QEMU says no.
    """
    with contextlib.suppress(refused, KeyError, IndexError):
        path = execute("query-cpus-fast")[0]["qom-path"]
        names = {one["name"] for one in execute("qom-list", {"path": path})}
        if "sve" not in names:
            return ()
        wanted = [bits for bits in _LENGTHS if f"sve{bits}" in names]
        lengths = tuple(
            bits for bits in wanted if execute("qom-get", {"path": path, "property": f"sve{bits}"})
        )
        return lengths if execute("qom-get", {"path": path, "property": "sve"}) else ()
    return None


def listed_blocks(text: str, known: Iterable[RamBlock]) -> tuple[RamBlock, ...]:
    """`known` blocks with the lengths that a running QEMU's `info ramblock` (`text`) gives them."""
    used = {
        found["name"]: int(found["used"], 16)
        for line in text.splitlines()
        if (found := _BLOCK.match(line)) is not None
    }
    if not used:
        raise ArmferryError("the running QEMU does not list its memory blocks")
    return tuple(replace(block, length=used.get(block.name, block.length)) for block in known)
