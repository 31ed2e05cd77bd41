"""Real arm64 kernels in the lab: their register lists, hidden registers, preflight, QEMU in KVM."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from armferry.hosts.files.locked import FileWindow
from armferry.lab.host import HostSpec, Job, LabHost, LabHostFault
from armferry.lab.kernels import KernelStore
from armferry.lab.nested import NestedQemu, load, save
from armferry.lab.qemu_install import install
from armferry.lab.releases import release_named
from armferry.registers import parse_register
from armferry.stream import read_saved

pytestmark = pytest.mark.kernel

IN_HOST = Path(__file__).with_name("in_host_kvm.py")
IN_FEATURES = Path(__file__).with_name("in_host_features.py")


def _index(name: str) -> int:
    return parse_register(name)


TCR2, PIRE0, PIR = map(_index, ("TCR2_EL1", "PIRE0_EL1", "PIR_EL1"))
OSLSR, PMMIR = map(_index, ("OSLSR_EL1", "PMMIR_EL1"))
PSCI = 0x6030000000140000
BITMAPS = {0x6030000000160000, 0x6030000000160001, 0x6030000000160002}
BITMAP_2 = 0x6030000000160003
CCSIDR = {0x6020000000110003 + number for number in range(0xB)}
COUNTER, PHYSICAL_TIMER = 0x603000000013DF01, {0x603000000013DF11, 0x603000000013DF12}
VIRTUAL_COUNTER = 0x603000000013DF1A

# What one kernel's list has and the one before it has not, and the other way round.
STEPS: dict[str, tuple[set[int], set[int]]] = {
    "6.1": ({OSLSR, *BITMAPS}, set()),
    "6.12": ({*CCSIDR, TCR2, PIRE0, PIR, COUNTER, *PHYSICAL_TIMER}, set()),
    "6.16": ({BITMAP_2}, {TCR2, PIRE0, PIR}),
    "6.17": (set(), set()),
    "6.18": (set(), set()),
    "7.2": (set(), set()),
    "7.3": ({PMMIR}, set()),
}
LENGTHS = {"5.10": 237, "6.1": 241, "6.12": 258, "6.17": 256, "7.2": 256, "7.3": 257}
PSCI_VERSIONS = {"5.10": 0x10000, "6.1": 0x10001, "6.12": 0x10001, "6.17": 0x10003, "7.3": 0x10003}


def _host(kernel: str, suite: str = "trixie") -> LabHost:
    return LabHost(HostSpec(KernelStore().get(kernel), release_named(suite)))


def _ask(host: LabHost, hidden: int, *changes: tuple[int, int]) -> dict[str, Any]:
    host.put("/guest/in_host_kvm.py", IN_HOST.read_bytes())
    words = [f"{index:#x}={value:#x}" for index, value in changes]
    done = host.run(["python3", "/guest/in_host_kvm.py", f"{hidden:#x}", *words])
    assert done.exit_code == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    answer["registers"] = {int(index): value for index, value in answer["registers"].items()}
    return answer


@pytest.mark.parametrize(
    ("kernel", "hidden", "name", "changes", "refused"),
    [
        pytest.param(
            "6.12",
            TCR2,
            "TCR2_EL1",
            [(PSCI, 0x10003), (BITMAP_2, 0)],
            [[PSCI, errno.EINVAL, 0x10003, 0x10001], [BITMAP_2, errno.ENOENT, 0, None]],
            id="6.12",
        ),
        pytest.param(
            "6.17",
            BITMAP_2,
            "VENDOR_HYP_BMAP_2",
            [(PSCI, 0x10001), (TCR2, 0), (PIRE0, 0), (PIR, 0)],
            [
                [TCR2, errno.ENOENT, 0, None],
                [PIRE0, errno.ENOENT, 0, None],
                [PIR, errno.ENOENT, 0, None],
            ],
            id="6.17",
        ),
    ],
)
def test_the_kernel_is_asked_and_hidden_registers_stay_hidden(
    kernel: str,
    hidden: int,
    name: str,
    changes: list[tuple[int, int]],
    refused: list[list[int | None]],
    tmp_path: Path,
) -> None:
    qemu = NestedQemu("virt-10.0")
    with _host(kernel) as host:
        answer = _ask(host, hidden, *changes)
        outcome, stream = save(host, qemu)
        loaded, _ = load(host, qemu, stream)

    assert answer["kernel"] == f"{host.spec.kernel.release}-cloud-arm64" == host.release
    assert answer["cpu"] == "Arm Neoverse N1 r4p1"
    assert answer["features"] == ["PMU_V3", "PSCI_0_2"]
    registers: dict[int, int] = answer["registers"]
    assert len(registers) == LENGTHS[kernel]
    assert registers[PSCI] == PSCI_VERSIONS[kernel]
    assert _index("ID_AA64PFR0_EL1") in answer["writable"]

    assert outcome.completed, outcome
    (tmp_path / "stream").write_bytes(stream)
    with FileWindow(tmp_path / "stream") as window:
        (sent,) = (cpu.registers for cpu in read_saved(window).cpus)
    differing = {index for index in sent if sent[index] != registers.get(index)}
    assert sent.keys() == registers.keys()
    assert differing == {COUNTER, VIRTUAL_COUNTER}
    assert loaded.completed, loaded

    assert answer["refusals"] == refused
    action = {path: "read" if path == "get" else "set" for path in answer["paths"]}
    assert sorted(action) == ["get", "load_list", "preflight", "set", "set_list"]
    assert answer["paths"] == {
        path: f"cannot {action[path]} {name} ({hidden:#018x}): it is hidden from this VM; take it"
        " out of x-mig-hidden-regs to let the VM have it"
        for path in action
    }
    assert not answer["hidden_listed"]
    assert answer["refused_without_hidden"] == 0


# one register of each size: FPSR, X0, V0 (without SVE), P0 and Z0 (with SVE)
FPSR, X0, V0 = "0x60200000001000d4", "0x6030000000100000", "0x6040000000100054"
P0, Z0 = "0x6050000000150400", "0x6080000000150000"
SVE_VLS = "0x606000000015ffff"
AARCH32 = 4
"""DACR32_EL2, IFSR32_EL2, FPEXC32_EL2, DBGVCR32_EL2: of EL2 by name, there for AArch32's sake."""
NO_EL2 = (
    "this kernel offers no nested virtualisation (KVM_CAP_ARM_EL2): it needs a CPU with FEAT_NV2"
    " and kvm-arm.mode=nested on the kernel's command line"
)


def _features(host: LabHost) -> list[Any]:
    host.put("/guest/in_host_features.py", IN_FEATURES.read_bytes())
    words = ["python3", "/guest/in_host_features.py", FPSR, X0, V0, P0, Z0]
    done = host.run(words, time_limit=240.0)
    assert done.exit_code == 0, done.stderr.decode()
    answers: list[Any] = json.loads(done.stdout)
    return answers


def test_a_host_without_sve_and_el2() -> None:
    with _host("6.12") as host:
        plain, nested = _features(host)
    assert plain["features"] == ["PMU_V3", "PSCI_0_2"]
    assert (plain["listed"], plain["el2"]) == (LENGTHS["6.12"], AARCH32)
    assert plain["sizes"].keys() == {"4", "8", "16"}
    assert plain["refused"] == {}
    assert plain["written"] == dict.fromkeys((FPSR, X0, V0), True)
    assert nested == NO_EL2


def test_sve_pointer_authentication_and_el2_where_the_kernel_offers_them() -> None:
    spec = HostSpec(
        KernelStore().get("7.3"),
        release_named("trixie"),
        cpu="max,pauth-impdef=on",
        append="kvm-arm.mode=nested",
    )
    newest = install(release_named("trixie-backports")).launcher
    with LabHost(spec, newest, boot_limit=240.0) as host:
        plain, nested = _features(host)
        fingerprints = [
            host.run(["armferry", "fingerprint", "kvm", *words], time_limit=240.0)
            for words in ((), ("--nested",))
        ]
    offered = ["PMU_V3", "PSCI_0_2", "PTRAUTH_ADDRESS", "PTRAUTH_GENERIC", "SVE"]
    assert plain["features"] == offered
    assert nested["features"] == ["HAS_EL2", *offered]
    assert plain["el2"] == AARCH32
    assert nested["el2"] > AARCH32 + 40
    for answer in (plain, nested):
        # with SVE the vectors are read at the length that the vCPU was given
        assert answer["sizes"].keys() == {"4", "8", "32", "64", "256"}
        assert answer["sizes"]["256"] == 32
        # which lengths there are is settled once SVE is finalised
        assert answer["refused"] == {SVE_VLS: errno.EPERM}
        assert answer["written"] == dict.fromkeys((FPSR, X0, P0, Z0), True)
    for done, answer in zip(fingerprints, (plain, nested), strict=True):
        assert done.exit_code == 0, done.stderr.decode()
        assert len(json.loads(done.stdout)["cpus"][0]["registers"]) == answer["listed"]


@pytest.mark.full
def test_the_steps_from_kernel_to_kernel() -> None:
    before: set[int] | None = None
    for kernel in ("5.10", *STEPS):
        with _host(kernel, "bookworm") as host:
            answer = _ask(host, PSCI)
        now = set(answer["registers"])
        assert len(now) == LENGTHS.get(kernel, len(now))
        assert answer["registers"][PSCI] == PSCI_VERSIONS.get(kernel, 0x10003)
        if before is not None:
            assert (now - before, before - now) == STEPS[kernel], kernel
        before = now


@pytest.fixture
def host() -> Iterator[LabHost]:
    with _host("6.12") as booted:
        yield booted


def test_a_host_does_as_asked_and_its_death_is_told(host: LabHost) -> None:
    done = host.run(["sh", "-c", "cat; exit 3"], stdin=b"words")
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"words", b"")
    assert host.run(["sleep", "60"], time_limit=0.5).exit_code is None

    script = b"mkdir /out/deep; tr a-z A-Z < words > /out/deep/$1; exit 5"
    result = host.do(Job(("sh", "script", "WORDS"), {"words": b"ferry", "script": script}))
    assert (result.completed.exit_code, result.out) == (5, {"deep/WORDS": b"FERRY"})

    name = f"lab host {host.spec.kernel.release} on neoverse-n1"
    with pytest.raises(LabHostFault) as missing:
        host.get("/missing")
    assert str(missing.value).startswith(
        f"{name} could not get: [Errno 2] No such file or directory: '/missing'; "
    )
    with pytest.raises(LabHostFault) as gone:
        host.run(["poweroff", "-f"])
    assert str(gone.value).startswith(f"{name} powered off during exec; ")
    assert gone.value.exit_code == 4
