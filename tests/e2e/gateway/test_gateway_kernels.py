"""A live move between two real kernels under KVM, there and back, through the gateway.

Two lab hosts run at the same time, joined by virtio console ports; the gateway stands between
them, outside, on inherited sockets. The guest starts on 6.17, whose list and PSCI version 6.12
does not accept, and returns from there with three registers that 6.17 does not have.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from armferry.decide import Risk
from armferry.gateway import Dialer, Ending, Gateway, Judge, Limits, Listener, TransferReport
from armferry.gateway.address import FdAddress
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.lab.guest import GuestLog
from armferry.lab.host import HostSpec, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.matrix import record_all
from armferry.lab.nested import NestedQemu
from armferry.lab.releases import release_named
from armferry.policy import EMPTY, Policy, aggregate, from_options
from armferry.registers import Accelerator

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]

IN_HOST = Path(__file__).parents[1] / "in_host_live.py"
HOME, AWAY = "6.17", "6.12"
MACHINE = "virt-10.0"
TICKS = 3
LIMIT = 240.0


def spec(kernel: str) -> HostSpec:
    return HostSpec(KernelStore().get(kernel), release_named("trixie"))


class End:
    """One host, with a wire for the way there and one for the way back."""

    def __init__(self, kernel: str, stack: contextlib.ExitStack, guest: Path) -> None:
        self.outer: dict[str, socket.socket] = {}
        inner: dict[str, socket.socket] = {}
        for name in ("there", "back"):
            self.outer[name], inner[name] = socket.socketpair()
            stack.enter_context(inner[name])
        self._host = stack.enter_context(LabHost(spec(kernel), wires=inner))
        self._host.put("/guest/kernel", guest.read_bytes())
        self._host.put("/guest/in_host.py", IN_HOST.read_bytes())

    def do(self, *words: str) -> dict[str, Any]:
        """What the host answers."""
        done = self._host.run(["python3", "/guest/in_host.py", *words], time_limit=LIMIT)
        assert done.exit_code == 0, done.stderr.decode()
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def serial(self) -> bytes:
        """All that the guest has written on this host."""
        return self._host.get("/tmp/serial")


@contextlib.contextmanager
def carrying(
    source: End, destination: End, name: str, judge: Judge
) -> Iterator[list[TransferReport]]:
    """A gateway on the wire `name` of both; the outcome is there when the block has ended."""
    outcomes: list[TransferReport] = []
    listener = Listener(FdAddress(source.outer[name].detach()))
    dialer = Dialer(FdAddress(destination.outer[name].detach()))
    gateway = Gateway(listener, dialer, judge, limits=Limits(stall=LIMIT))
    thread = threading.Thread(target=lambda: outcomes.extend(gateway.run()), daemon=True)
    thread.start()
    yield outcomes
    # a wire has no end of file, so the gateway cannot know that nothing follows the last word
    gateway.abort("the wire is taken away")
    thread.join(20)
    listener.close()
    assert not thread.is_alive()


def test_live_between_two_kernels_and_back(guest_kernel: Path) -> None:
    fingerprints: dict[str, Fingerprint] = {
        kernel: recording.destination().fingerprint
        for kernel, recording in zip(
            (HOME, AWAY),
            record_all([(spec(one), NestedQemu(MACHINE)) for one in (HOME, AWAY)], lambda *_: None),
            strict=True,
        )
    }

    def judge(kernel: str, policy: Policy = EMPTY) -> Judge:
        def policy_for(machine: str, accelerator: Accelerator) -> Policy:
            return aggregate(machine, accelerator, command_line=policy)

        return Judge(end_of(fingerprints[kernel]), policy_for)

    older = from_options(psci_versions=("1.1",))
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        home, away = (End(kernel, stack, guest_kernel) for kernel in (HOME, AWAY))
        home.do("start", "1", "runs")
        home.do("ticks", "1", str(TICKS))
        away.do("start", "2", "waits")

        def cross(source: End, sender: str, target: End, receiver: str, name: str, j: Judge) -> Any:
            with carrying(source, target, name, j) as outcomes:
                receiving = pool.submit(target.do, "receive", receiver, "plain", name)
                sent = source.do("send", sender, "plain", name)
                received = receiving.result()
            assert sent["state"]["status"] == "completed", (sent, received)
            assert received["state"]["status"] == "completed", received
            assert received["run"]["status"] == "running"
            assert target.do("ticks", receiver, str(TICKS))["ticks"] >= TICKS
            (outcome,) = outcomes
            assert outcome.ending is Ending.COMPLETED
            assert outcome.judgement is not None
            return outcome.judgement.verdict

        there = cross(home, "1", away, "2", "there", judge(AWAY, older))
        assert there.risk is Risk.GUEST_VISIBLE
        seen = home.serial() + away.serial()
        log = GuestLog.parse(seen)
        assert log.faults() == ()
        assert (log.ticks[0].psci, log.ticks[-1].psci) == ("1.3", "1.1")

        home.do("start", "3", "waits")
        first = home.serial()
        back = cross(away, "2", home, "3", "back", judge(HOME))
        assert back.risk is Risk.LOSSLESS
        whole = first + away.serial() + home.serial()[len(first) :]
        end = GuestLog.parse(whole)
        assert end.faults() == ()
        assert end.last >= log.last + TICKS
        assert end.ticks[-1].psci == "1.1", "once told, the guest keeps it"
