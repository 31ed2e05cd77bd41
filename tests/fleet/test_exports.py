"""What is written for other programs, read back by their own rules."""

import csv
import io
import re
import shlex
import subprocess
from datetime import datetime
from itertools import product
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from armferry.fleet.exports.ganeti import tag_commands
from armferry.fleet.exports.labels import kind_label
from armferry.fleet.exports.metrics import metrics_text
from armferry.fleet.exports.nfd import feature_files
from armferry.fleet.exports.table import matrix_csv
from armferry.fleet.model import Answer
from armferry.fleet.questions import By, matrix
from armferry.fleet.standing import Standing

from .hosts_of_atlas import KIND, guest, report
from .test_questions import NOW, standing_of

RULES = Path(__file__).parents[2] / "packaging" / "prometheus" / "armferry-fleet.rules.yml"
RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"


@pytest.fixture
def standing(tmp_path: Path) -> Standing:
    return standing_of(
        tmp_path,
        report("a1", "6.12", guests=(guest("fine"),)),
        report("b1", "6.17", guests=(guest("stuck"),)),
        report("c1", "7.3", time=NOW - 100_000),
    )


def test_csv(standing: Standing) -> None:
    found = matrix(standing, By.CLASS)
    rows = [*csv.DictReader(io.StringIO(matrix_csv(found)))]
    assert len(rows) == 9
    for row in rows:
        cell = found.cells[row["from"], row["to"]].cell
        assert row["answer"] == cell.answer.value
        assert row["conditions"] == "; ".join(map(str, cell.conditions))


def features(text: str) -> tuple[datetime, dict[str, str]]:
    """A feature file by the rules of node-feature-discovery's local source."""
    expiry = None
    labels = {}
    for line in text.splitlines():
        if line.startswith("# +"):
            key, _, value = line.removeprefix("# +").partition("=")
            assert key == "expiry-time"
            expiry = datetime.fromisoformat(value)
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            namespace, _, short = name.rpartition("/")
            assert namespace == "feature.node.kubernetes.io"
            assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", short), short
            assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value)
            labels[short] = value
    assert expiry is not None
    assert len(text) < 64 << 10
    return expiry, labels


@pytest.mark.parametrize("worst", [Answer.STOCK, Answer.ARMFERRY])
def test_nfd(standing: Standing, worst: Answer) -> None:
    """Each destination names the classes that it takes, and no others."""
    files = {host.name: (host, text) for host, text in feature_files(standing, NOW, worst)}
    label = kind_label(KIND)
    for (host, text), source in product(files.values(), standing.store.hosts()):
        expiry, labels = features(text)
        assert expiry.timestamp() == NOW
        own, theirs = host.classes[KIND], source.classes[KIND]
        assert labels[f"armferry-class-{label}"] == own
        cell = standing.relation.cell(theirs, theirs, own)
        takes = labels.get(f"armferry-accepts-{label}-{theirs}") == "true"
        assert takes is (cell.answer.rank <= worst.rank), (host.name, source.name)


def test_ganeti(standing: Standing) -> None:
    """The pairs of htools are those that work for every guest."""
    allowed, nodes, tags = set(), {}, set()
    for line in tag_commands(standing):
        program, verb, *rest = shlex.split(line)
        assert verb == "add-tags"
        assert all(re.fullmatch(r"[\w.+*/:@-]{1,128}", tag) for tag in rest)
        if program == "gnt-node":
            nodes[rest[0]] = set(rest[1:])
        else:
            tags.update(rest)
    assert "htools:migration:armferry" in tags
    for tag in tags:
        if tag.startswith("htools:allowmigration:"):
            allowed.add(tuple(tag.removeprefix("htools:allowmigration:").split("::")))
    for source, destination in product(standing.store.hosts(), standing.store.hosts()):
        mine, theirs = nodes[source.name], nodes[destination.name]
        # hbal(1): every migration tag of the source is on the target, or leads to one that is
        goes = all(tag in theirs or any((tag, one) in allowed for one in theirs) for tag in mine)
        own = source.classes[KIND]
        cell = standing.relation.cell(own, own, destination.classes[KIND])
        assert goes is (cell.answer is Answer.STOCK)


def test_metrics(standing: Standing, tmp_path: Path) -> None:
    text = metrics_text(standing, NOW)
    values = {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert values["armferry_fleet_hosts", "6.17.13+deb13-cloud-arm64"] == 1
    assert values[("armferry_fleet_hosts_silent",)] == 1
    assert values[("armferry_fleet_guests",)] == 2
    assert values["armferry_fleet_classes", KIND] == 3
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_alert_rules(tmp_path: Path) -> None:
    """promtool takes them, they fire on what they are for, and each has its runbook."""
    for words in (
        ["check", "rules", str(RULES)],
        ["test", "rules", str(RULES.with_suffix(".test.yml"))],
    ):
        checked = subprocess.run(["promtool", *words], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    text = RULES.read_text()
    alerts = re.findall(r"alert: (\w+)", text)
    runbooks = re.findall(r"runbook: docs/runbooks/([\w-]+\.md)", text)
    assert len(alerts) == len(runbooks) == 5
    assert {path.name for path in RUNBOOKS.glob("*.md")} == set(runbooks)
    for alert, name in zip(alerts, runbooks, strict=True):
        assert alert in (RUNBOOKS / name).read_text()


def test_metrics_of_the_rules_are_written(standing: Standing) -> None:
    used = set(re.findall(r"armferry_fleet_\w+", RULES.read_text()))
    written = {
        family.name for family in text_string_to_metric_families(metrics_text(standing, NOW))
    }
    assert used <= written


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        (KIND, "virt-10.0-host-kvm"),
        ("virt-10.0,gic-version=3 host kvm", "virt-10.0-gic-version-3-host-kvm"),
    ],
)
def test_labels(kind: str, label: str) -> None:
    assert kind_label(kind) == label


def test_a_long_kind_is_cut_and_stays_apart() -> None:
    one, other = (kind_label(f"virt-10.0 host,{'x' * 60},sve{bits}=on kvm") for bits in (128, 256))
    assert one != other
    assert len(one) <= 33
