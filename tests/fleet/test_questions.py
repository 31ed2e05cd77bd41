"""What is asked of a fleet, on hosts with real kernels' lists."""

from pathlib import Path

import pytest

from armferry.fleet.drain import drain_check
from armferry.fleet.model import Answer
from armferry.fleet.questions import By, matrix, stranded, stranded_guests, summary, without_return
from armferry.fleet.standing import Standing
from armferry.fleet.store.database import open_database
from armferry.fleet.store.reading import Store
from armferry.fleet.store.writing import write_reports
from armferry.hosts.report import HostReport
from armferry.policy import from_options

from .hosts_of_atlas import KIND, guest, report

NOW = 1_790_000_000.0
OLD, NEW, NEWEST = (
    "6.12.117+deb13-cloud-arm64",
    "6.17.13+deb13-cloud-arm64",
    "7.3.4+deb13-cloud-arm64",
)


def standing_of(place: Path, *reports: HostReport, **policy: list[str]) -> Standing:
    database = open_database(str(place / "fleet.sqlite"))
    write_reports(database, reports)
    return Standing(Store(database), command_line=from_options(**policy))


def test_matrix_by_kernel(tmp_path: Path) -> None:
    standing = standing_of(
        tmp_path, report("a1", "6.12"), report("a2", "6.12"), report("b1", "6.17")
    )
    found = matrix(standing, By.KERNEL)
    assert found.groups == {OLD: 2, NEW: 1}
    assert found.cells[OLD, OLD].cell.answer is Answer.STOCK
    assert found.cells[OLD, NEW].cell.answer is Answer.GUEST
    assert found.cells[NEW, OLD].cell.answer is Answer.NEVER
    assert found.cells[OLD, NEW].hosts == {Answer.GUEST: 2}
    assert found.one_way(OLD, NEW)
    assert not found.one_way(NEW, OLD)
    assert found.kinds == (KIND,)


def test_cells_are_kept_and_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = report("a1", "6.12"), report("b1", "6.17")
    first = matrix(standing_of(tmp_path, *reports), By.KERNEL)

    def worked_out(*_: object) -> None:
        raise AssertionError("a cell that was kept is worked out again")

    monkeypatch.setattr("armferry.fleet.relation.cell_of", worked_out)
    assert matrix(standing_of(tmp_path), By.KERNEL) == first


def test_a_group_is_as_good_as_its_best_hosts_for_the_worst_of_the_sources(tmp_path: Path) -> None:
    standing = standing_of(
        tmp_path,
        report("a1", "6.12", site="north"),
        report("b1", "6.17", site="north"),
        report("a2", "6.12", site="south"),
    )
    found = matrix(standing, By.SITE)
    assert found.cells["south", "north"].cell.answer is Answer.STOCK  # on a1
    worst = found.cells["north", "south"]
    assert worst.cell.answer is Answer.NEVER  # born on b1
    assert worst.mixed
    assert worst.hosts == {Answer.STOCK: 1, Answer.NEVER: 1}


def test_stranded_are_those_that_no_other_host_takes(tmp_path: Path) -> None:
    standing = standing_of(
        tmp_path,
        report("a1", "6.12", guests=(guest("fine"),)),
        report("b1", "6.17", guests=(guest("stuck"), guest("came", "came"))),
    )
    (state,) = stranded(standing)
    assert (state.guests, state.why) == (2, "no rule of the policy allows PSCI_VERSION")
    assert [one.id for one in stranded_guests(standing, [state], 9)] == ["stuck", "came"]
    assert [one.id for one in stranded_guests(standing, [state], 1)] == ["stuck"]


def test_who_was_born_on_the_old_one_is_not_stranded(tmp_path: Path) -> None:
    standing_of(tmp_path, report("a1", "6.12", time=NOW - 9, guests=(guest("moved"),)))
    moved = report("b1", "6.17", guests=(guest("moved", "came"),))
    standing = standing_of(tmp_path, report("a1", "6.12"), moved)
    assert stranded(standing) == ()
    assert without_return(standing) == (0, 0)


def test_a_policy_frees_them(tmp_path: Path) -> None:
    reports = report("a1", "6.12"), report("b1", "6.17", guests=(guest("stuck"),))
    assert len(stranded(standing_of(tmp_path, *reports))) == 1
    capped = standing_of(tmp_path, tolerate=["PSCI_VERSION: cap at destination"])
    assert stranded(capped) == ()


def test_a_host_of_the_own_class_takes_them(tmp_path: Path) -> None:
    standing = standing_of(
        tmp_path, report("b1", "6.17", guests=(guest("a"),)), report("b2", "6.17")
    )
    assert stranded(standing) == ()


def test_without_a_fingerprint_for_its_kind_a_guest_has_nowhere_to_go(tmp_path: Path) -> None:
    from dataclasses import replace

    odd = replace(guest("odd"), kind="virt-9.0 host kvm")
    standing = standing_of(tmp_path, report("b1", "6.17", guests=(odd,)), report("b2", "6.17"))
    (state,) = stranded(standing)
    assert state.why == "its host has no fingerprint for virt-9.0 host kvm"


def test_the_sentence(tmp_path: Path) -> None:
    standing = standing_of(
        tmp_path,
        report("a1", "6.12", time=NOW - 90_000),
        report("b1", "6.17", guests=(guest("stuck"),)),
        report("c1", "7.3", time=NOW),
    )
    found = summary(standing, NOW)
    assert (
        str(found) == "2 of 3 hosts heard today; 0 guests have nowhere to go; 0 could not come back"
    )
    assert (found.newest, found.guests, found.classes) == ("7.3", 1, 3)
    assert found.kernels == {OLD: 1, NEW: 1, NEWEST: 1}


def test_one_way_ahead(tmp_path: Path) -> None:
    standing = standing_of(
        tmp_path, report("a1", "5.10", guests=(guest("a"), guest("b"))), report("b1", "7.3")
    )
    lost, ahead = without_return(standing)
    assert (lost, ahead) == (0, 2)


def test_drain_places_the_largest_first_where_there_is_room(tmp_path: Path) -> None:
    big, small = guest("big", memory=40 << 30), guest("small", memory=30 << 30)
    full = tuple(guest(f"f{number}", memory=20 << 30) for number in range(2))
    standing = standing_of(
        tmp_path,
        report("a1", "6.12", guests=(small, big)),
        report("a2", "6.12"),
        report("a3", "6.12", guests=full),
        report("b1", "6.17"),
    )
    placed = drain_check(standing, "a1")
    assert [(one.guest.id, one.destination) for one in placed] == [("big", "a2"), ("small", "b1")]
    assert placed[0].cell is not None
    assert placed[0].cell.answer is Answer.STOCK
    assert placed[1].cell is not None
    assert placed[1].cell.answer is Answer.GUEST


def test_drain_says_why_a_guest_has_no_place(tmp_path: Path) -> None:
    pinned = guest("pinned", pins=("b1",))
    huge = guest("huge", memory=100 << 30)
    standing = standing_of(
        tmp_path,
        report("a1", "6.12"),
        report("b1", "6.17", guests=(pinned, huge, guest("stuck"))),
    )
    why = {one.guest.id: one.why for one in drain_check(standing, "b1")}
    assert why == {
        "huge": "no rule of the policy allows PSCI_VERSION",
        "pinned": "no other host that it is pinned to has such guests",
        "stuck": "no rule of the policy allows PSCI_VERSION",
    }
    (one,) = drain_check(
        standing_of(tmp_path, report("a1", "6.12", time=NOW + 9, guests=(huge,))), "a1"
    )
    assert one.why == "no host that takes it has room"


def test_the_same_answers_from_each_database(store_url: str, tmp_path: Path) -> None:
    reports = (
        report("a1", "6.12", guests=(guest("fine"),), site="north"),
        report("b1", "6.17", guests=(guest("stuck", pins=("a1", "b2")),), site="south"),
        report("c1", "7.3", time=NOW - 100_000),
    )
    database = open_database(store_url)
    write_reports(database, reports)
    asked = Standing(Store(database))
    kept = standing_of(tmp_path, *reports)
    for by in By:
        assert matrix(asked, by) == matrix(kept, by)
    assert summary(asked, NOW) == summary(kept, NOW)
    assert stranded(asked) == stranded(kept)
    assert drain_check(asked, "b1") == drain_check(kept, "b1")
    assert asked.store.fleet() == kept.store.fleet()
    assert asked.store.used() == {"a1": 4 << 30, "b1": 4 << 30}
    assert [one.id for one in asked.store.guests(pinned=True)] == ["stuck"]
