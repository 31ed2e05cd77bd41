"""The properties under KVM of real kernels, kvm-psci-version on a QEMU that lacks it among them."""

import json
from pathlib import Path
from typing import Any

import pytest

from armferry.hosts.fingerprints.saved_subject import read_state
from armferry.lab.guest import GuestLog
from armferry.lab.host import HostSpec, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.releases import release_named

pytestmark = [pytest.mark.kernel, pytest.mark.full]

IN_HOST = Path(__file__).with_name("in_host_wrapped.py")
PSCI, BITMAP_2 = 0x6030000000140000, 0x6030000000160003
PINNED = "host,kvm-psci-version=1.1"


class Stay:
    """One host that a guest stays on for a while."""

    def __init__(
        self, host: LabHost, guest: Path, folder: Path, machine: str = "virt-10.0"
    ) -> None:
        self._host = host
        self._folder = folder
        self._machine = machine
        host.put("/guest/kernel.elf", guest.read_bytes())
        host.put("/guest/in_host.py", IN_HOST.read_bytes())

    def run(
        self, cpu: str, came: bytes, serial: bytes, *words: str, lines: int = 12
    ) -> dict[str, Any]:
        """What the host says after the guest ran on it."""
        self._host.put("/tmp/serial", serial)
        source = "-"
        if came:
            self._host.put("/tmp/came", came)
            source = "/tmp/came"
        command = ["python3", "/guest/in_host.py", source, str(lines), self._machine]
        command += ["-cpu", cpu, *words]
        done = self._host.run(command, time_limit=2000)
        assert done.exit_code == 0, done.stderr.decode()
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def state(self) -> tuple[bytes, dict[int, int]]:
        """The saved guest and its register list."""
        content = self._host.get("/tmp/state")
        path = self._folder / "state"
        path.write_bytes(content)
        return content, dict(read_state(path).cpus[0].registers)

    def serial(self) -> bytes:
        """What the guest has written so far."""
        return self._host.get("/tmp/serial")


def _log(serial: bytes, folder: Path) -> GuestLog:
    path = folder / "serial"
    path.write_bytes(serial)
    return GuestLog.read(path)


def _host(kernel: str, suite: str = "trixie") -> LabHost:
    return LabHost(HostSpec(KernelStore().get(kernel), release_named(suite)))


def test_pinned_guest_starts_on_a_new_kernel_and_moves_to_an_old_one_and_back(
    guest_kernel: Path, tmp_path: Path
) -> None:
    with _host("6.17") as host:
        here = Stay(host, guest_kernel, tmp_path)
        said = here.run(PINNED, b"", b"")
        assert said.get("exit") == 0, said
        assert said["status"]["status"] == "running"
        state, registers = here.state()
        serial = here.serial()
    assert registers[PSCI] == 0x10001
    assert b" psci 1.1 " in serial
    assert b" psci 1.3 " not in serial
    assert BITMAP_2 not in registers, "virt-10.0 hides it, so it never leaves"
    log = _log(serial, tmp_path)
    assert log.faults() == ()

    with _host("6.12") as host:
        there = Stay(host, guest_kernel, tmp_path)
        said = there.run("host", state, serial)
        assert said.get("exit") == 0, said
        state, registers = there.state()
        serial = there.serial()
    assert registers[PSCI] == 0x10001

    with _host("6.17") as host:
        back = Stay(host, guest_kernel, tmp_path)
        said = back.run(PINNED, state, serial)
        assert said.get("exit") == 0, said
        _, registers = back.state()
        serial = back.serial()
    assert registers[PSCI] == 0x10001
    assert b" psci 1.3 " not in serial
    end = _log(serial, tmp_path)
    assert end.faults() == ()
    assert end.last > log.last


GONE = (0x603000000013C103, 0x603000000013C512, 0x603000000013C513)  # TCR2_EL1, PIRE0_EL1, PIR_EL1
OSLSR = 0x603000000013808C
MISSION = (
    "-global",
    "arm-cpu.x-mig-safe-missing-regs=0x603000000013c103,,0x603000000013c512,,0x603000000013c513",
    "-global",
    f"arm-cpu.x-mig-hidden-regs={OSLSR:#x}",
)


@pytest.mark.parametrize(
    ("suite", "machine"),
    [
        pytest.param("bookworm", "virt-7.2", marks=pytest.mark.full),
        pytest.param("trixie", "virt-10.0", marks=pytest.mark.full),
        # its level says nothing of these registers: the command line does, and 11.1 by itself
        ("trixie-backports", "virt-10.2"),
    ],
)
def test_command_lines_of_the_mission(
    suite: str, machine: str, guest_kernel: Path, tmp_path: Path
) -> None:
    """`-cpu` and two `-global`, with what the machine's level lists, on a guest that moves."""
    with _host("6.12", suite) as host:
        here = Stay(host, guest_kernel, tmp_path, machine)
        said = here.run("host", b"", b"")
        assert said.get("exit") == 0, said
        state, registers = here.state()
        serial = here.serial()
    assert set(GONE) <= set(registers)
    before = _log(serial, tmp_path)

    with _host("6.17", suite) as host:
        there = Stay(host, guest_kernel, tmp_path, machine)
        said = there.run(f"host,x-mig-hidden-regs={BITMAP_2:#x}", state, serial, *MISSION)
        assert said.get("exit") == 0, said
        _, registers = there.state()
        serial = there.serial()
        if machine == "virt-10.2":  # QEMU 11.1 loads them by itself while they are at reset
            there = Stay(host, guest_kernel, tmp_path, machine)
            said = there.run("host", state, b"")
            assert said.get("exit") == 0, said
            assert set(there.state()[1]).isdisjoint(GONE)
    after = _log(serial, tmp_path)
    assert after.faults() == ()
    assert after.last > before.last
    assert set(registers).isdisjoint((*GONE, BITMAP_2, OSLSR))


def test_what_the_kernel_cannot_give_is_named_before_qemu_starts(
    guest_kernel: Path, tmp_path: Path
) -> None:
    with _host("6.12") as old:
        said = Stay(old, guest_kernel, tmp_path).run("host,kvm-psci-version=1.3", b"", b"")
        assert said == {
            "failed": "ticks",
            "status": 3,
            "stderr": (
                "qemu-system-aarch64: kvm-psci-version=1.3: this host's kernel offers PSCI 1.1 "
                "at most\n"
            ),
        }
        said = Stay(old, guest_kernel, tmp_path).run(
            "host,x-armferry-as=atlas:7.3/neoverse-n1", b"", b""
        )
        assert said["status"] == 3
        first, *refused = said["stderr"].splitlines()
        assert first == (
            "qemu-system-aarch64: x-armferry-as=atlas:7.3/neoverse-n1: this host's kernel, Linux "
            f"{old.release}, cannot present that host:"
        )
        (psci,) = refused
        assert psci.startswith("  PSCI_VERSION (0x6030000000140000): 0x10001 cannot become 0x10003")
