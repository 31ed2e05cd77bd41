"""`armferry fleet plan` on a store of hosts that the atlas recorded."""

import json
from pathlib import Path

import pytest

from armferry.cli.main import main
from armferry.hosts.report import ReportedGuest, dump_report

from ..fleet.hosts_of_atlas import guest, report


@pytest.fixture
def store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """Three hosts of 6.12, one of them empty, and one of 6.17."""
    guests: dict[str, tuple[ReportedGuest, ...]] = {
        "a1": (guest("g1"), guest("g2", memory=40 << 30)),
        "a2": (guest("g3"),),
        "a3": (),
        "b1": (guest("g4"),),
    }
    folder = tmp_path / "reports"
    folder.mkdir()
    for host, on in guests.items():
        kernel = "6.17" if host == "b1" else "6.12"
        text = dump_report(report(host, kernel, guests=on))
        (folder / f"{host}.json").write_text(text, encoding="utf-8")
    monkeypatch.setenv("ARMFERRY_FLEET", str(tmp_path / "fleet.sqlite"))
    assert main(["fleet", "import", str(folder)]) == 0
    capsys.readouterr()
    return tmp_path


def test_plan_is_made_shown_and_checked(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, picture, steps = store / "plan.json", store / "plan.svg", store / "plan.txt"
    outputs = ["-o", str(plan), "--svg", str(picture), "--runbook", str(steps)]
    assert main(["fleet", "plan", "--to", "kernel=6.17", *outputs]) == 0
    shown = capsys.readouterr().out
    assert "optimal: no plan costs less, in this order of preference" in shown
    assert "host b1, which runs 6.17.13+deb13-cloud-arm64 already" in shown
    document = json.loads(plan.read_text())
    assert document["cost"]["moves"] == 3
    assert document["cost"]["restarts"] == 0
    assert "TCR2_EL1 holds 0x0" in steps.read_text()
    assert picture.read_text().startswith("<svg")
    assert main(["fleet", "plan", "--check", str(plan)]) == 0
    assert "the plan holds: 6 steps" in capsys.readouterr().out
    assert main(["fleet", "plan", "--resume", str(plan), "--done", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cost"]["moves"] == 2
    document["waves"].pop()
    plan.write_text(json.dumps(document))
    assert main(["fleet", "plan", "--check", str(plan)]) == 2


def test_plan_without_a_fleet_is_checked_against_the_store(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waves = [{"steps": [["move", "g3 by name", "a2", "a3"]], "upgrades": ["a2"]}]
    plan = store / "mine.json"
    plan.write_text(json.dumps({"waves": waves}))
    assert main(["fleet", "plan", "--check", str(plan), "--to", "kernel=6.17"]) == 2
    assert "the plan ends with a1, a3 not upgraded" in capsys.readouterr().out
    assert main(["fleet", "plan", "--check", str(plan)]) == 3
    assert "say what it upgrades to: --to kernel=6.17" in capsys.readouterr().err


def test_target_is_of_the_atlas_where_no_host_has_it(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "plan", "--to", "kernel=7.3", "--wave", "2"]) == 0
    assert "atlas:7.3.4+deb13/neoverse-n1/qemu-10.0.13" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--to", "linux"], 3, "--to linux: write kernel=6.17, qemu=11.1, or both with a comma"),
        (["--to", "kernel=6.17", "--wave", "x"], 3, "--wave x: write a number of hosts"),
        (["--to", "kernel=9.9"], 3, "the atlas has no 9.9"),
        (["--to", "kernel=6.17", "--spare", "3"], 2, "3 spare hosts are to hold no guest, and 1"),
        (["--check", "/nowhere"], 4, "/nowhere: No such file or directory"),
    ],
)
def test_errors_are_named(
    store: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "plan", *words]) == code
    assert message in capsys.readouterr().err


def test_no_move_is_planned_that_depends_on_a_guest_where_that_is_asked(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "plan", "--to", "kernel=6.17", "--only-sure", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["cost"]["moves"] == 0
    assert document["cost"]["restarts"] == 3
    named = {group["what"]: group for group in document["guests_named"]}
    assert named["restart"]["guests"] == 3
    assert named["nowhere"]["names"] == ["g4 by name"]
