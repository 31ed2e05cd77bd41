"""A guest's own command line, asked for its fingerprint without touching anything of the host."""

import json
import os
import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armferry.cli.main import main
from armferry.errors import ArmferryError
from armferry.hosts.fingerprints.fingerprint import Scope, parse
from armferry.hosts.fingerprints.from_command import fingerprint_of_command
from armferry.hosts.libvirt.native import domain_command
from armferry.hosts.qmp.around import around
from armferry.hosts.qmp.command_of import running_command
from armferry.hosts.qmp.guest_command import question_of
from armferry.hosts.qmp.process import MachineSpec, QemuProcess, RefusedByQemu
from armferry.lab.libvirt_host import Domain
from armferry.lab.qemu_install import InstalledQemu
from armferry.registers import Accelerator
from armferry.stream.events import RamBlock

Named = Callable[[str], InstalledQemu]

NULL = "-drive driver=null-co,read-zeroes=on,"
HUB = "-nic hubport,hubid=0"


def asked(text: str) -> list[str]:
    return list(question_of(shlex.split(text)).words)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("-M virt,kernel=/k,gic-version=3 -cpu max -m 2G", "-M virt,gic-version=3 -cpu max -m 2G"),
        ("-drive file=/d,if=virtio,id=a,format=qcow2", f"{NULL}size=1073741824,if=virtio,id=a"),
        ("-drive if=pflash,file=/v,unit=1", f"{NULL}size=67108864,if=pflash,unit=1"),
        ("disk.img", f"{NULL}size=1073741824,if=none"),
        ("-netdev tap,id=n,ifname=tap0,vhost=on", "-netdev hubport,hubid=0,id=n"),
        ("-netdev user,hostfwd=tcp::22-:22,id=n", "-netdev hubport,hubid=0,id=n"),
        ("-nic user,model=e1000,mac=52:54:0:0:0:1", f"{HUB},model=e1000,mac=52:54:0:0:0:1"),
        ("-chardev socket,path=/s,id=c -serial chardev:c", "-chardev null,id=c -serial chardev:c"),
        ("-serial stdio -serial none", "-serial null -serial none"),
        ("-qmp unix:/q,server=on -monitor stdio -vnc :1 -daemonize -pidfile /p", ""),
        ("-incoming tcp:0:4444 -S -loadvm x -snapshot", ""),
        (
            "-object memory-backend-file,id=ram,size=1G,mem-path=/dev/hugepages,share=on",
            "-object memory-backend-ram,id=ram,size=1G,share=on",
        ),
        ("-object secret,id=s,file=/key -object rng-builtin,id=r", "-object rng-builtin,id=r"),
        ("-fsdev local,path=/srv,id=f,security_model=none", "-fsdev synth,id=f"),
        ("-device virtio-net-pci,netdev=n,romfile=", "-device virtio-net-pci,netdev=n,romfile="),
    ],
)
def test_what_becomes_of_each_option(given: str, kept: str) -> None:
    assert asked(given) == shlex.split(kept)


def test_block_nodes_of_the_flash_have_its_size() -> None:
    words = [
        *("-machine", "virt,pflash0=code"),
        *("-blockdev", '{"driver":"file","node-name":"code","filename":"/fw"}'),
        *("-blockdev", "driver=qcow2,node-name=disk,file=lower"),
    ]
    made = [json.loads(word) for word in question_of(words).words if word.startswith("{")]
    assert made == [
        {"driver": "null-co", "node-name": "code", "read-zeroes": True, "size": 64 << 20},
        {"driver": "null-co", "node-name": "disk", "read-zeroes": True, "size": 1 << 30},
    ]


def test_pieces_of_the_host_are_left_out_and_named() -> None:
    made = question_of(shlex.split("-device vfio-pci,host=01:00.0 -device vhost-vsock-pci -m 64"))
    assert made.words == ("-m", "64")
    assert made.left_out == ("vfio-pci,host=01:00.0", "vhost-vsock-pci")


LIBVIRT = (
    "-name guest=x,debug-threads=on -machine virt,usb=off,dump-guest-core=off,gic-version=2,"
    "pflash0=pf0,pflash1=pf1,memory-backend=mach-virt.ram -accel tcg -cpu max -m size=262144k "
    "-object memory-backend-memfd,id=mach-virt.ram,size=268435456 -smp 2 -no-user-config "
    "-nodefaults -chardev socket,id=m,path=/nonexistent/x,server=on,wait=off -mon "
    "chardev=m,id=monitor,mode=control -rtc base=utc -no-shutdown -boot strict=on "
    "-blockdev driver=file,filename=/nonexistent/code,node-name=pf0,read-only=on "
    "-blockdev driver=file,filename=/nonexistent/vars,node-name=pf1 "
    "-device pcie-root-port,port=8,chassis=1,id=pci.1,bus=pcie.0,addr=0x1 "
    "-blockdev driver=file,filename=/nonexistent/disk,node-name=storage "
    "-blockdev driver=qcow2,file=storage,node-name=format "
    "-device virtio-blk-pci,bus=pci.1,drive=format,id=disk0 "
    "-netdev tap,fd=33,id=net0,vhost=on,vhostfd=35 "
    "-device virtio-net-pci,romfile=,netdev=net0,mac=52:54:00:00:00:01 "
    "-chardev pty,id=serial0 -serial chardev:serial0 -vnc 127.0.0.1:0 -device virtio-gpu-pci "
    "-sandbox on -msg timestamp=on"
)


@pytest.mark.qemu
@pytest.mark.parametrize("release", ["5.2.0", "10.0.13", "11.1.3"])
def test_command_line_of_libvirt(qemu_release: Named, release: str) -> None:
    made = fingerprint_of_command(qemu_release(release).launcher, shlex.split(LIBVIRT))
    assert made.left_out == ()
    found = made.fingerprint
    assert (found.provenance.scope, found.provenance.cpu) == (Scope.GUEST, "max")
    assert found.provenance.qemu == release
    assert len(found.cpus) == 2
    assert found.memory is not None
    assert found.memory[0] == RamBlock("mach-virt.ram", 256 << 20)
    assert {"0000:00:01.0:00.0/virtio-blk", "0000:00:02.0/virtio-net"} < {
        device.name for device in found.devices
    }
    assert found.host.sve_bits is not None
    assert max(found.host.sve_bits) == 2048


@pytest.mark.qemu
def test_disk_is_compared_with_its_own_command_line_only(
    qemu_release: Named, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same guest against three fingerprints of one QEMU: its own, none of its devices, less."""
    qemu = str(qemu_release("10.0.13").launcher)
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"of the guest" + bytes(1 << 20))
    stamp = disk.stat().st_mtime_ns
    machine = "-machine virt-10.0 -cpu cortex-a57 -m 128 -nodefaults"
    device = f"-drive file={disk},if=none,id=d,format=raw -device virtio-blk-pci,drive=d"
    spec = MachineSpec(machine="virt-10.0", memory=128, extra=tuple(shlex.split(device)))
    with QemuProcess(qemu, spec, paused=True) as running:
        running.save(tmp_path / "guest")

    def against(*words: str) -> dict[str, Any]:
        target = str(tmp_path / "there.json")
        made = ["fingerprint", "qemu", "--qemu", qemu, "-o", target, *words]
        assert main(made) == 0
        capsys.readouterr()
        main(["check", str(tmp_path / "guest"), "--to", target, "--json"])
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    own = against("--", *shlex.split(f"{machine} {device}"))
    assert (own["verdict"], own["warnings"]) == ("works", [])
    kind = against("--machine", "virt-10.0", "--cpu", "cortex-a57")
    assert kind["verdict"] == "works"
    assert [one["kind"] for one in kind["circumstances"] if one["of_record"]] == [
        "memory",
        "devices",
    ]
    without = against("--", *shlex.split(machine))
    assert without["verdict"] == "fails"
    assert without["obstacles"] == [
        (
            "section '0000:00:01.0/virtio-blk' instance 0: the guest has this device, the "
            "destination has not; start the destination with the same devices"
        )
    ]
    assert without["stock"]["class"] == "unknown device"
    assert disk.stat().st_mtime_ns == stamp


@pytest.mark.qemu
def test_running_guest_is_asked_by_its_socket(qemu_release: Named, tmp_path: Path) -> None:
    qemu = qemu_release("10.0.13").launcher
    where = tmp_path / "qmp"
    extra = ("-qmp", f"unix:{where},server=on,wait=off", "-device", "virtio-rng-pci")
    spec = MachineSpec(machine="virt-10.0", memory=96, extra=extra)
    with QemuProcess(qemu, spec, paused=True) as running:
        target = tmp_path / "there.json"
        words = ["fingerprint", "qemu", "--qemu", str(qemu), "--from-qmp", f"unix:{where}"]
        assert main([*words, "-o", str(target)]) == 0
        live = around(running.execute, RefusedByQemu)
        assert running.status() == "prelaunch"
    found = parse(target.read_bytes(), "there")
    assert found.provenance.scope is Scope.GUEST
    assert "0000:00:01.0/virtio-rng" in {device.name for device in found.devices}
    assert found.memory is not None
    assert found.memory[0] == RamBlock("mach-virt.ram", 96 << 20)
    assert live.memory == found.memory
    assert (live.machine, live.accelerator, live.vcpus) == ("virt-10.0", Accelerator.TCG, 1)
    assert live.pci == {"00.0": "1b36:0008", "01.0": "1af4:1005"}
    assert live.models == {"virtio-rng-pci": 1}


def test_socket_that_is_not_of_this_host(tmp_path: Path) -> None:
    with pytest.raises(ArmferryError, match="found through a UNIX socket on its own host"):
        running_command("tcp:127.0.0.1:4444")
    with pytest.raises(ArmferryError, match="cannot be reached"):
        running_command(f"unix:{tmp_path}/none")


def test_process_behind_a_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as mine:
        mine.bind(path)
        mine.listen()
        found = running_command(f"unix:{path}")
    own = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    assert [os.fsencode(found.program), *map(os.fsencode, found.words)] == own


DOMAIN = """\
<domain type='kvm'>
  <name>one</name><uuid>8f1d3a1e-0000-4000-8000-000000000001</uuid>
  <memory unit='GiB'>2</memory><vcpu current='3'>4</vcpu>
  <os><type arch='aarch64' machine='virt-10.0'>hvm</type></os>
  <cpu mode='host-passthrough'/>
  <devices><emulator>/usr/bin/qemu-system-aarch64</emulator></devices>
</domain>
"""


def test_domain_is_given_to_libvirt(tmp_path: Path) -> None:
    xml = tmp_path / "one.xml"
    xml.write_text(DOMAIN)
    virsh = tmp_path / "virsh"
    virsh.write_text(
        "#!/bin/sh\n"
        'test "$1 $2 $3" = "domxml-to-native qemu-argv --xml" || exit 1\n'
        "echo 'LC_ALL=C \\'\n"
        "echo 'HOME=/var/lib/x \\'\n"
        "echo '/usr/bin/qemu-system-aarch64 \\'\n"
        "echo '-name guest=one \\'\n"
        "echo '-m size=2097152k'\n"
    )
    virsh.chmod(0o755)
    found = domain_command(xml, str(virsh))
    assert found.words == ("-name", "guest=one", "-m", "size=2097152k")
    assert (found.vcpus, found.memory, found.facts.cpu) == (3, 2048, "host")
    without = domain_command(xml, str(tmp_path / "none"))
    assert (without.words, without.why) == (None, "virsh is not installed here")
    virsh.write_text("#!/bin/sh\necho 'error: failed to connect' >&2\nexit 1\n")
    assert domain_command(xml, str(virsh)).why == "virsh said: error: failed to connect"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<domain", "not the XML of a domain"),
        (b"\xff\xfe", "can't decode"),
        (b"<domain><os><type arch='x86_64'/></os></domain>", "this is no domain of aarch64"),
    ],
)
def test_text_that_is_no_domain(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.xml"
    path.write_bytes(content)
    with pytest.raises(ArmferryError, match=words):
        domain_command(path, "none")
    with pytest.raises(ArmferryError, match="cannot be read"):
        domain_command(tmp_path / "none", "none")


@pytest.mark.parametrize("count", ["many", "-1", "9" * 5_000, "1" * 16])
def test_count_that_is_no_number(tmp_path: Path, count: str) -> None:
    path = tmp_path / "domain.xml"
    path.write_text(Domain().xml.replace("<vcpu>1<", f"<vcpu>{count}<"))
    with pytest.raises(ArmferryError, match="in the domain's XML is no number of vCPUs or memory"):
        domain_command(path, "none")
