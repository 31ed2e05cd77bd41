"""Which hosts are one class, and the alarm when something of no account splits them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from armferry.decide.content import content_of
from armferry.ends import End
from armferry.fleet.classes import Classifier, alarm_of, class_id, unknown_class
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.atlas import read_atlas
from armferry.hosts.fingerprints.fingerprint import Fingerprint
from armferry.hosts.libvirt import hook_table
from armferry.hosts.libvirt.state_folder import other_hosts, stored
from armferry.hosts.report import HostReport

from .hosts_of_atlas import KIND, MACHINE, QEMU, recorded, report
from .test_importing import write_state

COUNTER, TCR2, PSCI = 0x603000000013DF1A, 0x603000000013C103, 0x6030000000140000


def class_of(one: HostReport) -> str:
    (found,) = Classifier().classes(one)
    return found.id


def with_register(index: int, value: int) -> Fingerprint:
    found = recorded("6.12/neoverse-n1/qemu-10.0.13", MACHINE)
    return replace(found, cpus=({**found.cpus[0], index: value},))


def test_what_no_decision_looks_at_splits_no_class() -> None:
    same = {
        class_of(report("a1", "6.12")),
        class_of(replace(report("b2", "6.12", time=7, site="elsewhere"), cpu="called otherwise")),
        class_of(report("a3", "6.12", qemu="10.0.2")),
    }
    assert len(same) == 1
    assert class_of(report("a4", "6.17")) not in same
    assert class_of(report("a4", "6.12", qemu="11.1")) not in same


def test_how_far_a_counter_ran_splits_no_class() -> None:
    ran = {content_of(end_of(with_register(COUNTER, value))).signature for value in (5, 77)}
    assert len(ran) == 1


@pytest.mark.parametrize(("index", "value"), [(TCR2, 1), (PSCI, 0x10003), (COUNTER, 0)])
def test_what_a_decision_looks_at_splits_a_class(index: int, value: int) -> None:
    plain = with_register(COUNTER, 9)
    other = replace(plain, cpus=({**plain.cpus[0], index: value},))
    assert content_of(end_of(plain)).signature != content_of(end_of(other)).signature


def test_several_qemus_of_a_kind_are_one_class_of_several_contents() -> None:
    first, second = report("a", "6.12"), report("a", "6.12", qemu="11.1")
    both = replace(first, kinds=(*first.kinds, *second.kinds))
    (found,) = Classifier().classes(both)
    assert len(found.variants) == 2
    assert found.id == class_id(KIND, found.variants)
    assert found.id not in (class_of(first), class_of(second), unknown_class(KIND))


def test_classes_of_the_atlas_are_fewer_than_its_hosts() -> None:
    kernels = [entry for entry in read_atlas().kernels if entry.cpu == "neoverse-n1"]
    names = [f"{one.name}/qemu-{qemu}" for one in kernels for qemu in ("10.0.2", "10.0.13", "11.1")]
    signatures = {content_of(end_of(recorded(name))).signature for name in names}
    assert len(signatures) < len(names)


def test_the_alarm_names_what_splits() -> None:
    tcr2 = [(KIND, with_register(TCR2, value)) for value in range(3)]
    found = alarm_of(20, tcr2)
    assert found is not None
    assert found.splits == (("TCR2_EL1", 3),)
    assert str(found) == (
        "3 classes for 20 hosts; what splits classes that are else the same: TCR2_EL1 (3 pairs); "
        "see whether fingerprints are made of hosts at reset"
    )
    assert alarm_of(30, tcr2) is None  # a tenth of the hosts is no more than that
    assert alarm_of(3, tcr2) is None  # a few hosts may all differ


def test_the_hook_asks_once_for_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that no decision can tell apart share an answer in the hook's table."""
    for host, kernel in (("a1", "6.12"), ("a2", "6.12"), ("b1", "6.17")):
        write_state(tmp_path / "hosts" / host, host, kernel)
    write_state(tmp_path / "host", "here", "6.12")
    asked: list[str] = []
    own = hook_table.answers

    def counted(source: End, *words: Any) -> dict[str, str | None]:
        asked.append(source.text)
        return own(source, *words)

    monkeypatch.setattr(hook_table, "answers", counted)
    table = hook_table.make_table(
        tmp_path, stored(tmp_path), other_hosts(tmp_path).guests, ["torn"]
    )
    here = table["guests"][KIND][QEMU]
    assert asked == ["a1", "b1"]
    assert here["hosts"] == {"a1": 0, "a2": 0, "b1": 1, "torn": 2}
    assert here["answers"][0] == here["answers"][2] == {"stock": None, "ferried": None}
    assert "PSCI_VERSION" in here["answers"][1]["ferried"]
