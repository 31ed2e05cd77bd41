"""`armferry plan` as a person types it, on recorded guests of QEMU 10.0.2 and 11.1.3."""

import json
import lzma
import shlex
import subprocess
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


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "{old}", "--to", "{new}", "-o", "{kept}"),
        ("fingerprint", "stream", "{old}", "-o", "{kept}"),
        ("check", "{old}", "--to", "{new}", "--trace", "{kept}"),
    ],
)
@pytest.mark.parametrize("begin", [b"QEVM", b"LibvirtQemudSave", b"\x1f\x8b\x08"])
def test_no_document_replaces_a_saved_guest(
    words: tuple[str, ...],
    begin: bytes,
    guests: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = tmp_path / "kept"
    content = begin + bytes(100)
    kept.write_bytes(content)
    places = {"old": guests[0], "new": guests[1], "kept": str(kept)}
    assert main([word.format(**places) for word in words]) == 3
    what = "something compressed" if begin == b"\x1f\x8b\x08" else "a saved guest"
    said = f"armferry: {kept}: holds {what}, which would be lost; name another file\n"
    assert capsys.readouterr() == ("", said)
    assert kept.read_bytes() == content


def test_in_and_out_are_two_files(
    guests: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "guest.state"
    state.write_bytes(Path(guests[0]).read_bytes())
    link = tmp_path / "link"
    link.symlink_to(state)
    for out in (state, link):
        assert main(["ferry", str(state), str(out), "--to", guests[1]]) == 3
        assert capsys.readouterr().err == (
            f"armferry: {out}: IN and OUT are the same file; use --in-place, which keeps a "
            "journal\n"
        )
    assert state.read_bytes() == Path(guests[0]).read_bytes()


def test_command_that_loads_the_state_can_be_pasted(
    guests: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "it's new"
    assert main(["ferry", guests[1], str(out), "--to", guests[0]]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    _, _, _, option, uri = shlex.split(last)
    assert (option, uri[:5]) == ("-incoming", "exec:")
    loaded = subprocess.run(uri[5:], shell=True, capture_output=True, check=True)
    assert loaded.stdout == out.read_bytes()


def test_levels_of_an_unknown_machine_type_are_told_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends = ("atlas:6.17/neoverse-n1", "--to", "atlas:6.12/neoverse-n1")
    note = (
        "note: neither end names a machine type, so the levels of no version of virt were applied; "
        "--machine virt-10.0 applies those of that version\n"
    )
    for verb in ("check", "plan"):
        main([verb, *ends])
        assert note in capsys.readouterr().out
        main([verb, *ends, "--machine", "virt-10.0"])
        assert note not in capsys.readouterr().out
