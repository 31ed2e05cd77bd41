"""What nobody expected: one line, an exit code of its own, a traceback only on request; and
numbers of thousands of digits, which are bad input and nothing unexpected."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from armferry.cli import atlas
from armferry.cli.main import main
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.wrapper import start

LONG = "9" * 5_000
CURRENT, OLD = "atlas:6.17/neoverse-n1", "atlas:6.12/neoverse-n1"


def _fail(arguments: argparse.Namespace) -> int:
    raise IndexError("list index\nout of range")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that fails as no command should."""
    monkeypatch.setattr(atlas, "run_list", _fail)


@pytest.mark.usefixtures("failing")
def test_an_unforeseen_error_is_one_line_with_a_code_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["atlas", "list"]) == 5
    assert capsys.readouterr().err == (
        "armferry: unforeseen: IndexError: list index out of range; please report it with what "
        "this prints: armferry --debug atlas list\n"
    )


@pytest.mark.usefixtures("failing")
def test_debug_shows_where_it_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "atlas", "list"]) == 5
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any("_fail" in line for line in lines)
    assert lines[-1].endswith("please report it with the lines above")


def test_debug_changes_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "atlas", "why", "TCR2_EL1"]) == 0
    with_it = capsys.readouterr()
    assert main(["atlas", "why", "TCR2_EL1"]) == 0
    assert with_it == capsys.readouterr()


def test_help_names_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "5 an error that armferry did not expect" in " ".join(capsys.readouterr().out.split())


def test_the_wrapper_ends_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(program: str, words: list[str]) -> int:
        raise KeyError("id")

    monkeypatch.setenv("ARMFERRY_QEMU", sys.executable)
    monkeypatch.setattr(start, "_wrapped", fail)
    monkeypatch.delenv("ARMFERRY_DEBUG", raising=False)
    assert start.main(["-M", "virt"]) == 5
    assert capsys.readouterr().err == (
        "armferry-qemu: unforeseen: KeyError: 'id'; please report it with what it prints when "
        "ARMFERRY_DEBUG=1 is in its environment\n"
    )
    monkeypatch.setenv("ARMFERRY_DEBUG", "1")
    assert start.main(["-M", "virt"]) == 5
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["atlas", "why", LONG],
        ["atlas", "why", f"S3_0_C2_C0_{LONG}"],
        ["atlas", "why", f"p15,0,c{LONG},c0,0"],
        ["atlas", "why", f"fw:{LONG}"],
        ["atlas", "why", f"core:{LONG}:64"],
        ["check", OLD, "--to", CURRENT, "--tolerate", f"TCR2_EL1: only-source-if-reset {LONG}"],
        ["check", OLD, "--to", CURRENT, "--tolerate", f"TCR2_EL1: differ-in-mask {LONG}"],
        ["check", OLD, "--to", CURRENT, "--hidden-regs", LONG],
        ["check", OLD, "--to", CURRENT, "--hidden-regs", f"S3_0_C2_C0_{LONG}"],
        ["check", OLD, "--to", CURRENT, "--hidden-regs", f"1-{LONG}"],
        ["check", OLD, "--to", CURRENT, "--kvm-psci-version", f"1.{LONG}"],
        ["gateway", "--listen", f"tcp:h:{LONG}", "--connect", "unix:x", "--to", CURRENT],
        ["gateway", "--listen", f"fd:{LONG}", "--connect", "unix:x", "--to", CURRENT],
        ["gateway", "--state-limit", LONG, "--listen", "unix:x", "--connect", "y", "--to", CURRENT],
        ["migrate", "--source", f"tcp:h:{LONG}", "--destination", "unix:x"],
        ["migrate", "--source", "tcp:h:70000", "--destination", "unix:x"],
        ["fingerprint", "qemu", "--machine", "virt", "--cpu", "max", "--smp", LONG],
    ],
    ids=lambda words: " ".join(words).replace(LONG, "LONG").replace("--to " + CURRENT, "--to X"),
)
def test_numbers_without_end_are_bad_input(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(words)
    except SystemExit as ended:
        code = ended.code
    assert code == 3
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "unforeseen" not in said[0]


@pytest.mark.parametrize(
    "text",
    [f"hidden = [{LONG}]", f'hidden = ["{LONG}"]', f'kvm-psci-version = "1.{LONG}"'],
)
def test_policy_files_with_numbers_without_end(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    assert main(["check", OLD, "--to", CURRENT, "--policy", str(path)]) == 3
    assert "unforeseen" not in capsys.readouterr().err


def test_missing_permission_is_said_without_python(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(arguments: argparse.Namespace) -> int:
        (tmp_path / "not there").read_bytes()
        return 0

    monkeypatch.setattr(atlas, "run_list", refused)
    assert main(["atlas", "list"]) == 4
    assert capsys.readouterr().err == (
        f"armferry: {tmp_path}/not there: No such file or directory\n"
    )


def _extra_section(document: dict[str, Any]) -> None:
    cpu = next(one for one in document["devices"] if one["name"] == "cpu")
    document["devices"].append({**cpu, "instance": 7})


def _negative_section(document: dict[str, Any]) -> None:
    next(one for one in document["devices"] if one["name"] == "cpu")["instance"] = -1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_extra_section, "a section of vCPU 7, and 1 vCPUs"),
        (_negative_section, "a section of vCPU -1, and 1 vCPUs"),
        (
            lambda document: document["provenance"].update(qemu=LONG),
            "qemu has 5000 characters, more than 1000",
        ),
        (
            lambda document: document["cpus"][0]["registers"].update({f"0x{LONG}": "0x1"}),
            "a number of 5002 digits",
        ),
        (lambda document: document.update(features=f"0x{LONG}"), "a number of 5002 digits"),
    ],
    ids=["more vCPUs", "negative vCPU", "version", "index", "features"],
)
def test_crafted_fingerprints_are_refused_by_name(
    change: Callable[[dict[str, Any]], None],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = "qemu-10.0.13/virt-10.0/cortex-a57"
    document = json.loads(json.dumps(read_atlas().find(entry).document))
    change(document)
    path = tmp_path / "crafted.json"
    path.write_text(json.dumps(document))
    for words in (
        ["check", str(path), "--to", f"atlas:{entry}"],
        ["check", f"atlas:{entry}", "--to", str(path)],
        ["plan", str(path), "--to", f"atlas:{entry}"],
        ["inspect", str(path)],
        ["diff", str(path), f"atlas:{entry}"],
    ):
        assert main(words) == 3
        assert capsys.readouterr().err == f"armferry: {path}: malformed fingerprint: {said}\n"
