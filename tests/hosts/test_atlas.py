"""The atlas that comes with armferry: every entry, what it says of registers, how it is named."""

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from armferry.decide import Answer, Risk, judge
from armferry.ends import Move
from armferry.facts import condition_of, conditions
from armferry.facts.release import newest_match, release_key
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import (
    Atlas,
    Entry,
    UnknownEntry,
    history,
    pack,
    read_atlas,
)
from armferry.hosts.fingerprints.fingerprint import dump, parse
from armferry.hosts.fingerprints.open_subject import open_subject
from armferry.policy import AcceptedRisk, Policy, aggregate
from armferry.registers import Accelerator, parse_register

SERIES = ("5.10", "6.1", "6.12", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3")
N1 = "neoverse-n1"


def _spans(register: str, cpu: str = N1) -> list[tuple[str, str, int | None]]:
    """First and last series of each span."""
    return [
        (_series(span.first), _series(span.last), span.value)
        for span in history(parse_register(register), read_atlas().kernels)
        if span.cpu == cpu
    ]


def _series(release: str) -> str:
    return ".".join(map(str, release_key(release)[:2]))


def test_the_atlas_has_every_kernel_series_and_fits() -> None:
    entries = read_atlas().entries
    assert {_series(entry.release) for entry in entries if not entry.is_qemu} == set(SERIES)
    assert {entry.release for entry in entries if entry.is_qemu} == {
        *("5.2.0", "7.2.22", "10.0.2", "10.0.13", "11.1.3")
    }
    names = [entry.name for entry in entries]
    assert len(set(names)) == len(names)
    package = Path(__file__).parents[2] / "armferry/hosts/fingerprints/atlas/atlas.jsonl.xz"
    assert package.stat().st_size < 1 << 20


def test_every_entry_is_a_fingerprint_that_says_how_it_was_made() -> None:
    for entry in read_atlas().entries:
        found = entry.fingerprint
        about = found.provenance
        assert about.how == "atlas"
        assert found.at_reset
        assert len(found.cpus[0]) > 200
        assert entry.made["command"].startswith("armferry atlas record ")
        assert entry.cpu in entry.made["command"]
        assert entry.release in entry.made["command"]
        if entry.is_qemu and entry.under_kvm:
            assert found.accelerator is Accelerator.KVM
            assert (about.qemu, about.machine) == (entry.release, "")
            assert found.devices
        elif entry.is_qemu:
            assert found.accelerator is Accelerator.TCG
            assert (about.qemu, about.machine) == (entry.release, entry.machine)
            assert found.devices
        else:
            assert found.accelerator is Accelerator.KVM
            assert about.kernel == f"{entry.release}-cloud-arm64"
        assert parse(dump(found).encode(), "again").cpus == found.cpus


def test_tcr2_is_on_every_cpu_of_6_12_and_then_only_where_the_cpu_has_it() -> None:
    assert _spans("TCR2_EL1") == [("5.10", "6.1", None), ("6.12", "6.12", 0), ("6.16", "7.3", None)]
    condition = condition_of(parse_register("TCR2_EL1"))
    assert condition is not None
    assert condition.fields == ((parse_register("ID_AA64MMFR3_EL1"), "TCRX"),)
    assert condition.since == "6.13"


@pytest.mark.parametrize(
    ("register", "spans"),
    [
        ("VENDOR_HYP_BMAP_2", [("5.10", "6.12", None), ("6.16", "7.3", 0)]),
        ("PMMIR_EL1", [("5.10", "7.2", None), ("7.3", "7.3", 0)]),
        ("OSLSR_EL1", [("5.10", "5.10", None), ("6.1", "7.3", 0x8)]),
        (
            "PSCI_VERSION",
            [("5.10", "5.10", 0x10000), ("6.1", "6.12", 0x10001), ("6.16", "7.3", 0x10003)],
        ),
    ],
)
def test_since_when_and_until_when(register: str, spans: list[tuple[str, str, int | None]]) -> None:
    assert _spans(register) == spans


def test_every_condition_holds_for_every_kernel_that_keeps_to_it() -> None:
    seen = set()
    for register, condition in conditions().items():
        for entry in read_atlas().kernels:
            if not condition.applies(entry.release):
                continue
            registers = entry.fingerprint.cpus[0]
            there = condition.holds(registers)
            assert (register in registers) == there, (hex(register), entry.name)
            seen.add((register, there))
    # both sides of each were seen, but for the PMU, which every CPU of the lab has
    pmmir = parse_register("PMMIR_EL1")
    unseen = {(pmmir, False)} | {(r, True) for r, one in conditions().items() if not one.seen}
    assert seen == {(r, there) for r in conditions() for there in (True, False)} - unseen


def test_an_entry_is_found_by_a_beginning_of_its_release() -> None:
    found = read_atlas().find("6.12/neoverse-n1")
    assert newest_match("6.12", [found.release]) == found.release
    assert read_atlas().find(found.name) is found
    assert read_atlas().find("qemu-10.0/virt-10.0/cortex-a57").release == "10.0.13"


def test_what_is_not_there_is_told_with_what_is() -> None:
    names = ("6.12.1/neoverse-n1", "6.12.1/cortex-a72", "qemu-7.2.22/virt-7.2/max")
    atlas = Atlas(tuple(Entry(name, "{}") for name in names))
    words = {
        "6.13/neoverse-n1": "the atlas has no 6.13; its kernels: 6.12.1",
        "6.12/max": "of 6.12 the atlas has neoverse-n1, cortex-a72: write atlas:6.12/neoverse-n1",
        "6.12": "of 6.12 the atlas has neoverse-n1, cortex-a72: write atlas:6.12/neoverse-n1",
        "qemu-5.2/virt-5.2/max": "the atlas has no qemu-5.2; its QEMUs: 7.2.22",
        "qemu-7.2": "of qemu-7.2 the atlas has virt-7.2/max: write atlas:qemu-7.2/virt-7.2/max",
    }
    for text, said in words.items():
        with pytest.raises(UnknownEntry) as unknown:
            atlas.find(text)
        assert str(unknown.value) == f"atlas:{text}: {said}"


def test_an_entry_is_an_end_of_a_move() -> None:
    source, destination = (open_subject(f"atlas:{kernel}/{N1}") for kernel in ("6.12", "6.17"))
    policy = aggregate("virt-10.0", Accelerator.KVM)
    assert (
        judge(Move.between(source.end, destination.end), policy).answer is Answer.WORKS_WITH_POLICY
    )
    back = judge(Move.between(destination.end, source.end), policy)
    assert [one.name for one in back.decisions[0].refused] == ["PSCI_VERSION"]


def test_every_move_between_kernels_waits_for_no_more_than_a_word() -> None:
    """On real CPU models; what `max` has that older kernels do not give is for `plan`."""
    asking = aggregate("virt-7.2", Accelerator.KVM)
    told = asking.union(Policy(accepted=AcceptedRisk(guest_visible=True, lossy=True, breaks=True)))
    kernels = [entry for entry in read_atlas().kernels if entry.cpu != "max"]
    refused = set()
    for source, there in permutations(kernels, 2):
        if source.cpu != there.cpu:
            continue
        ran = replace(end_of(source.fingerprint), guest=True, at_reset=False)
        move = Move.between(ran, end_of(there.fingerprint))
        assert judge(move, told).answer is not Answer.FAILS, (source.name, there.name)
        refused |= set(judge(move, asking).decisions[0].refused)
    assert refused
    for one in refused:
        assert "; not done unless you name it (--accept-risk " in one.why
        if one.name == "CNTPCT_EL0":
            assert one.risk is Risk.LOSSY, one.why
        elif one.risk is Risk.BREAKS:
            # 64-bit event counters, on the one CPU of these that has them
            assert one.why.partition("; breaks a guest that uses ")[2][:7] in ("PMUVer;", "PerfMon")
        else:
            assert one.risk is Risk.GUEST_VISIBLE, one.why


def test_a_folder_is_packed_kernels_first_oldest_first(tmp_path: Path) -> None:
    for number, entry in enumerate(reversed(read_atlas().entries[-3:])):
        document = {"name": entry.name, "made": dict(entry.made), "fingerprint": entry.document}
        (tmp_path / f"{number}.json").write_text(json.dumps(document))
    assert len(pack(tmp_path)) > 100


def test_a_kernel_and_a_qemu_are_put_together() -> None:
    """Every kernel on every CPU with every QEMU that a lab host can have inside."""
    kernels = read_atlas().kernels
    for entry in kernels:
        for version in ("7.2.22", "10.0.2", "10.0.13", "11.1.3"):
            both = read_atlas().find(f"{entry.name}/qemu-{version}")
            assert both.name == f"{entry.name}/qemu-{version}"
            assert both.cpu == entry.cpu
            assert both.made["command"] == entry.made["command"]
            assert both.made["sections command"].startswith("armferry atlas record --kvm-qemus ")
            about = both.fingerprint.provenance
            assert (about.qemu, about.machine) == (version, "")
            assert about.kernel == f"{entry.release}-cloud-arm64"
            assert both.fingerprint.cpus == entry.fingerprint.cpus
            assert both.fingerprint.writable == entry.fingerprint.writable
            assert {device.name for device in both.fingerprint.devices} >= {"cpu", "timer"}
    assert len({(_series(entry.release), entry.cpu) for entry in kernels}) == len(SERIES) * 6
    with pytest.raises(UnknownEntry) as unknown:
        read_atlas().find(f"6.12/{N1}/qemu-9.0")
    assert str(unknown.value).startswith(f"atlas:qemu-9.0/kvm/{N1}: the atlas has no qemu-9.0; ")


def test_every_cpu_has_every_kernel() -> None:
    """A gap would be told as if the kernels around it were neighbours."""
    kernels = read_atlas().kernels
    for cpu in {entry.cpu for entry in kernels}:
        assert {_series(entry.release) for entry in kernels if entry.cpu == cpu} == set(SERIES)
