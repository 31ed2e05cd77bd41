"""The store: the same on SQLite and on PostgreSQL."""

import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from armferry.decide import Risk
from armferry.decide.content import content_of
from armferry.errors import ArmferryError
from armferry.fleet.classes import class_id, unknown_class
from armferry.fleet.model import Answer, Cell, Condition
from armferry.fleet.store.database import Database, StoreFault, open_database
from armferry.fleet.store.reading import Store, UnknownName
from armferry.fleet.store.tables import metadata
from armferry.fleet.store.writing import known_times, write_reports
from armferry.hosts.fingerprints.as_end import end_of

from .hosts_of_atlas import KIND, guest, recorded, report

UUID = "3f1c0d9e-8f0b-4a56-9f0e-0a1b2c3d4e5f"


@pytest.fixture
def database(store_url: str) -> Database:
    return open_database(store_url)


def store(database: Database) -> Store:
    return Store(database)


def test_migrations_make_the_tables_that_the_code_has(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.upgrade()  # once more changes nothing


def test_a_store_of_a_newer_armferry_is_refused_by_name(store_url: str) -> None:
    database = open_database(store_url)
    with database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreFault, match=r"its tables are of a newer armferry \(9999"):
        open_database(store_url)


def test_what_is_imported_is_read(database: Database) -> None:
    one = report("h1", "6.12", guests=(guest(UUID), guest("plain", pins=("h1", "h9"))), site="n")
    done = write_reports(database, [one])
    assert (done.new, done.changed, done.unchanged) == (["h1"], [], [])
    (host,) = store(database).hosts()
    assert (host.name, host.kernel, host.qemus) == ("h1", one.kernel, ("10.0.13",))
    assert (host.memory, host.heard, host.failure_domain) == (64 << 30, one.head.time, "rack 1")
    (known,) = store(database).classes()
    assert (known.id, known.kind, known.hosts) == (host.class_of(KIND), KIND, 1)
    assert store(database).fingerprints(known.id) == (one.kinds[0].fingerprint,)
    first, second = store(database).guests()
    assert (first.id, first.name, first.host, first.birth) == (
        UUID,
        f"{UUID} by name",
        "h1",
        known.id,
    )
    assert (second.id, second.memory, second.pins) == ("plain", 4 << 30, frozenset({"h1", "h9"}))
    assert store(database).states() == {(known.id, known.id): 2}
    assert [(t.kernel, t.site, t.hosts) for t in store(database).tallies()] == [
        (one.kernel, "n", 1)
    ]


def test_importing_again_changes_nothing(database: Database) -> None:
    reports = [report("h1", "6.12", guests=(guest("a"),)), report("h2", "6.17")]
    write_reports(database, reports)
    before = store(database).fleet(), store(database).states()
    done = write_reports(database, reports)
    assert sorted(done.unchanged) == ["h1", "h2"]
    assert (store(database).fleet(), store(database).states()) == before
    assert [past.time for past in store(database).history("h1")] == [reports[0].head.time]


def test_of_a_host_that_comes_twice_the_newest_counts(database: Database) -> None:
    write_reports(database, [report("h1", "6.17", time=2000), report("h1", "6.12", time=1000)])
    (host,) = store(database).hosts()
    assert host.kernel.startswith("6.17")
    assert known_times(database) == {"h1": 2000}


def test_history_has_what_changed(database: Database) -> None:
    write_reports(database, [report("h1", "6.12", time=1000)])
    write_reports(database, [report("h1", "6.12", time=2000)])
    write_reports(database, [report("h1", "6.17", time=3000)])
    new, old = store(database).history("h1")
    assert (new.time, new.kernel[:4], old.time, old.kernel[:4]) == (3000, "6.17", 1000, "6.12")
    assert new.classes != old.classes
    with pytest.raises(UnknownName, match="no host 'h7'"):
        store(database).history("h7")


def test_a_guest_keeps_its_birth_on_its_way(database: Database) -> None:
    """It leaves its host before the other one reports it, or after."""
    write_reports(database, [report("old", "6.12", time=1, guests=(guest("a"), guest("b")))])
    born = store(database).guest("a").birth
    write_reports(database, [report("old", "6.12", time=2, guests=(guest("b"),))])
    with pytest.raises(UnknownName, match="no guest 'a'"):
        store(database).guest("a")
    came = report("new", "6.17", time=3, guests=(guest("a", "came"), guest("b", "came")))
    write_reports(database, [came])
    for name in ("a", "b"):
        moved = store(database).guest(name)
        assert (moved.host, moved.birth) == ("new", born)
    here = store(database).host("new").class_of(KIND)
    assert store(database).states() == {(born, here): 2}
    # the old host's next report does not take it back
    write_reports(database, [report("old", "6.12", time=4)])
    assert store(database).guest("b").host == "new"


def test_a_guest_of_unknown_birth_is_taken_to_be_born_where_it_is(database: Database) -> None:
    write_reports(database, [report("new", "6.17", guests=(guest("a", "came"),))])
    found = store(database).guest("a by name")
    assert found.birth == store(database).host("new").class_of(KIND)


def test_a_birth_may_be_said_as_a_class(database: Database) -> None:
    write_reports(database, [report("old", "6.12")])
    born = store(database).host("old").class_of(KIND)
    assert born is not None
    write_reports(database, [report("new", "6.17", guests=(guest("a", born),))])
    assert store(database).guest("a").birth == born


def test_a_guest_of_a_kind_that_its_host_has_no_fingerprint_for(database: Database) -> None:
    odd = replace(guest("a"), kind="virt-9.0 host kvm")
    write_reports(database, [report("h1", "6.12", guests=(odd,))])
    found = store(database).guest("a")
    assert (found.kind, found.birth) == (odd.kind, unknown_class(odd.kind))
    assert store(database).fingerprints(found.birth) == ()


def test_cells_are_kept_by_key(database: Database) -> None:
    write_reports(database, [report("h1", "6.12"), report("h2", "6.17")])
    one, other = (host.classes[KIND] for host in store(database).hosts())
    cells = {
        (one, one, other): Cell(
            Answer.GUEST,
            Risk.LOSSLESS,
            (Condition(1 << 63, "X", (1 << 64) - 1, 3),),
            "works",
            "fails",
        ),
        (other, other, one): Cell(Answer.NEVER, Risk.GUEST_VISIBLE, verdict="fails", why="because"),
    }
    store(database).write_cells("k", cells)
    store(database).write_cells("k", cells)  # worked out by two at once
    assert store(database).read_cells("k") == cells
    assert store(database).read_cells("other") == {}


def test_two_writers_wait_for_each_other(store_url: str) -> None:
    open_database(store_url)
    faults: list[BaseException] = []

    def write(number: int) -> None:
        try:
            some = [report(f"h{number}{one}", "6.12") for one in range(20)]
            write_reports(open_database(store_url), some)
        except BaseException as fault:
            faults.append(fault)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert faults == []
    assert store(open_database(store_url)).heard(0) == (80, 80)


def test_silent_hosts(database: Database) -> None:
    write_reports(database, [report(f"h{n}", "6.12", time=n * 100) for n in range(1, 5)])
    assert store(database).heard(300) == (4, 2)
    assert store(database).silent(300, 9) == (("h1", 100.0), ("h2", 200.0))


def test_class_of_a_host_is_the_same_in_every_store(database: Database) -> None:
    write_reports(database, [report("h1", "6.12")])
    (known,) = store(database).classes()
    content = content_of(end_of(recorded("6.12/neoverse-n1/qemu-10.0.13", "virt-10.0")))
    assert known.id == class_id(KIND, [content.signature])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mysql://x/y", "mysql is no store of armferry"),
        ("/no/such/folder/fleet.sqlite", "there is no folder /no/such/folder"),
        ("postgresql://nobody@/x?host=/no/such", "postgresql://nobody@/x: "),
        ("http:/:x://", "no URL of a database"),
    ],
)
def test_what_cannot_be_opened_is_named(text: str, words: str) -> None:
    with pytest.raises(ArmferryError, match=words):
        open_database(text)


def test_a_file_that_is_no_database_is_named(tmp_path: object) -> None:
    place = f"{tmp_path}/fleet.sqlite"
    with open(place, "w") as file:
        file.write("not a database, and long enough to be read as one" * 20)
    with pytest.raises(StoreFault, match="file is not a database"):
        open_database(place)
