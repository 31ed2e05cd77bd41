"""`armferry atlas`, and the command line as a whole: what is said, and how little is loaded."""

import json
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from armferry.cli.judgement import Report
from armferry.cli.main import main
from armferry.decide import judge
from armferry.ends import Move
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.hosts.fingerprints.kvm import Preflight
from armferry.hosts.fingerprints.subject import Subject
from armferry.policy import EMPTY


def _run(*words: str) -> int:
    return main(list(words))


def test_why_tells_history_and_condition(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("atlas", "why", "TCR2_EL1") == 0
    told = capsys.readouterr().out
    assert told.startswith("TCR2_EL1 (0x603000000013c103), translation\n")
    assert (
        "condition: from 6.13 on it is there only where ID_AA64MMFR3_EL1.TCRX is not 0; "
        "kernels from 6.5 to 6.12 have it on every CPU\n" in told
    )


def test_why_says_what_a_value_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("atlas", "why", "PSCI_VERSION") == 0
    told = capsys.readouterr().out
    for line in ("5.10.0-32: 0x10000 (PSCI 1.0)", "0x10001 (PSCI 1.1)", "0x10003 (PSCI 1.3)"):
        assert line in told
    assert _run("atlas", "why", "PSCI_VERSION", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["index"] == "0x6030000000140000"
    assert document["condition"] is None
    spans = [span for span in document["spans"] if span["cpu"] == "neoverse-n1"]
    assert [span["value"] for span in spans] == ["0x10000", "0x10001", "0x10003"]
    assert spans[0]["before"] == ""


def test_of_a_counter_only_its_presence_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("atlas", "why", "CNTPCT_EL0") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1].startswith("under KVM: Linux on cortex-a72, ")
    absent, present = told[2:4]
    assert absent.startswith("  5.10.0-")
    assert absent.endswith(": not there")
    assert present.startswith("  6.12.")
    assert present.endswith(": there, and runs on")
    before, first = absent.split()[2].strip(":"), present.split()[0]
    ends = f"{before}/cortex-a72 {first}/cortex-a72"
    assert told[-2:] == ["", f"next: armferry atlas diff {ends}"]


def test_difference_of_versions_and_counters_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("atlas", "diff", "6.12/neoverse-n1", "6.17/neoverse-n1") == 0
    told = capsys.readouterr().out
    row = {line.split()[0]: line for line in told.splitlines() if line.strip()}
    assert row["PSCI_VERSION"].endswith("0x10001     0x10003     PSCI 1.1 -> PSCI 1.3")
    assert row["CNTPCT_EL0"].endswith("  runs on")


def test_a_register_that_only_one_qemu_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("atlas", "why", "DBGDTRTX") == 0
    assert capsys.readouterr().out.splitlines()[:5] == [
        "DBGDTRTX (0x40200000200e0298), debug",
        "no kernel of the atlas lists it",
        "under TCG: QEMU with cortex-a57, cortex-a72, max:",
        "  5.2.0 to 7.2.22: not there",
        "  10.0.2: 0x0",
    ]
    assert _run("atlas", "why", "DBGDTRTX", "--json") == 0
    spans = json.loads(capsys.readouterr().out)["tcg_spans"]
    assert {span["first"] for span in spans if span["value"]} == {"10.0.2"}


def test_a_register_that_no_qemu_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("atlas", "why", "KVM_REG_ARM_PSCI_VERSION") == 0
    assert "\nno QEMU of the atlas lists it\n" in capsys.readouterr().out


def test_a_list_under_tcg_does_not_hang_on_the_machine_type() -> None:
    lists: dict[tuple[str, str], set[frozenset[str]]] = {}
    for entry in read_atlas().entries:
        if not entry.under_kvm:
            found = frozenset(entry.document["cpus"][0]["registers"])
            lists.setdefault((entry.release, entry.cpu), set()).add(found)
    assert len(lists) > 20
    assert all(len(one) == 1 for one in lists.values())
    assert len(read_atlas().emulated) == len(lists)


@pytest.mark.parametrize("text", ["6.12", "atlas:6.12/neoverse-n1", "6.12/neo"])
def test_a_list_of_some_entries(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("atlas", "list", text, "--json") == 0
    names = [entry["name"] for entry in json.loads(capsys.readouterr().out)["entries"]]
    assert names
    assert all(name.startswith("6.12") for name in names)
    assert _run("atlas", "list", "4.19") == 3
    assert "no entry with a part that begins '4.19'" in capsys.readouterr().err


def test_an_entry_as_the_list_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    ends = ("atlas:6.12/neoverse-n1", "atlas:6.17/neoverse-n1")
    assert _run("atlas", "show", ends[0]) == 0
    assert _run("atlas", "diff", *ends) == 0
    assert "Only in A: 3\n" in capsys.readouterr().out
    assert _run("atlas", "show", "atlas:4.19/max") == 3
    assert capsys.readouterr().err.startswith("armferry: atlas:4.19/max: the atlas has no 4.19")


def test_an_entry_says_how_to_make_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("atlas", "show", "6.17/neoverse-n1") == 0
    told = capsys.readouterr().out
    assert "hardware   Arm Neoverse N1 r4p1\n" in told
    assert "command    armferry atlas record --kernels 6.17." in told
    assert _run("atlas", "list", "--json") == 0
    names = [entry["name"] for entry in json.loads(capsys.readouterr().out)["entries"]]
    assert "qemu-10.0.13/virt-10.0/cortex-a57" in names


def test_entries_stand_wherever_an_end_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("atlas", "diff", "6.12/neoverse-n1", "6.17/neoverse-n1") == 0
    told = capsys.readouterr().out
    assert "Only in A: 3\n" in told
    assert "Only in B: 1\n" in told
    ends = ("atlas:6.17/neoverse-n1", "--to", "atlas:6.12/neoverse-n1", "--json")
    assert _run("check", *ends) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["preflight"] is None
    refused = [r["name"] for r in document["registers"] if r["class"] == "value refused"]
    assert "PSCI_VERSION" in refused


def test_an_unknown_entry_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("inspect", "atlas:4.19/neoverse-n1") == 3
    said = capsys.readouterr().err
    assert said.startswith("armferry: atlas:4.19/neoverse-n1: the atlas has no 4.19; its kernels: ")


def test_a_kernel_that_was_asked_needs_no_record_of_every_vcpu() -> None:
    fingerprint = read_atlas().find("6.12/neoverse-n1").fingerprint
    there = Subject("kvm:", fingerprint, None)
    guest = Subject("guest", replace(fingerprint, cpus=fingerprint.cpus * 2), None)
    verdict = judge(Move.between(guest.end, there.end), EMPTY)
    unasked = Report(guest, there, EMPTY, verdict)
    assert [note for note in unasked.warnings if "--smp 2" in note]
    asked = replace(unasked, kernel=Preflight("6.12", ()))
    assert not [note for note in asked.warnings if "--smp" in note]


def test_kvm_elsewhere_is_a_clear_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert _run("check", "atlas:6.17/neoverse-n1", "--to", "kvm:") == 4
    assert "arm64 KVM is only on aarch64" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--version"], ["json", "dataclasses", "armferry.registers"]),
        (["fingerprint", "kvm"], ["armferry.decide", "armferry.stream", "armferry.policy"]),
        (
            ["check", "atlas:6.12/neoverse-n1", "--to", "atlas:6.17/neoverse-n1"],
            ["ctypes", "subprocess", "armferry.stream.events", "armferry.hosts.files.journal"],
        ),
    ],
)
def test_a_command_loads_only_what_it_needs(words: list[str], absent: list[str]) -> None:
    script = (
        "import sys\n"
        "from armferry.cli.main import main\n"
        "try:\n"
        f"    main({words!r})\n"
        "finally:\n"
        "    print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = done.stderr.splitlines()[-1].split()
    assert "armferry.cli.main" in loaded
    assert not set(absent) & set(loaded)


def test_a_fingerprint_is_written_without_the_decision(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from armferry.cli.main import main\n"
        "from armferry.hosts.fingerprints import from_kvm as kvm_fingerprint, kvm\n"
        "from armferry.hosts.fingerprints.atlas import read_atlas\n"
        "found = read_atlas().find('6.12/neoverse-n1').fingerprint\n"
        "kvm.ask = lambda nested: None\n"
        "kvm_fingerprint.fingerprint_of_kvm = lambda host: found\n"
        f"code = main(['fingerprint', 'kvm', '-o', '{tmp_path}/host.json'])\n"
        "print(code, *sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    code, *loaded = done.stderr.split()
    assert code == "0", done.stderr
    assert json.loads((tmp_path / "host.json").read_text())["format"] == "armferry-fingerprint"
    assert not {"armferry.decide", "armferry.policy"} & set(loaded)


def test_the_list_of_commands_loads_none_of_them() -> None:
    script = (
        "import sys\n"
        "from armferry.cli.parser import make_parser\n"
        "make_parser(None).format_help()\n"
        "print(*(name for name in sys.modules if name.startswith('armferry.cli.')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["armferry.cli.parser"]
