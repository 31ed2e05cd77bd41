"""What a host tells of itself, from the files of a kernel and of libvirt."""

import json
import os
from pathlib import Path

import pytest

from armferry.cli.main import main
from armferry.hosts.libvirt.collect import collect_report
from armferry.hosts.libvirt.state_folder import other_hosts
from armferry.hosts.report import CAME, HERE, read_report

from ..fleet.hosts_of_atlas import KIND
from ..fleet.test_importing import write_state

STATUS = """<domstatus state='running' pid='{pid}'>
 <domain type='kvm' id='1'>
  <name>{name}</name><uuid>{uuid}</uuid>
  <memory unit='KiB'>4194304</memory><currentMemory unit='KiB'>1</currentMemory>
  <os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>
  <cpu mode='host-passthrough'/>
  <devices><emulator>/usr/bin/qemu-system-aarch64</emulator></devices>
 </domain>
</domstatus>"""
UUID = "3f1c0d9e-8f0b-4a56-9f0e-0a1b2c3d4e5f"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine's files: two guests, one of which came, and what is not to be reported."""
    running = tmp_path / "run/libvirt/qemu"
    running.mkdir(parents=True)
    (running / "born.xml").write_text(STATUS.format(pid=11, name="born", uuid=UUID))
    (running / "came.xml").write_text(STATUS.format(pid=12, name="came", uuid=""))
    x86 = STATUS.format(pid=13, name="x", uuid="").replace("aarch64' m", "x86_64' m")
    (running / "x86.xml").write_text(x86)
    (running / "cut.xml").write_text("<domstatus><dom")
    (running / "entities.xml").write_text("<!DOCTYPE a [<!ENTITY b 'c'>]><domstatus/>")
    for pid, words in ((11, "qemu\0-m\0"), (12, "qemu\0-incoming\0defer\0")):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/cmdline").write_text(words)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       65536 kB\nMemFree: 1 kB\n")
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("b-1\n")
    core = tmp_path / "sys/devices/system/cpu/cpu0/regs/identification"
    core.mkdir(parents=True)
    (core / "midr_el1").write_text("0x00000000413fd0c1\n")
    return tmp_path


def test_what_is_collected(root: Path, tmp_path: Path) -> None:
    write_state(tmp_path / "state/host", "h1", "6.12")
    found = collect_report(tmp_path / "state", site="north", failure_domain="rack 7", root=root)
    assert (found.head.host, found.head.boot) == (os.uname().nodename, "b-1")
    assert (found.kernel, found.memory, found.cpu) == (
        os.uname().release,
        64 << 20,
        "Arm Neoverse N1 r3p1",
    )
    assert (found.site, found.failure_domain, found.qemus) == ("north", "rack 7", ("10.0.13",))
    assert [kind.guest for kind in found.kinds] == [KIND]
    born, came = found.guests
    assert (born.id, born.name, born.kind, born.memory) == (UUID, "born", KIND, 4 << 30)
    assert (born.birth, came.birth, came.id) == (HERE, CAME, "came")


def test_the_command_writes_beside_the_fingerprints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_state(tmp_path / "host", "h1", "6.12")
    assert main(["host", "report", "--state", str(tmp_path)]) == 0
    place = tmp_path / "host/report.json"
    assert capsys.readouterr().out.startswith(f"wrote {place}: kinds of guests 1, guests ")
    read_report(json.loads(place.read_text()), "it")
    # the folder, copied to another host, is as readable there as before
    (tmp_path / "hosts").mkdir()
    (tmp_path / "host").rename(tmp_path / "hosts/h1")
    others = other_hosts(tmp_path)
    assert (len(others.guests["h1"]), others.unreadable) == (1, {})


def test_to_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["host", "report", "--state", str(tmp_path), "-o", "-"]) == 0
    assert read_report(json.loads(capsys.readouterr().out), "it").kinds == ()
