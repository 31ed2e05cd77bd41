"""A real Linux guest born on 7.3 as on 5.10: it sees that host, and notices nothing.

Two vCPUs and the workload. It moves live to stock QEMU on 5.10, takes a CPU offline and online
there, whose features and caches Linux then compares with what it saw at its boot, and moves back.
"""

import pytest

from armferry.lab.kernels import KernelStore
from armferry.lab.linux import LinuxLog
from armferry.lab.linux.build import initial_ramdisk

from .joined_hosts import TICKS, cross, joined

pytestmark = [pytest.mark.qemu, pytest.mark.kernel, pytest.mark.full]

NEWER, OLDER = "7.3", "5.10"
SETTLED = 6
GUEST = (
    *("-M", "virt-10.0,accel=kvm,gic-version=3", "-smp", "2", "-m", "256"),
    *("-initrd", "/guest/initrd"),
    *("-append", "console=ttyAMA0 quiet loglevel=1 panic=-1 armferry.light"),
)
BORN = ("armferry-qemu", *GUEST, "-cpu", f"host,x-armferry-as=atlas:{OLDER}/neoverse-n1")
STOCK = ("qemu-system-aarch64", *GUEST, "-cpu", "host")


def test_linux_lives_on_the_presented_host_for_ever() -> None:
    files = {
        "/guest/kernel": KernelStore().get("6.12").image.read_bytes(),
        "/guest/initrd": initial_ramdisk().read_bytes(),
    }
    with joined((NEWER, OLDER), "trixie", ("there", "back"), files) as (home, away):
        home.do("start", "0", "runs", *BORN)
        home.do("ticks", "0", str(SETTLED))
        at_home = home.do("tell", "0", "cache 0")["answer"]
        away.do("start", "0", "waits", *STOCK)
        left = cross(home, "0", away, "0", ["there"])
        seen = home.said() + away.said()
        assert "now holds" not in left, "Linux leaves nothing in a hidden register"
        for command in ("offline 1", "online 1"):
            assert away.do("tell", "0", command)["answer"] == "ok"
        assert away.do("tell", "0", "cache 1")["answer"] == at_home
        away.do("ticks", "0", str(SETTLED))
        home.do("start", "1", "waits", *BORN)
        cross(away, "0", home, "1", ["back"])
        for command in ("offline 1", "online 1"):
            assert home.do("tell", "1", command)["answer"] == "ok"
        assert home.do("tell", "1", "cache 1")["answer"] == at_home
        home.do("ticks", "1", str(TICKS))
        seen += away.said() + home.said()
    log = LinuxLog.parse(seen)
    assert log.kernel == (), "nothing in dmesg from warnings up"
    assert log.faults() == ()
    assert log.last >= 2 * SETTLED
