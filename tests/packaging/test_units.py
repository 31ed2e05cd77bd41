"""The units that are shipped, scored by systemd itself, and read by it without a complaint."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "packaging"
SERVICES = sorted(ROOT.rglob("*.service"))
HIGHEST = {"armferry-gateway@.service": 1.5, "armferry-fingerprint.service": 2.5}
"""The exposure that systemd-analyze security may give, of 10."""


def score(path: Path, folder: Path) -> float:
    # an instance has a name: the tool reads no template
    unit = folder / path.name.replace("@.", "@one.")
    shutil.copy(path, unit)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found.group(1))


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_unit_is_closed(path: Path, tmp_path: Path) -> None:
    assert score(path, tmp_path) <= HIGHEST[path.name]


def test_every_service_has_a_threshold() -> None:
    assert {path.name for path in SERVICES} == set(HIGHEST)


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_unit_is_understood(path: Path, tmp_path: Path) -> None:
    """Every directive is one that systemd knows; what it runs is not on this machine."""
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", path.read_text(), flags=re.MULTILINE)
    unit = tmp_path / path.name.replace("@.", "@one.")
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert complaints == []


def test_the_socket_is_for_libvirts_qemu() -> None:
    text = (ROOT / "armferry-gateway@.socket").read_text()
    assert re.search(r"^SocketMode=0660$", text, re.MULTILINE)
    assert re.search(r"^SocketGroup=libvirt-qemu$", text, re.MULTILINE)
