"""A host that runs a real libvirtd: its own processes and mounts, its own state, one machine.

The installed root is shared; only empty folders to mount over are made in it. In a mount
namespace of its own the host puts its folders over those that libvirt changes, and in a process
namespace of its own it starts libvirtd, so that ending the host ends every guest and undoes every
mount. Needs to be root, not systemd, not D-Bus. Two hosts see one folder, `/shared`: save images,
the guest's serial log and both sockets lie there.

Settings: libvirt's own comments in libvirtd.conf and qemu.conf. Namespaces: unshare(1).
"""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from armferry.errors import EnvironmentFault
from armferry.lab.libvirt_install import InstalledLibvirt

__all__ = ["Domain", "LibvirtHost", "VirshError"]

_START_LIMIT = 30.0
_VIRSH_LIMIT = 120.0
_POLL = 0.02

_LIBVIRTD_CONF = """\
unix_sock_dir = "/shared/{name}"
auth_unix_rw = "none"
host_uuid = "{uuid}"
"""
_QEMU_CONF = """\
user = "root"
group = "root"
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
migration_port_min = {port}
migration_port_max = {last}
"""
_UNSHARE = ("unshare", "--mount", "--propagation", "private")
_BIND = """\
root=$1; shift
while [ "$1" != -- ]; do mount --bind "$1" "$root/$2" || exit 120; shift 2; done; shift
"""
# bash stays process 1 of the namespace: guests become its children when libvirtd detaches them,
# and a caller that waits for their end needs somebody to reap them
_SYSTEM = """\
mount -t proc proc "$root/proc" && mount --rbind /sys "$root/sys" || exit 120
mount --rbind /dev "$root/dev" || exit 120
"""
_DAEMON = _BIND + _SYSTEM + 'chroot "$root" libvirtd & wait $!\n'
_RUN = _BIND + _SYSTEM + 'exec chroot "$root" "$@"\n'
_VIRSH = _BIND + 'exec chroot "$root" virsh "$@"\n'


class VirshError(EnvironmentFault):
    """virsh or libvirtd did not do what it was asked; the message quotes it."""


@dataclass(frozen=True, slots=True)
class Domain:
    """The test guest as libvirt's XML. Paths are the hosts'; `serial` is appended to.

    `devices` is more XML, `arguments` are further words of QEMU's command line.
    """

    name: str = "carried"
    machine: str = "virt-10.0"
    cpu: str = "cortex-a57"
    vcpus: int = 1
    kernel: str = "/shared/guest.elf"
    serial: str = "/shared/serial"
    emulator: str = "/usr/bin/qemu-system-aarch64"
    devices: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def xml(self) -> str:
        """The document, under TCG."""
        words = "".join(f"<qemu:arg value='{word}'/>" for word in self.arguments)
        return f"""\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{self.name}</name>
  <uuid>{uuid.uuid5(uuid.NAMESPACE_DNS, self.name)}</uuid>
  <memory unit='MiB'>64</memory>
  <vcpu>{self.vcpus}</vcpu>
  <os><type arch='aarch64' machine='{self.machine}'>hvm</type><kernel>{self.kernel}</kernel></os>
  <features><gic version='2'/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>{self.cpu}</model></cpu>
  <devices>
    <emulator>{self.emulator}</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{self.serial}' append='on'/></serial>
    <memballoon model='none'/>{self.devices}
  </devices>
  <qemu:commandline>{words}</qemu:commandline>
</domain>
"""


class LibvirtHost:
    """A running libvirtd; a context manager that leaves no process and no mount behind.

    `folder` takes the host's state, `shared` is seen as `/shared` by every host that is given
    it. `name` must be unique among those; `port` is the first of ten ports for migrations.
    `packages` are folders of Python packages that the host gets, for hooks; `programs` is a folder
    of the host where libvirtd looks for programs first. Raises VirshError when libvirtd does not
    start.
    """

    def __init__(
        self,
        libvirt: InstalledLibvirt,
        name: str,
        *,
        folder: Path,
        shared: Path,
        port: int = 49152,
        packages: Sequence[Path] = (),
        programs: str = "",
    ) -> None:
        self.libvirt = libvirt
        self._environment = dict(os.environ)
        if programs:
            self._environment["PATH"] = f"{programs}:{os.environ['PATH']}"
        self.name = name
        self.folder = folder
        self.shared = shared
        self.port = port
        own = {
            "etc/libvirt": folder / "etc-libvirt",
            "etc/armferry": folder / "etc-armferry",
            "run": folder / "run",
            "var/lib/libvirt": folder / "libvirt",
            "var/lib/armferry": folder / "armferry",
            "var/log/libvirt": folder / "log",
            "var/cache/libvirt": folder / "cache",
            "shared": shared,
        }
        for package in packages:
            own[f"usr/lib/python3/dist-packages/{package.name}"] = package
        points = (libvirt.root / inside for inside in own)
        for path in (*own.values(), *points, shared / name):
            path.mkdir(parents=True, exist_ok=True)
        host = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{folder}"))
        (own["etc/libvirt"] / "libvirtd.conf").write_text(
            _LIBVIRTD_CONF.format(name=name, uuid=host)
        )
        (own["etc/libvirt"] / "qemu.conf").write_text(_QEMU_CONF.format(port=port, last=port + 9))
        self._binds = [word for inside, path in own.items() for word in (str(path), inside)]
        self._log = open(folder / "libvirtd.log", "wb")  # noqa: SIM115 - closed by close()
        (shared / name / "libvirt-sock").unlink(missing_ok=True)
        self._process = self._start()
        self._wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def socket(self) -> str:
        """libvirtd's socket, as every host sees it."""
        return f"/shared/{self.name}/libvirt-sock"

    @property
    def uri(self) -> str:
        """The connection to this host, for virsh on any host."""
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def hooks(self) -> Path:
        """The folder of libvirt's hooks on this host."""
        return self.folder / "etc-libvirt" / "hooks"

    @property
    def state(self) -> Path:
        """The folder that this host sees as /var/lib/armferry."""
        return self.folder / "armferry"

    @property
    def log(self) -> str:
        """What libvirtd has said."""
        return (self.folder / "libvirtd.log").read_text("utf-8", "replace")

    @property
    def virsh_words(self) -> list[str]:
        """What runs virsh on this host; the words of its command come behind."""
        command = [*_UNSHARE, "bash", "-c", _VIRSH, "virsh", str(self.libvirt.root)]
        return [*command, str(self.shared), "shared", "--", "--quiet", "-c", self.uri]

    def virsh(self, *words: str) -> str:
        """What one virsh command prints. Raises VirshError with its words when it fails."""
        command = [*self.virsh_words, *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_VIRSH_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            raise VirshError(
                f"virsh {' '.join(words)} on {self.name} did not end in {_VIRSH_LIMIT:.0f} s"
            ) from None
        if done.returncode != 0:
            raise VirshError(f"virsh {' '.join(words)} on {self.name}: {done.stderr.strip()}")
        return done.stdout.strip()

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """One command on this host, with its output."""
        command = [*_UNSHARE, "bash", "-c", _RUN, words[0], str(self.libvirt.root)]
        command += [*self._binds, "--", *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_VIRSH_LIMIT, check=False
        )

    def reload(self) -> None:
        """Lets libvirtd look at its hooks again."""
        os.kill(self._daemon(), signal.SIGHUP)

    def define(self, domain: Domain) -> None:
        """Makes `domain` known to this host."""
        path = self.shared / self.name / f"{domain.name}.xml"
        path.write_text(domain.xml)
        self.virsh("define", f"/shared/{self.name}/{path.name}")

    def forget(self, domain: Domain) -> None:
        """Leaves nothing of `domain` on this host: no guest, no saved state, no definition."""
        # first: an image that libvirt did not make itself is in the way of undefining
        self.managed_image(domain).unlink(missing_ok=True)
        names = self.virsh("list", "--all", "--name").split()
        if domain.name in names:
            if self.virsh("domstate", domain.name) != "shut off":
                self.virsh("destroy", domain.name)
            # a guest that was only restored or moved here is gone with its process
            if domain.name in self.virsh("list", "--all", "--persistent", "--name").split():
                self.virsh(
                    "undefine", domain.name, "--managed-save", "--nvram", "--snapshots-metadata"
                )

    def managed_image(self, domain: Domain) -> Path:
        """Where libvirt puts the image of `virsh managedsave`."""
        return self.folder / "libvirt" / "qemu" / "save" / f"{domain.name}.save"

    def close(self) -> None:
        """Ends libvirtd and every guest of this host. May be called twice."""
        if self._process.poll() is None:
            # process 1 of the namespace: the kernel ends the others before it reports its end,
            # and unshare waits for that
            for pid in _children(self._process.pid) or [self._process.pid]:
                os.kill(pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [*_UNSHARE, "--pid", "--fork", "--kill-child=SIGKILL"]
        command += ["bash", "-c", _DAEMON, "libvirtd", str(self.libvirt.root)]
        command += [*self._binds, "--"]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=self._environment,
        )

    def _daemon(self) -> int:
        """libvirtd's process id, seen from outside: a grandchild of unshare."""
        for child in _children(self._process.pid):
            for grandchild in _children(child):
                if Path(f"/proc/{grandchild}/comm").read_text().strip() == "libvirtd":
                    return grandchild
        raise VirshError(f"libvirtd on {self.name} is gone: {self.log.strip()}")

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_LIMIT
        while not (self.shared / self.name / "libvirt-sock").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise VirshError(f"libvirtd on {self.name} did not start: {self.log.strip()}")
            time.sleep(_POLL)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
