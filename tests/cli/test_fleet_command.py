"""`armferry fleet` as its users run it, on a folder of reports of real kernels."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from armferry.cli.main import main
from armferry.hosts.report import dump_report

from ..fleet.hosts_of_atlas import guest, report

DOCS = Path(__file__).parents[2] / "docs" / "json.md"


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Four hosts in a folder."""
    hosts = (
        report("a1", "6.12", guests=(guest("fine"),), site="north"),
        report("a2", "6.12", site="south"),
        report("b1", "6.17", guests=(guest("stuck"),), site="north"),
        report("c1", "7.3", cpu="neoverse-n2", site="north"),
    )
    folder = tmp_path / "fetched"
    for one in hosts:
        (folder / one.head.host).mkdir(parents=True)
        (folder / one.head.host / "report.json").write_text(dump_report(one))
    return folder


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """A function from words to how `armferry fleet` ended."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARMFERRY_FLEET", str(tmp_path / "fleet.sqlite"))

    def run(*words: str | Path) -> Ran:
        try:
            code = main(["fleet", *map(str, words)])
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def fleet(reports: Path, command: Callable[..., Ran]) -> Any:
    """The same, on a store that has the hosts, for commands that say nothing of a fault."""

    def run(*words: str | Path, code: int = 0) -> Ran:
        ran = command(*words)
        assert (ran.code, ran.err) == (code, ""), ran.err
        return ran

    run("import", reports)
    return run


def documented(action: str) -> set[str]:
    """Keys in the table under a heading of docs/json.md."""
    part = DOCS.read_text().split(f"\n## fleet {action}\n", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE))


def document(ran: Any, action: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ran.out)
    assert found.keys() == documented(action)
    return found


def test_import_is_idempotent_and_names_what_is_poisoned(fleet: Any, reports: Path) -> None:
    assert "0 new hosts, 0 changed, 4 unchanged" in fleet("import", reports).out
    (reports / "bad.json").write_text("{}")
    found = document(fleet("import", reports, "--json", code=3), "import")
    assert len(found["unchanged"]) == 4
    (refused,) = found["refused"]
    assert refused["document"].endswith("bad.json")
    assert refused["why"].startswith("not a report: ")


def test_hosts_and_history(fleet: Any) -> None:
    found = document(fleet("hosts", "--json"), "hosts")
    assert [one["name"] for one in found["hosts"]] == ["a1", "a2", "b1", "c1"]
    assert found["hosts"][0]["classes"] == found["hosts"][1]["classes"]
    text = fleet("hosts", "--most", "2").out
    assert "2 of 4 hosts; --most N shows more" in text
    (past,) = document(fleet("history", "b1", "--json"), "history")["history"]
    assert past["kernel"].startswith("6.17")
    assert "6.17.13" in fleet("history", "b1").out


def test_matrix(fleet: Any, tmp_path: Path) -> None:
    text = fleet("matrix", "--svg", tmp_path / "m.svg").out
    assert re.search(r"^1 +6\.12\S+ \(2\) +S +N", text, re.MULTILINE) is None
    assert re.search(r"^1 +6\.12\S+ \(2\) +S +G> ", text, re.MULTILINE)
    assert re.search(r"^2 +6\.17\S+ \(1\) +N\* +S ", text, re.MULTILINE)
    assert (tmp_path / "m.svg").read_text().startswith("<svg ")
    found = document(fleet("matrix", "--by", "site", "--json"), "matrix")
    assert [one["name"] for one in found["groups"]] == ["north", "south"]
    assert len(found["cells"]) == 4


def test_a_policy_changes_the_matrix(fleet: Any) -> None:
    rule = ("--tolerate", "PSCI_VERSION: cap at destination")
    cells = {
        (one["from"][:4], one["to"][:4]): one["answer"]
        for one in document(fleet("matrix", "--json", *rule), "matrix")["cells"]
    }
    assert cells["6.17", "6.12"] == "armferry"


def test_why_in_the_words_of_check(fleet: Any) -> None:
    text = fleet("why", "b1", "a1", code=2).out
    assert "PSCI_VERSION" in text
    found = json.loads(fleet("why", "a1", "b1", "--json", code=1).out)
    assert found["verdict"] == "works-with-policy"
    assert found["fleet"]["conditions"][0] == "TCR2_EL1 holds 0x0"
    assert "works if TCR2_EL1 holds 0x0" in fleet("why", "a1", "b1", code=1).out
    stuck = json.loads(fleet("why", "b1", "a1", "--guest", "stuck", "--json", code=2).out)
    assert stuck["fleet"]["answer"] == "never"


def test_stranded_and_drain_check(fleet: Any) -> None:
    found = document(fleet("stranded", "--json", code=2), "stranded")
    assert (found["stranded"], [one["id"] for one in found["guests"]]) == (1, ["stuck"])
    assert "1 guests have nowhere to go" in fleet("stranded", code=2).out
    found = document(fleet("drain-check", "a1", "--json"), "drain-check")
    assert [(one["guest"], one["destination"]) for one in found["guests"]] == [("fine", "a2")]
    assert "1 of 1 guests of b1 have no place" in fleet("drain-check", "b1", code=2).out


def test_baseline(fleet: Any, tmp_path: Path) -> None:
    text = fleet("baseline", "--site", "south", "-o", tmp_path / "base").out
    assert "a guest started with these arguments can go from each" in text
    assert (tmp_path / "base" / "baseline.toml").exists()


def test_exports_and_report(fleet: Any, tmp_path: Path) -> None:
    assert fleet("export", "csv").out.startswith("from,to,")
    assert "gnt-node add-tags a1 armferry:" in fleet("export", "ganeti").out
    assert "armferry_fleet_guests_stranded 1" in fleet("export", "prometheus").out
    assert "# +expiry-time=" in fleet("export", "nfd", "--host", "a1").out
    fleet("export", "nfd", "-o", tmp_path / "features.d")
    assert {one.name for one in (tmp_path / "features.d").iterdir()} == {"a1", "a2", "b1", "c1"}
    found = document(fleet("report", "-o", tmp_path / "fleet.html", "--json"), "report")
    assert found["sentence"].startswith("0 of 4 hosts heard today; 1 guest has nowhere to go; ")
    assert found["sentence"] in (tmp_path / "fleet.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["hosts", "--store", "none.sqlite"], 3, "none.sqlite: no such store; make one with"),
        (["import", "nowhere", "--store", "s.sqlite"], 3, "nowhere: no such file or folder"),
        (["import", ".", "--store", "no/s.sqlite"], 3, "there is no folder"),
        (["export", "xml"], 3, "invalid choice: 'xml'"),
        (["hosts", "--store", "postgresql://u@/x?host=/no"], 4, "postgresql://u@/x: "),
    ],
)
def test_faults_are_named(
    words: list[str], code: int, message: str, command: Callable[..., Ran]
) -> None:
    ran = command(*words)
    assert ran.code == code
    assert message in ran.err


def test_names_that_are_not_there(fleet: Any, command: Callable[..., Ran]) -> None:
    for words, message in (
        (["history", "zz"], "no host 'zz' in "),
        (["why", "a1", "zz"], "no host 'zz' in "),
        (["why", "a1", "b1", "--guest", "zz"], "no guest 'zz' in "),
        (["why", "a1", "b1", "--kind", "zz"], "have no fingerprint in common for the kind"),
        (["baseline", "--kind", "zz"], "no host of that kind and site has a fingerprint"),
    ):
        ran = command(*words)
        assert (ran.code, message in ran.err) == (3, True), ran.err


def test_without_the_driver_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    for name in [
        one for one in sys.modules if one.startswith(("armferry.fleet.s", "armferry.cli.f"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["fleet", "hosts"]) == 4
    assert "pip install 'armferry[fleet]'" in capsys.readouterr().err


def test_a_plan_is_shown_in_the_page(fleet: Any, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    fleet("plan", "--to", "kernel=7.3", "-o", plan)
    waves = json.loads(plan.read_text())["waves"]
    assert waves
    fleet("report", "-o", tmp_path / "fleet.html", "--plan", plan)
    text = (tmp_path / "fleet.html").read_text()
    for number, wave in enumerate(waves, 1):
        moves, upgrades = len(wave["steps"]), len(wave["upgrades"])
        assert f"Wave {number}: {moves} moves, {upgrades} upgrades" in text
        assert all(f"upgrade {host}" in text for host in wave["upgrades"])


def test_what_is_no_plan_is_named(fleet: Any, command: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    ran = command("report", "-o", "fleet.html", "--plan", "plan.json")
    assert (ran.code, ran.err) == (
        3,
        "armferry: plan.json: no plan of armferry fleet plan: KeyError('waves')\n",
    )
