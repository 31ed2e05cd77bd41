"""The commands on saved states of all five QEMUs of the rig, every ordered pair of them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armferry.hosts.fingerprints.saved_subject import read_state
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.qemu_install import InstalledQemu
from armferry.lab.releases import RELEASES

pytestmark = pytest.mark.qemu

SUITES = tuple(release.suite for release in RELEASES)
NEWER = {
    "bullseye": "virt-5.2",
    "bookworm": "virt-7.2",
    "bookworm-backports": "virt-10.0",
    "trixie": "virt-10.0",
    "trixie-backports": "virt-10.0",
}
"""The newest machine type of each that a second QEMU of the rig knows as well."""
PAIRS = [(here, there) for here in SUITES for there in SUITES]
CROSSES = {
    ("bookworm-backports", "trixie"),
    ("bookworm-backports", "trixie-backports"),
    ("trixie", "bookworm-backports"),
    ("trixie-backports", "bookworm-backports"),
    ("trixie", "trixie-backports"),
    ("trixie-backports", "trixie"),
}
"""Pairs that builtin levels alone carry from one release to another."""
OFTEN = {
    *CROSSES,
    ("bullseye", "bullseye"),
    ("bullseye", "bookworm"),
    ("bookworm", "bookworm-backports"),
    ("trixie", "bookworm"),
}
"""One pair of each answer; the others wait for the full set."""


def _armferry(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "armferry", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _machine(here: str, there: str) -> str:
    """A machine type that both know."""
    return NEWER[min(here, there, key=SUITES.index)]


@pytest.fixture(scope="module")
def fingerprint(
    qemu_release: Callable[[str], InstalledQemu], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """A function from a release and a machine type to the fingerprint the command makes of it."""
    folder = tmp_path_factory.mktemp("fingerprints")

    def probe(release: str, machine: str) -> Path:
        path = folder / f"{release}-{machine}.json"
        if not path.exists():
            done = _armferry(
                *("fingerprint", "qemu", "--machine", machine, "--cpu", "cortex-a57"),
                *("--accel", "tcg", "--qemu", qemu_release(release).launcher, "-o", path),
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.splitlines()[-1] == f"next: armferry check SOURCE --to {path}"
        return path

    return probe


@pytest.mark.parametrize("suite", SUITES)
def test_inspect_and_fingerprint(
    suite: str,
    qemu_release: Callable[[str], InstalledQemu],
    fresh_state: Callable[..., Path],
    fingerprint: Callable[[str, str], Path],
) -> None:
    state = fresh_state(suite, NEWER[suite])
    done = _armferry("inspect", state, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["machine"] == NEWER[suite]
    assert document["accelerator"] == "tcg"
    assert document["run_state"] == "prelaunch"
    assert document["bytes"] == state.stat().st_size
    assert sum(block["bytes"] for block in document["memory"]) >= 64 << 20
    sections = [section["name"] for section in document["sections"]]
    assert "cpu" in sections
    assert "globalstate" in sections
    registers = document["cpus"][0]["registers"]
    assert [one["index"] for one in registers] == sorted(one["index"] for one in registers)
    assert all(one["kind"] != "unknown" and one["name"] for one in registers)

    about = json.loads(fingerprint(suite, NEWER[suite]).read_text())
    assert about["provenance"]["qemu"] == qemu_release(suite).version
    assert about["provenance"]["machine"] == NEWER[suite]
    assert about["at_reset"] is True
    # a probe and a saved state of the same QEMU say the same of every register
    seen = {one["index"]: one["value"] for one in registers}
    assert about["cpus"][0]["registers"] == seen

    for words in (("inspect", state), ("inspect", fingerprint(suite, NEWER[suite]))):
        told = _armferry(*words)
        assert (told.returncode, told.stderr) == (0, "")
        assert told.stdout.splitlines()[-1] == f"next: armferry check {words[1]} --to DEST"
        assert "\nTTBR0_EL1 " in _armferry(*words, "--registers").stdout


@pytest.mark.parametrize(
    ("here", "there"),
    [pytest.param(*pair, marks=[] if pair in OFTEN else pytest.mark.full) for pair in PAIRS],
)
def test_every_pair(
    here: str,
    there: str,
    fresh_state: Callable[..., Path],
    fingerprint: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    """`diff`, `check` and `ferry` agree with each other, and with what is in the two lists."""
    machine = _machine(here, there)
    source, destination = fresh_state(here, machine), fingerprint(there, machine)
    target = tmp_path / "out"

    done = _armferry("diff", source, destination, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    differing = {one["name"]: one for one in json.loads(done.stdout)["differences"]}

    done = _armferry("check", source, "--to", destination, "--json")
    assert done.stderr == ""
    document: dict[str, Any] = json.loads(done.stdout)
    registers = {one["name"]: one for one in document["registers"]}
    # whatever is not simply matched differs; what differs and is matched is the guest's own value
    assert set(registers) <= set(differing)
    refused = {
        n for n, one in registers.items() if one["class"] in ("only incoming", "value refused")
    }

    ferried = _armferry("ferry", source, target, "--to", destination)
    assert ferried.stderr == ""
    if here == there:
        assert (done.returncode, ferried.returncode) == (0, 0)
        assert document["verdict"] == "works"
        assert (differing, registers) == ({}, {})
        assert target.read_bytes() == source.read_bytes()
        return
    only_here = {name for name, one in differing.items() if one["b"] is None}
    only_there = {name for name, one in differing.items() if one["a"] is None}
    assert only_here | only_there <= set(registers)
    if (here, there) in CROSSES:
        assert (done.returncode, ferried.returncode) == (1, 0)
        assert (document["verdict"], document["risk"]) == ("works-with-policy", "lossless")
        assert refused == set()
        assert set(read_state(target).cpus[0].registers) == {
            int(index, 16) for index in json.loads(destination.read_text())["cpus"][0]["registers"]
        }
        return
    assert (done.returncode, ferried.returncode) == (2, 2)
    assert document["verdict"] == "fails"
    assert refused
    assert all(registers[name]["why"] for name in refused)
    text = _armferry("check", source, "--to", destination, "--verbose").stdout
    for name in registers:
        assert f"\n{name} " in text
    assert not target.exists()
    assert "nothing was written" in ferried.stdout


@pytest.mark.full
@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_ferried_states_load(
    here: str,
    there: str,
    qemu_release: Callable[[str], InstalledQemu],
    fresh_state: Callable[..., Path],
    fingerprint: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    """What `ferry` writes, QEMU loads; whatever it refuses, QEMU would refuse as well."""
    machine = _machine(here, there)
    source, target = fresh_state(here, machine), tmp_path / "out"
    ferried = _armferry("ferry", source, target, "--to", fingerprint(there, machine))
    spec = MachineSpec(machine=machine)
    with QemuProcess(qemu_release(there), spec, paused=True, incoming=True) as running:
        result = running.load(target if ferried.returncode == 0 else source)
    assert result.loaded == (ferried.returncode == 0), result.stderr
