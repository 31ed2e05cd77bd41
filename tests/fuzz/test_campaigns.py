"""The campaigns of attack: a little of each in every run, all of it in the full one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = (
    "parser", "device-state", "readers", "identity", "edit", "session", "description",
    "save-image", "disk-image", "packed", "journal", "mapped-ram", "return-path", "policy",
    "fingerprint", "document", "report", "words", "command-line", "explanation", "domain",
    "monitor",
)  # fmt: skip


def campaign(*words: str) -> str:
    """What a campaign prints; it must find nothing."""
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_target_takes_what_was_found_before() -> None:
    lines = campaign("fuzz", "--seconds", "0", "--seed", "1").splitlines()
    ran = [line.split()[0] for line in lines if " inputs  0 findings" in line]
    assert ran == list(TARGETS)


def test_a_finding_is_one(tmp_path: Path) -> None:
    """The campaign's own alarm: a target that is wrong ends it with 1 and leaves the input."""
    program = (
        "import sys; import fuzz.__main__ as run; from fuzz.targets import TARGETS, Target;"
        "from pathlib import Path; run.FINDINGS = Path(sys.argv[1]);"
        "TARGETS['words'] = Target(lambda data: 1 // 0, lambda: [b'input']);"
        "sys.argv[1:] = ['words', '--seconds', '0']; sys.exit(run.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"input"]


@pytest.mark.parametrize("writer", ["hook install", "cache of the wrapper"])
def test_disk_faults_at_every_step(writer: str) -> None:
    said = campaign("fuzz.faults", writer)
    assert re.search(r"^\d+ faults \(.*\), 0 findings$", said, re.MULTILINE)


@pytest.mark.full
@pytest.mark.parametrize("target", TARGETS)
def test_a_minute_of_each_target(target: str) -> None:
    assert ", 0 findings" in campaign("fuzz", target, "--seconds", "60")


@pytest.mark.full
def test_disk_faults_of_every_writer() -> None:
    assert ", 0 findings" in campaign("fuzz.faults")


@pytest.mark.full
def test_a_thousand_moves() -> None:
    assert ", 0 findings" in campaign("fuzz.soak", "--moves", "1000")


@pytest.mark.full
@pytest.mark.qemu
@pytest.mark.parametrize("words", [[], ["--wrapped"]], ids=["gateway", "wrapper"])
def test_two_hundred_live_moves(words: list[str]) -> None:
    assert "\n0 findings" in campaign("fuzz.live", "--moves", "200", *words)
