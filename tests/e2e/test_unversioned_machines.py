"""Boards without versions: facts of QEMU's CPU code hold on them as on virt."""

from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.decide import Answer, Risk, judge
from armferry.ends import Move
from armferry.hosts.files.locked import FileWindow
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.qemu_install import InstalledQemu
from armferry.policy import aggregate
from armferry.rewriting.edits import edit_of
from armferry.stream import read_saved, rewrite_tail

pytestmark = [pytest.mark.qemu, pytest.mark.full]

OLD, POINT = "10.0.2", "10.0.13"


@pytest.mark.parametrize(
    ("machine", "cpu", "smp"), [("raspi3b", "cortex-a53", 4), ("ast2600-evb", "cortex-a7", 2)]
)
def test_register_of_a_wrong_encoding_is_dropped_on_every_board(
    machine: str,
    cpu: str,
    smp: int,
    qemu_release: Callable[[str], InstalledQemu],
    tmp_path: Path,
) -> None:
    spec = MachineSpec(machine=machine, cpu=cpu, smp=smp, memory=1024)
    saved = {}
    for release in (OLD, POINT):
        saved[release] = tmp_path / release
        with QemuProcess(qemu_release(release), spec, paused=True) as machine_of:
            machine_of.save(saved[release])
            machine_of.quit()
    here, there = (open_subject(str(saved[release])) for release in (OLD, POINT))
    verdict = judge(
        Move.between(here.end, there.end, qemu=POINT), aggregate(machine, there.accelerator)
    )
    assert (verdict.answer, verdict.risk) == (Answer.WORKS_WITH_POLICY, Risk.LOSSLESS)
    assert verdict.stock is not None
    assert not verdict.stock.loads
    sent = tmp_path / "sent"
    with FileWindow(saved[OLD]) as window:
        tail = rewrite_tail(read_saved(window), edit_of(verdict))
        assert tail is not None
        sent.write_bytes(window.read(0, tail.offset) + bytes(tail.data))
    for state, loads in ((saved[OLD], False), (sent, True)):
        with QemuProcess(qemu_release(POINT), spec, paused=True, incoming=True) as waiting:
            assert waiting.load(state).loaded is loads
