"""An entry of the atlas, recorded again from a real kernel and a real QEMU, is what it was."""

import json
from pathlib import Path

import pytest

from armferry.hosts.fingerprints.atlas import pack, read_atlas
from armferry.hosts.fingerprints.fingerprint import parse
from armferry.lab.atlas_record import KvmEntry, QemuEntry, record
from armferry.lab.kernels import KernelStore
from armferry.lab.releases import release_named

COUNTERS = {0x603000000013DF01, 0x603000000013DF1A}


@pytest.mark.kernel
def test_a_kernel_gives_what_the_atlas_says() -> None:
    kernel = KernelStore().get("6.17").release
    again = KvmEntry(kernel, "neoverse-n1").record()
    found = parse(json.dumps(again["fingerprint"]).encode(), "recorded again")
    kept = read_atlas().find("6.17/neoverse-n1").fingerprint
    (now,), (then,) = found.cpus, kept.cpus
    assert now.keys() == then.keys()
    assert {index for index in now if now[index] != then[index]} <= COUNTERS
    assert found.writable == kept.writable
    assert found.hardware == kept.hardware
    assert found.capabilities == kept.capabilities
    assert found.provenance.hardware == kept.provenance.hardware
    assert again["made"]["command"] == (
        f"armferry atlas record --kernels {kernel} --cpus neoverse-n1"
    )


@pytest.mark.qemu
def test_a_qemu_gives_what_the_atlas_says_and_is_recorded_once(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    entry = QemuEntry(release_named("trixie"), "virt-10.0", "cortex-a57")
    assert record([entry], tmp_path, lambda name, fault: told.append((name, fault))) == 0
    assert record([entry], tmp_path, lambda name, fault: told.append((name, fault))) == 0
    assert told == [("qemu-10.0.13/virt-10.0/cortex-a57", "")]
    (file,) = tmp_path.iterdir()
    again = json.loads(file.read_text())
    kept = read_atlas().find(again["name"])
    assert again["made"] == kept.made
    # what a fingerprint holds beyond what the atlas kept when it was recorded is not compared
    for key, value in kept.document.items():
        if key == "provenance":
            assert value.items() <= again["fingerprint"][key].items()
        else:
            assert again["fingerprint"][key] == value
    assert len(pack(tmp_path)) < 100_000


@pytest.mark.qemu
def test_what_cannot_be_recorded_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    entry = QemuEntry(release_named("trixie"), "virt-99.9", "cortex-a57")
    assert record([entry], tmp_path, lambda name, fault: told.append((name, fault))) == 1
    ((name, fault),) = told
    assert name == "qemu-10.0.13/virt-99.9/cortex-a57"
    assert fault.startswith("QEMU did not start (exit status 1); QEMU said:\n")
    assert "unsupported machine type" in fault
    assert list(tmp_path.iterdir()) == []
