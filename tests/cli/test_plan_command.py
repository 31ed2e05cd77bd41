"""`armferry plan` as a person types it, on recorded guests of QEMU 10.0.2 and 11.1.3."""

import json
import lzma
from pathlib import Path

import pytest

from armferry.cli.main import main

DATA = Path(__file__).parents[1] / "stream" / "data"
ENTRY = (
    "# from armferry plan\n"
    "[[entry]]\n"
    'register = "0x603000000013c030"  # ID_AA64ISAR0_EL1\n'
    'action = "only-source-if-reset 0x11120"\n'
    'reason = "the destination does not know it; the guest never ran (risk lossless)"\n'
)
PROSE = (
    "  ID_AA64ISAR0_EL1 (0x603000000013c030): only-source-if-reset 0x11120\n"
    "    the destination does not know it; the guest never ran (risk lossless)"
)


@pytest.fixture(scope="module")
def guests(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("guests")
    names = []
    for name in ("tcg_10.0.2_virt-10.0_cortex-a57_1", "tcg_11.1.3_virt-10.0_cortex-a57_1"):
        path = folder / name
        path.write_bytes(lzma.decompress((DATA / f"{name}.mig.xz").read_bytes()))
        names.append(str(path))
    return names[0], names[1]


def test_for_a_person(guests: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    old, new = guests
    assert main(["plan", old, "--to", new]) == 1
    assert capsys.readouterr().out == (
        f"{old} needs one permission to move to {new}, risk lossless:\n{PROSE}\n\n"
        "armferry-qemu on the destination\n"
        "-global arm-cpu.x-mig-safe-missing-regs=0x603000000013c030\n\n"
        "For a machine type's compat properties\n"
        '{ "arm-cpu", "x-mig-safe-missing-regs",\n  "0x603000000013c030" },\n\n'
        f"next: armferry plan {old} --to {new} -o POLICY\n"
    )


def test_policy_gives_the_promised_verdict(
    guests: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = guests
    policy = tmp_path / "policy.toml"
    assert main(["check", old, "--to", new]) == 2
    assert main(["plan", old, "--to", new, "-o", str(policy), "--json"]) == 1
    assert policy.read_text() == ENTRY
    capsys.readouterr()
    assert main(["check", old, "--to", new, "--policy", str(policy), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["risk"] == "lossless"


def test_policy_alone(guests: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", guests[0], "--to", guests[1], "-o", "-"]) == 1
    assert capsys.readouterr().out == ENTRY


def test_both_ways(guests: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    old, new = guests
    assert main(["plan", old, "--to", new, "--both-ways"]) == 1
    out = capsys.readouterr().out
    assert (
        f"{new} moves to {old} with armferry, and nothing more need be allowed, risk lossless.\n"
    ) in out


def test_as_a_document(guests: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    old, new = guests
    words = ["plan", old, "--to", new, "--both-ways", "--json"]
    assert main([*words, "--destination-qemu", "11.1.3"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "works-with-policy"
    assert document["stock"]["verdict"] == "fails"
    assert document["stock"]["class"] == "registers refused"
    # what guests of 11.1.3 read there was measured, and it is the same
    assert document["entries"] == []
    assert main(words) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["entries"] == [
        {
            "index": "0x603000000013c030",
            "name": "ID_AA64ISAR0_EL1",
            "action": "only-source-if-reset 0x11120",
            "risk": "lossless",
            "reason": "the destination does not know it; the guest never ran (risk lossless)",
        }
    ]
    assert document["policy"] == ENTRY
    assert document["back"]["stock"]["verdict"] == "unknown"
    assert document["back"]["entries"] == []
    assert [one["subject"] for one in document["back"]["sections"]] == ["cpu/wfxt-timer"]
