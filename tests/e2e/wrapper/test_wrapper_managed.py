"""A real libvirtd whose QEMU is the wrapper, asked and told the same as one without it."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import armferry
from armferry.lab.guest import GuestLog
from armferry.lab.libvirt_host import Domain, LibvirtHost
from armferry.lab.libvirt_install import install
from armferry.lab.releases import release_named

pytestmark = pytest.mark.qemu

SUITE = "trixie"
PROGRAMS = {"stock": "/usr/bin", "wrapped": "/shared/programs"}
QEMU = "qemu-system-aarch64"
PROGRAM = "#!/usr/bin/python3\nfrom armferry.wrapper.start import main\nraise SystemExit(main())\n"
PORTS = "".join(
    f"<controller type='pci' index='{index}' model='{model}'/>"
    for index, model in enumerate(("pcie-root", "pcie-root-port", "pcie-root-port"))
)
RNG = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"


class Told:
    """What one host answers, its paths left out."""

    def __init__(self, host: LibvirtHost, programs: str, shared: Path) -> None:
        self._host = host
        self._shared = shared
        serial = f"/shared/{host.name}/serial"
        self._domain = Domain(emulator=f"{programs}/{QEMU}", serial=serial, devices=PORTS)
        (shared / host.name / "rng.xml").write_text(RNG)
        self.answers: dict[str, str] = {}

    def ask(self, *words: str) -> None:
        answer = self._host.virsh(*words)
        self.answers[self._plain(f"{len(self.answers)} {' '.join(words)}")] = self._plain(answer)

    def _plain(self, text: str) -> str:
        """`text` without what two hosts never have in common."""
        text = re.sub("<uuid>.*</uuid>", "", text)
        for path in (*PROGRAMS.values(), f"/shared/{self._host.name}"):
            text = text.replace(path, "")
        return text

    def monitor(self, command: str, **arguments: object) -> None:
        text = json.dumps({"execute": command, "arguments": arguments})
        self.ask("qemu-monitor-command", "carried", text)

    def until_ticks(self, count: int) -> GuestLog:
        path, deadline = self._shared / self._host.name / "serial", time.monotonic() + 60
        while (log := GuestLog.read(path)).last < count and time.monotonic() < deadline:
            time.sleep(0.02)
        return log

    def live(self) -> None:
        """The life of a guest, from the host's capabilities to its shutdown."""
        self.ask("capabilities")
        own = f"<emulator>{self._domain.emulator}</emulator>"
        assert own in self._host.virsh("capabilities"), "libvirt has found another QEMU"
        for machine in ("virt", "virt-10.0", "virt-7.2"):
            self.ask("domcapabilities", "--machine", machine, "--arch", "aarch64")
        self._host.define(self._domain)
        self.ask("start", "carried")
        self.ask("domstate", "--reason", "carried")
        self.ask("dumpxml", "carried")
        self.until_ticks(2)
        for words in (
            ("suspend",),
            ("domstate", "--reason"),
            ("resume",),
            ("domstate", "--reason"),
        ):
            self.ask(*words, "carried")
        self.ask("qemu-monitor-command", "carried", "--hmp", "info status")
        self.monitor("query-qmp-schema")
        self.monitor("query-machines")
        self.monitor("query-cpu-definitions")
        self.monitor("query-command-line-options")
        self.monitor("query-migrate-capabilities")
        self.monitor("object-add", **{"qom-type": "rng-builtin", "id": "plugged"})
        self.monitor("qom-list", path="/objects")
        rng = f"/shared/{self._host.name}/rng.xml"
        self.ask("attach-device", "carried", rng, "--live")
        self.ask("dumpxml", "carried")
        self.ask("qemu-monitor-command", "carried", "--hmp", "info pci")
        self.ask("detach-device", "carried", rng, "--live")
        log = self.until_ticks(self.until_ticks(2).last + 3)
        assert log.faults() == ()
        self.ask("shutdown", "carried")
        deadline = time.monotonic() + 60
        while self._host.virsh("domstate", "carried") != "shut off":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self.ask("domstate", "--reason", "carried")
        self.ask("undefine", "carried")


@pytest.fixture
def both(libvirt_shared: Path, tmp_path: Path) -> Iterator[Callable[[str], Told]]:
    """A function from `stock` or `wrapped` to that host."""
    program = libvirt_shared / "programs" / QEMU
    program.parent.mkdir(exist_ok=True)
    program.write_text(PROGRAM)
    program.chmod(0o755)
    with ExitStack() as stack:

        def named(name: str) -> Told:
            host = stack.enter_context(
                LibvirtHost(
                    install(release_named(SUITE)),
                    name,
                    folder=tmp_path / name,
                    shared=libvirt_shared,
                    packages=[Path(armferry.__file__).parent],
                    programs=PROGRAMS[name],
                )
            )
            return Told(host, PROGRAMS[name], libvirt_shared)

        yield named


def test_the_same_answers_all_its_life(both: Callable[[str], Told]) -> None:
    stock, wrapped = both("stock"), both("wrapped")
    for told in (stock, wrapped):
        told.live()
    assert list(stock.answers) == list(wrapped.answers)
    differing = {
        asked: (answer, wrapped.answers[asked])
        for asked, answer in stock.answers.items()
        if wrapped.answers[asked] != answer
    }
    assert differing == {}
