"""`armferry check --to kvm:` on a real 6.12, with a guest that was saved on 6.17."""

import json
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from armferry.lab.host import HostSpec, LabHost
from armferry.lab.kernels import KernelStore
from armferry.lab.matrix import said
from armferry.lab.nested import NestedQemu, load, save
from armferry.lab.releases import release_named

pytestmark = pytest.mark.kernel

STREAM = Path(__file__).parents[1] / "stream/data/kvm_6.17_neoverse-n1_10.0.13.mig.xz"
PSCI = "0x6030000000140000"


@pytest.fixture(scope="module")
def stream() -> bytes:
    return lzma.decompress(STREAM.read_bytes())


@pytest.fixture(scope="module")
def host(stream: bytes) -> Iterator[LabHost]:
    """Linux 6.12 with QEMU 11.1, and the guest's stream in `/guest/stream`."""
    spec = HostSpec(KernelStore().get("6.12"), release_named("trixie-backports"))
    with LabHost(spec, boot_limit=240.0) as booted:
        booted.put("/guest/stream", stream)
        yield booted


def _check(host: LabHost, *options: str, exit_code: int) -> dict[str, Any]:
    command = ["armferry", "check", "/guest/stream", "--to", "kvm:", "--json", *options]
    done = host.run(command, time_limit=240.0)
    assert done.exit_code == exit_code, done.stderr.decode()
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _refused(document: dict[str, Any], which: str) -> list[tuple[str, str, str, str | None, str]]:
    return [
        (row["name"], row["errno"], row["value"], row["host_value"], row["fields"])
        for row in document["preflight"]["refusals"]
        if row["list"] == which
    ]


def test_preflight_refuses_what_qemu_names(host: LabHost, stream: bytes) -> None:
    # the guest never ran, so the levels may lower what this kernel refuses
    document = _check(host, "--destination-qemu", "11.1.3", exit_code=1)
    outcome, _ = load(host, NestedQemu("virt-10.0"), stream)

    named = re.findall(r"Could not set register fw reg (\d+) to (\w+) \(is (\w+)\)", outcome.stderr)
    assert set(named) == {("0", "10003", "10001")}, outcome
    assert _refused(document, "incoming") == [
        ("PSCI_VERSION", "EINVAL", "0x10003", "0x10001", "PSCI 1.3 -> PSCI 1.1")
    ]
    assert document["stock"]["registers"] == [PSCI]
    assert document["stock"]["message"] == said(outcome)
    assert _refused(document, "outgoing") == document["obstacles"] == []
    unaided = _check(host, "--destination-qemu", "11.1.3", "--no-builtin", exit_code=2)
    refused = [r["index"] for r in unaided["registers"] if "refused" in r["class"]]
    assert PSCI in refused
    assert _refused(unaided, "incoming") == _refused(document, "incoming")


def test_hidden_registers_are_gone_and_a_supported_psci_version_is_taken(host: LabHost) -> None:
    options = ("--hidden-regs", "VENDOR_HYP_BMAP", "--kvm-psci-version", "1.1")
    document = _check(host, *options, exit_code=1)
    assert document["risk"] == "lossless"
    assert _refused(document, "outgoing") == document["obstacles"] == []
    hidden = {r["name"]: r["sent_value"] for r in document["registers"] if r["class"] == "hidden"}
    assert hidden == {"VENDOR_HYP_BMAP": None, "VENDOR_HYP_BMAP_2": None}
    # nobody said which QEMU it is, so nothing is taken to be left out
    assert _refused(document, "incoming") == [
        ("PSCI_VERSION", "EINVAL", "0x10003", "0x10001", "PSCI 1.3 -> PSCI 1.1"),
        ("VENDOR_HYP_BMAP_2", "ENOENT", "0x0", None, ""),
    ]


@pytest.mark.full
def test_an_unsupported_psci_version_is_told_as_qemu_tells_it(host: LabHost) -> None:
    document = _check(host, "--kvm-psci-version", "1.3", exit_code=2)
    said = "KVM in this kernel does not support PSCI version 1.3"
    assert document["obstacles"] == [f"kvm-psci-version: {said}"]
    outcome, _ = save(host, NestedQemu("virt-11.1", cpu_options=",kvm-psci-version=1.3"))
    assert f"qemu-system-aarch64: {said}\n" in outcome.stderr


@pytest.mark.full
def test_every_vcpu_of_a_guest_can_be_tried(host: LabHost) -> None:
    """Each scratch vCPU is its VM's first, whatever the number of the vCPU that it stands for."""
    script = (
        "from armferry.hosts.fingerprints.kvm import VcpuLists, ask, preflight\n"
        "own = dict(ask().registers)\n"
        "second = own | {0x603000000013C005: 0x80000001}\n"
        "lists = [VcpuLists(one, one) for one in (own, second)]\n"
        "print(preflight(lists, psci_version=0x10001).vcpus)\n"
    )
    done = host.run(["python3", "-c", script], time_limit=240.0)
    assert done.stdout.decode() == (
        "(VcpuLoads(incoming=Loaded(refused=(), not_kept=()), outgoing=Loaded(refused=(), "
        "not_kept=())), VcpuLoads(incoming=Loaded(refused=(), not_kept=()), "
        "outgoing=Loaded(refused=(), not_kept=())))\n"
    ), done.stderr.decode()
