"""A guest that ran with long vectors, and a QEMU that has shorter ones: QEMU does not mind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.decide import Answer, Risk, judge
from armferry.ends import Move
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.hosts.fingerprints.probe import fingerprint_of_qemu
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.qemu_install import InstalledQemu
from armferry.policy import EMPTY, from_options

from .gateway.conftest import log_at

pytestmark = [pytest.mark.qemu, pytest.mark.full]

RELEASE = "10.0.13"


@pytest.mark.parametrize(
    ("shorter", "what", "accepted_by"),
    [("sve-max-vq=2", "SVE", "SVE_VLS"), ("sme256=on,sme512=off", "SME", "SMCR_EL1")],
)
def test_shorter_vectors_are_said_though_qemu_loads(
    shorter: str,
    what: str,
    accepted_by: str,
    qemu_release: Callable[[str], InstalledQemu],
    guest_kernel: Path,
    tmp_path: Path,
) -> None:
    qemu = qemu_release(RELEASE)
    long, short = (
        MachineSpec(machine="virt-10.0", cpu=cpu, kernel=guest_kernel)
        for cpu in ("max", f"max,{shorter}")
    )
    here, there = (end_of(fingerprint_of_qemu(qemu.launcher, one)) for one in (long, short))
    serial, state = tmp_path / "serial", tmp_path / "state"
    with QemuProcess(qemu, long, serial=serial) as running:
        log_at(serial, 2)
        running.save(state)
        running.quit()
    move = Move.between(open_subject(str(state)).end, there, host=here, qemu=RELEASE)
    said = judge(move, EMPTY)
    assert (said.answer, said.risk) == (Answer.FAILS, Risk.GUEST_VISIBLE)
    (obstacle,) = said.obstacles
    assert obstacle.startswith(f"the destination's {what} vectors have ")
    assert f"--accept-risk {accepted_by} or guest-visible" in obstacle
    allowed = judge(move, from_options(accept_risk=[accepted_by]))
    assert (allowed.answer, allowed.risk) == (Answer.WORKS_WITH_POLICY, Risk.GUEST_VISIBLE)
    assert said.stock is not None
    with QemuProcess(qemu, short, serial=serial, incoming=True) as waiting:
        assert waiting.load(state).loaded is said.stock.loads is True
