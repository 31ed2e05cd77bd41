"""A value that QEMU does not keep: each release refuses it as predicted, and loads it ferried."""

from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.decide import judge
from armferry.ends import Move
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.qemu_install import InstalledQemu
from armferry.policy import aggregate
from armferry.registers import parse_register
from armferry.rewriting.edits import edit_of
from armferry.stream import CpuEdit, StateEdit, rewrite_tail

pytestmark = pytest.mark.qemu

COUNTER = parse_register("PMEVCNTR0_EL0")
OVERFLOWN = 0x1_8000_0005


def rewritten(path: Path, edit: StateEdit, name: str) -> Path:
    saved = open_subject(str(path)).saved
    assert saved is not None
    tail = rewrite_tail(saved, edit)
    assert tail is not None
    new = path.with_name(name)
    new.write_bytes(path.read_bytes()[: tail.offset] + tail.data)
    return new


@pytest.mark.parametrize("release", ["5.2.0", "7.2.22", "10.0.2", "10.0.13", "11.1.3"])
def test_a_counter_past_32_bits_on_the_release_that_saved_it(
    release: str, qemu_release: Callable[[str], InstalledQemu], tmp_path: Path
) -> None:
    qemu, spec = qemu_release(release), MachineSpec(machine="virt")
    plain = tmp_path / "plain"
    with QemuProcess(qemu, spec, paused=True, time_limit=300.0) as machine:
        machine.save(plain)
    host = open_subject(str(plain))
    wanted = CpuEdit({**host.lists[0], COUNTER: OVERFLOWN})
    counted = rewritten(plain, StateEdit([wanted]), "counted")
    guest = open_subject(str(counted))
    verdict = judge(
        Move.between(guest.end, host.end, qemu=qemu.version),
        aggregate(guest.machine, guest.accelerator),
    )
    stock = verdict.stock
    assert stock is not None
    assert stock.loads is (release == "5.2.0")  # which kept all 64 bits
    assert stock.culprits == (() if stock.loads else (COUNTER,))
    with QemuProcess(qemu, spec, paused=True, incoming=True, time_limit=300.0) as machine:
        assert machine.load(counted).loaded is stock.loads
    if stock.loads:
        return
    assert verdict.lists[0][COUNTER] == OVERFLOWN & 0xFFFF_FFFF
    ferried = rewritten(counted, edit_of(verdict), "ferried")
    with QemuProcess(qemu, spec, paused=True, incoming=True, time_limit=300.0) as machine:
        assert machine.load(ferried).loaded
