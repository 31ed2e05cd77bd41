"""What is read of a domain's XML, held against the command line that libvirt makes of it."""

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.cli.main import main
from armferry.hosts.fingerprints.fingerprint import parse
from armferry.hosts.libvirt.domain import read_domain
from armferry.lab.libvirt_host import Domain, LibvirtHost
from armferry.lab.qemu_install import InstalledQemu

pytestmark = pytest.mark.qemu

GIC = "<gic version='2'/>"
CPU = re.compile(r"<cpu .*</cpu>")


def feature(more: str, gic: str = GIC) -> str:
    """The domain with other elements below `features`."""
    return Domain().xml.replace(GIC, gic + more)


def cpu(text: str) -> str:
    """The domain with another `cpu` element."""
    return CPU.sub(text, Domain().xml)


DOMAINS = {
    "as it is": Domain().xml,
    "gic 3": feature("", "<gic version='3'/>"),
    "gic of the host": feature("", "<gic version='host'/>"),
    "pmu off": feature("<pmu state='off'/>"),
    "pmu on": feature("<pmu state='on'/>"),
    "pmu": feature("<pmu/>"),
    "maximum": cpu("<cpu mode='maximum'/>"),
    "maximum without pmu": feature("<pmu state='off'/>").replace("cortex-a57", "max"),
    "not migratable": cpu("<cpu mode='maximum' migratable='off'/>"),
    "features": cpu(
        "<cpu mode='maximum'><feature policy='require' name='sve512'/>"
        "<feature policy='forbid' name='sve1024'/><feature policy='optional' name='sve256'/>"
        "<feature policy='force' name='sve128'/></cpu>"
    ),
    "sve off": cpu("<cpu mode='maximum'><feature policy='disable' name='sve'/></cpu>"),
    "sve on": cpu("<cpu mode='maximum'><feature policy='require' name='sve'/></cpu>"),
    "smm": feature("<smm state='on'/>"),
    "translation cache": feature("<tcg><tb-cache unit='MiB'>64</tb-cache></tcg>"),
    "iommu": Domain(devices="<iommu model='smmuv3'/>").xml,
    "topology": Domain(vcpus=2).xml.replace(
        "</model></cpu>", "</model><topology sockets='1' cores='1' threads='2'/></cpu>"
    ),
    "numa": Domain().xml.replace(
        "</model></cpu>",
        "</model><numa><cell id='0' cpus='0' memory='64' unit='MiB'/></numa></cpu>",
    ),
    "words about other things": Domain(arguments=("-device", "virtio-rng-pci")).xml,
}
UNDETERMINED = {
    "a CPU in QEMU's words": Domain(arguments=("-cpu", "max,pmu=off")).xml,
    "a machine in QEMU's words": Domain(arguments=("-machine", "virtualization=on")).xml,
    "a global of the CPU": Domain(arguments=("-global", "cortex-a57-arm-cpu.pmu=off")).xml,
}


def _native(host: LibvirtHost, shared: Path, xml: str) -> dict[str, str]:
    (shared / "native.xml").write_text(xml)
    said = host.virsh("domxml-to-native", "qemu-argv", "--xml", "/shared/native.xml")
    words = said.replace("\\\n", " ").split()
    return {word: words[at + 1] for at, word in enumerate(words) if word in ("-cpu", "-machine")}


@pytest.mark.parametrize("suite", ["bookworm-backports", "trixie"])
def test_machine_and_cpu_are_those_that_libvirt_would_start(
    suite: str, libvirt_host: Callable[[str], LibvirtHost], libvirt_shared: Path
) -> None:
    host = libvirt_host(suite)
    for what, xml in DOMAINS.items():
        native = _native(host, libvirt_shared, xml)
        facts = read_domain(xml)
        assert facts is not None
        model, *features = native["-cpu"].split(",")
        kind, *options = native["-machine"].split(",")
        own_model, *own_features = facts.cpu.split(",")
        assert (own_model, sorted(own_features)) == (model, sorted(features)), what
        gic = [option for option in options if option.startswith("gic-version=")]
        assert facts.machine == ",".join([kind, *gic]), what


def test_what_the_xml_does_not_determine_is_not_guessed(
    libvirt_host: Callable[[str], LibvirtHost], libvirt_shared: Path
) -> None:
    host = libvirt_host("trixie")
    for what, xml in UNDETERMINED.items():
        _native(host, libvirt_shared, xml)  # it is a domain that libvirt takes
        facts = read_domain(xml)
        assert facts is not None
        assert facts.cpu == "", what


GUEST = Domain(
    name="asked",
    devices="<rng model='virtio'><backend model='builtin'/></rng>"
    "<input type='tablet' bus='virtio'/>",
)


def test_fingerprint_of_a_domain_is_of_what_libvirt_starts(
    libvirt_host: Callable[[str], LibvirtHost],
    libvirt_shared: Path,
    qemu_release: Callable[[str], InstalledQemu],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """libvirt is asked for its command line; the domain that it then starts fits to the letter."""
    host = libvirt_host("trixie")
    xml = libvirt_shared / host.name / "asked-of.xml"
    xml.write_text(GUEST.xml)
    virsh = tmp_path / "virsh"
    outside, words = shlex.quote(str(libvirt_shared)), shlex.join(host.virsh_words)
    virsh.write_text(
        f'#!/bin/bash\nhere={outside} there=/shared\nexec {words} "${{@/#$here/$there}}"\n'
    )
    virsh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    there = str(tmp_path / "there.json")
    qemu = str(qemu_release("10.0.13").launcher)
    made = ["fingerprint", "qemu", "--from-domain", str(xml), "--qemu", qemu, "-o", there]
    assert main(made) == 0
    assert capsys.readouterr().err == ""
    image = libvirt_shared / host.name / "asked.save"
    host.define(GUEST)
    try:
        host.virsh("start", GUEST.name, "--paused")
        host.virsh("save", GUEST.name, f"/shared/{host.name}/{image.name}")
    finally:
        host.forget(GUEST)
    assert main(["check", str(image), "--to", there, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["verdict"], said["obstacles"], said["sections"]) == ("works", [], [])
    assert [one["kind"] for one in said["circumstances"]] == []
    names = {one.name for one in parse(Path(there).read_bytes(), there).devices}
    assert {"virtio-rng", "virtio-input"} <= {name.rpartition("/")[2] for name in names}
