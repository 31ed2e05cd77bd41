"""`armferry explain`, as it is typed."""

import io
import json
from pathlib import Path

import pytest

from armferry.cli.main import main

LOG = """\
2021-09-18T11:14:14.456227Z qemu-system-aarch64: Invalid value 236 expecting positive value <= 162
2021-09-18T11:14:14.456269Z qemu-system-aarch64: Failed to load cpu:cpreg_vmstate_array_len
char device redirected to /dev/pts/1 (label charserial0)
2021-09-18T11:14:14.456279Z qemu: error while loading state for instance 0x0 of device 'cpu'
2021-09-18T11:14:14.456887Z qemu-system-aarch64: load of migration failed: Invalid argument
"""
NAMES = ["register-list-too-long", "register-list-field", "cpu-not-loaded", "load-failed"]


def test_a_log_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "guest.log"
    log.write_text(LOG)
    assert main(["explain", str(log)]) == 0
    said = capsys.readouterr().out
    assert "236 CPU registers and this QEMU knows 162 of them" in said
    assert "At least 74 are too many" in said
    assert said.endswith(
        "\nnext: armferry check STATE --to DEST\n      armferry ferry STATE OUT --to DEST\n"
    )


def test_standard_input_and_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(LOG + LOG))
    assert main(["explain", "-", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [line["name"] for line in document["lines"]] == NAMES
    assert {line["count"] for line in document["lines"]} == {2}


def test_a_line_without_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    line = "qemu: Could not set register fw reg 0 to 10003 (is 10001)"
    assert main(["explain", *line.split()]) == 0
    assert "PSCI 1.3), the host 0x10001 (PSCI 1.1)" in capsys.readouterr().out
    assert main(["explain", line, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["lines"][0]["register"] == {
        "index": "0x6030000000140000",
        "name": "PSCI_VERSION",
    }


def test_a_log_that_was_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", LOG]) == 0
    assert capsys.readouterr().out.count("2021-09-18T11") == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("good morning", "armferry: 'good morning': nothing that armferry knows: "),
        ("TCR2", "nor a register (did you mean TCR2_EL1 or "),
        ("x" * 5000, f"armferry: '{'x' * 80}...': nothing"),
        ("0x10003", "armferry: '0x10003': nothing that armferry knows"),
        ("\0", "armferry: "),
    ],
)
def test_what_nobody_can_explain(
    text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", text]) == 3
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_a_file_that_is_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)) * 1000)
    assert main(["explain", str(binary)]) == 3
    assert "nothing that armferry knows" in capsys.readouterr().err
    assert main(["explain", str(tmp_path)]) == 3
