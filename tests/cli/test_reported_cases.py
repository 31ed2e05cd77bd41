"""Moves that people reported and that were once answered wrongly; cases/README.md names them."""

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).parent / "cases"

Armferry = Callable[..., Any]


@pytest.fixture
def case(tmp_path: Path) -> Callable[[str], Path]:
    """A function from `folder/file` to the unpacked file."""

    def unpacked(name: str) -> Path:
        target = tmp_path / Path(name).name
        target.write_bytes(lzma.decompress((CASES / f"{name}.xz").read_bytes()))
        return target

    return unpacked


def verdict(armferry: Armferry, *words: object) -> dict[str, Any]:
    done = armferry("check", *words, "--json")
    document: dict[str, Any] = json.loads(done.out)
    codes = {"works": 0, "works-with-policy": 1, "fails": 2}
    assert done.code == codes[document["verdict"]]
    return document


def test_memory_that_was_not_recorded_is_said(
    armferry: Armferry, case: Callable[[str], Path]
) -> None:
    there = case("ram-guest-memory/m128.json")
    said = verdict(armferry, case("ram-guest-memory/a57-10.0.13.st"), "--to", there)
    note = f"not compared, for it was not recorded: the memory blocks ({there})"
    assert note in said["warnings"]
    (unknown,) = [one for one in said["circumstances"] if one["effect"] == "unknown"]
    assert unknown["why"] == note
    told = armferry("check", "a57-10.0.13.st", "--to", "m128.json", "--quiet").out
    assert told == "works as it is, risk none in what was compared\n"


def test_tag_memory_that_only_the_guest_has(
    armferry: Armferry, case: Callable[[str], Path], tmp_path: Path
) -> None:
    here, there = case("ram-mte-tag/mte.a"), case("ram-mte-tag/mte.b")
    move = (here, "--to", there, "--destination-qemu", "10.0.13")
    said = verdict(armferry, *move)
    assert said["verdict"] == "fails"
    assert said["obstacles"] == [
        (
            "memory block mach-virt.tag (2 MiB, memory tags) is not on the destination: the guest "
            "was started with mte=on: start the destination with -machine mte=on; if the guest "
            "never touched it, armferry ferry --leave-out mach-virt.tag"
        )
    ]
    assert said["stock"]["message"] == (
        'Unknown ramblock "mach-virt.tag", cannot accept migration\n'
        "error while loading state for instance 0x0 of device 'ram'\n"
        "load of migration failed: Invalid argument"
    )
    assert "next:" not in armferry("check", *move).out  # no plan helps
    assert armferry("plan", *move, "-o", "p.toml").code == 2
    assert armferry("ferry", here, "out", *move[1:], "--policy", "p.toml").code == 2
    assert not (tmp_path / "out").exists()


def test_tag_memory_that_nobody_touched_is_left_out_when_asked(
    armferry: Armferry, case: Callable[[str], Path], tmp_path: Path
) -> None:
    here, there = case("ram-mte-tag/mte.a"), case("ram-mte-tag/mte.b")
    armferry("plan", here, "--to", there, "-o", "p.toml")
    words = ("ferry", here, "out", "--to", there, "--policy", "p.toml")
    assert armferry(*words).code == 2  # only when asked
    done = json.loads(armferry(*words, "--leave-out", "mach-virt.tag", "--json").out)
    assert done["left_out"] == ["mach-virt.tag"]
    assert verdict(armferry, tmp_path / "out", "--to", there)["verdict"] == "works"
    refused = armferry(*words, "--leave-out", "mach-virt.ram")
    assert refused.code == 3
    assert "mach-virt.ram (the board's memory) is not left out" in refused.err
    assert {one.name for one in tmp_path.iterdir()} == {"mte.a", "mte.b", "p.toml", "out"}


def test_page_of_stolen_time_of_another_size(
    armferry: Armferry, case: Callable[[str], Path]
) -> None:
    here, there = case("ram-page-size/pv4k.mig"), case("ram-page-size/pv16k.mig")
    said = verdict(armferry, here, "--to", there, "--destination-qemu", "11.1.3")
    assert said["obstacles"] == [
        (
            "memory block pvtime (KVM's stolen-time page) has 4 KiB here, 16 KiB on the "
            "destination: the hosts' kernels have pages of 4 KiB and 16 KiB; move the guest to a "
            "host whose kernel has the same page size, or start it with -cpu "
            "host,kvm-steal-time=off on both"
        )
    ]
    assert said["stock"]["message"].startswith(
        "Size mismatch: pvtime: 0x1000 != 0x4000: Invalid argument\n"
    )


@pytest.mark.parametrize(
    ("qemu", "message"),
    [
        (
            "10.0.13",
            (
                "Machine type received is 'virt-9.2' and local is 'virt-10.0'\n"
                "load of migration failed: Invalid argument"
            ),
        ),
        (
            "11.1.3",
            (
                "load of migration failed: Invalid argument: post load hook failed for: "
                "configuration, version_id: 1, minimum_version: 0: Machine type received is "
                "'virt-9.2' and local is 'virt-10.0'"
            ),
        ),
    ],
)
def test_stock_qemu_compares_the_machine_type(
    armferry: Armferry, case: Callable[[str], Path], qemu: str, message: str
) -> None:
    here, there = case("machine-type-stock/mtype.a"), case("machine-type-stock/mtype.b")
    said = verdict(armferry, here, "--to", there, "--destination-qemu", qemu)
    assert said["stock"]["verdict"] == "fails"
    assert said["stock"]["message"] == message


def test_another_accelerator_is_one_sentence(
    armferry: Armferry, case: Callable[[str], Path], tmp_path: Path
) -> None:
    here = case("cross-accelerator/tcg-a72.st")
    for source, target in ((here, "atlas:6.12/cortex-a72"), ("atlas:6.12/cortex-a72", here)):
        said = verdict(armferry, source, "--to", target)
        assert (said["verdict"], said["registers"], said["warnings"]) == ("fails", [], [])
        (only,) = said["obstacles"]
        assert only.startswith(f"{source} was made under {'TCG' if source == here else 'KVM'}, ")
        plan = armferry("plan", source, "--to", target, "--json")
        assert plan.code == 2
        assert json.loads(plan.out)["entries"] == []
    assert armferry("ferry", here, "out", "--to", "atlas:6.12/cortex-a72").code == 2
    assert not (tmp_path / "out").exists()


def test_host_whose_kvm_has_no_gic_v3(armferry: Armferry, case: Callable[[str], Path]) -> None:
    here, there = (
        case("gicv3-guest-gicv2-host/rk3588.mig"),
        case("gicv3-guest-gicv2-host/rpi5.json"),
    )
    policy = ("--tolerate", "MIDR_EL1: take destination's", "--accept-risk", "guest-visible")
    said = verdict(armferry, here, "--to", there, *policy)
    assert said["verdict"] == "fails"
    assert said["obstacles"] == [
        (
            f"the guest has a GICv3 (-machine gic-version=3), the KVM of {there} cannot give one, "
            "only GICv2: move the guest to a host whose interrupt controller is a GICv3"
        )
    ]


def test_two_cpus_go_by_their_names(armferry: Armferry, case: Callable[[str], Path]) -> None:
    here, there = case("midr-names/ampereone-ran.mig"), case("midr-names/altra.mig")
    said = verdict(armferry, here, "--to", there)
    assert said["warnings"][0].startswith(
        "two different CPUs: Ampere AmpereOne r0p1 -> Arm Neoverse N1 r3p1. "
    )
    (midr,) = [one for one in said["registers"] if one["name"] == "MIDR_EL1"]
    assert midr["why"].endswith(": Ampere AmpereOne r0p1 -> Arm Neoverse N1 r3p1")


def test_document_of_firecracker_is_a_register_list(
    armferry: Armferry, case: Callable[[str], Path]
) -> None:
    there = case("firecracker-json/fc.json")
    said = verdict(armferry, case("ram-page-size/pv4k.mig"), "--to", there)
    assert said["verdict"] == "fails"  # it lists one register, the guest 258
    assert f"registers that {there} leaves out, if any" in said["warnings"][-1]
    shown = json.loads(armferry("inspect", there, "--json").out)
    assert (shown["accelerator"], shown["kernel"]) == ("kvm", "6.1.0")
    (only,) = shown["cpus"][0]["registers"]
    assert (only["name"], only["value"]) == ("TCR2_EL1", "0x0")


def test_machine_type_of_a_distribution_is_decided(
    armferry: Armferry, case: Callable[[str], Path]
) -> None:
    here, there = case("distro-machine/rhel-6.12-ran.mig"), case("distro-machine/rhel-6.17.mig")
    said = verdict(armferry, here, "--to", there)
    assert (said["verdict"], said["risk"]) == ("works-with-policy", "lossless")
    assert {one["class"] for one in said["registers"]} == {
        "tolerated, only incoming",
        "hidden",
    }


def test_difference_of_memory_is_shown(armferry: Armferry, case: Callable[[str], Path]) -> None:
    here, there = case("ram-page-size/pv4k.mig"), case("ram-page-size/pv16k.mig")
    assert "0 differences, 1 in guest memory" in armferry("diff", here, there).out
    said = json.loads(armferry("diff", here, there, "--json").out)
    assert said["memory"] == [
        {"block": "pvtime", "difference": "size", "a": 4096, "b": 16384},
    ]


def test_compressed_state_is_read_as_it_is(
    armferry: Armferry, case: Callable[[str], Path], tmp_path: Path
) -> None:
    plain = case("ram-guest-memory/a57-10.0.13.st")
    packed = tmp_path / "state.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert "compressed with gzip" in armferry("inspect", packed).out
    assert verdict(armferry, packed, "--to", plain)["verdict"] == "works"


LOG = """\
2021-09-18T11:14:14.456227Z qemu-system-aarch64: Invalid value 236 expecting positive value <= 162
2021-09-18T11:14:14.456269Z qemu-system-aarch64: Failed to load cpu:cpreg_vmstate_array_len
"""


def test_log_in_the_place_of_a_state(armferry: Armferry, tmp_path: Path) -> None:
    (tmp_path / "qemu.log").write_text(LOG)
    said = armferry("inspect", "qemu.log")
    assert said.code == 3
    assert said.err.endswith("; what the lines of a log mean is what armferry explain says\n")
    told = armferry("explain", "qemu.log").out
    assert "At least 74 are too many" in told
    assert "next: armferry check STATE --to DEST" in told


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("0x1013c030", "ID_AA64ISAR0_EL1"),
        ("op0:3 op1:0 crn:2 crm:0 op2:3", "TCR2_EL1"),
        ("fw reg 0", "PSCI_VERSION"),
        ("KVM_REG_ARM_PSCI_VERSION", "PSCI_VERSION"),
        ("SYS_TCR2_EL1", "TCR2_EL1"),
        ("DBGDTRTX", "DBGDTRTX"),
        ("CCSIDR", "CCSIDR"),
    ],
)
def test_atlas_knows_every_spelling_and_an_entry_for_it(
    armferry: Armferry, spelling: str, name: str
) -> None:
    said = json.loads(armferry("atlas", "why", spelling, "--json").out)
    assert said["name"] == name
    listed = [one for one in said["spans"] + said["tcg_spans"] if one["value"] is not None]
    assert listed or len(said["members"]) == 14


def test_hvf_is_a_word_of_its_own(armferry: Armferry) -> None:
    words = ("fingerprint", "qemu", "--machine", "virt-10.0", "--cpu", "host", "--accel", "hvf")
    said = armferry(*words, "--qemu", "/nowhere/qemu")
    assert said.code == 4  # there is no such QEMU, and the accelerator is no bad usage
    assert "invalid choice" not in said.err


def test_list_of_others_takes_the_settable_fields_of_a_kernel(
    armferry: Armferry, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(
        "# what somebody read\nMIDR_EL1 0x413fd0c1\nPSCI_VERSION = 0x10001\n"
        "0x603000000013c020: 0x1100000011110112\n"
    )
    words = ("fingerprint", "stream", "list.txt", "--masks-from")
    made = json.loads(armferry(*words, "atlas:6.12/neoverse-n1").out)
    assert made["provenance"]["how"] == "list"
    assert made["cpus"][0]["registers"]["0x603000000013c000"] == "0x413fd0c1"
    assert "0x603000000013c020" in made["writable"]
    old = armferry(*words, "5.10/neoverse-n1")
    assert old.code == 3
    assert "does not say which fields may be set" in old.err
