"""Reports taken into the store: what changed is written, what is derived is worked out anew.

A report that is no newer than what is known of its host changes nothing. A guest belongs to the
host that reported it last; of one that its host no longer reports, the place of birth is kept for
a month, for it may be on its way to another host.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import sqlalchemy as sa

from armferry.fleet.classes import Classifier, KindClass, unknown_class
from armferry.fleet.store.database import Database
from armferry.fleet.store.tables import (
    class_variant,
    gone,
    guest,
    guest_state,
    history,
    host,
    host_class,
    make,
    membership,
    pin,
    tally,
    variant,
)
from armferry.hosts.fingerprints.fingerprint import dump
from armferry.hosts.report import CAME, HERE, HostReport, ReportedGuest

__all__ = ["Imported", "known_times", "write_reports"]

_T = TypeVar("_T")
_AT_ONCE = 2000  # hosts of one round
_MANY = 10_000  # new hosts
_WORDS = 5000  # values in one statement; SQLite takes 32,766
_MIB = 1 << 20
_KEPT = 30 * 86400  # seconds


@dataclass
class Imported:
    """Names of hosts: `new`, `changed` and `unchanged`, for which nothing newer came."""

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _HostRow:
    id: int
    heard: float


def known_times(database: Database) -> dict[str, float]:
    """Host -> the time of its last report."""
    with database.reading() as connection:
        rows = connection.execute(sa.select(host.c.name, host.c.heard))
        return dict(rows.all())


def write_reports(
    database: Database, reports: Iterable[HostReport], classifier: Classifier | None = None
) -> Imported:
    """Takes reports in, in their order. Raises StoreFault or UnknownQemuVersion."""
    done = Imported()
    with database.writing() as connection:
        writer = _Writer(connection, classifier or Classifier())
        for chunk in _batched(reports, _AT_ONCE):
            writer.take(chunk, done)
        if done.new or done.changed:
            writer.derive()
    if len(done.new) >= _MANY:
        database.compact()  # indexes that were written at random leave a third of their pages empty
    return done


class _Writer:
    """One import, in one transaction."""

    def __init__(self, connection: sa.Connection, classifier: Classifier) -> None:
        self._connection = connection
        self._classifier = classifier
        execute = connection.execute
        self._makes: dict[tuple[str, ...], int] = {
            (row.kernel, row.qemus, row.cpu, row.armferry): row.id
            for row in execute(sa.select(make))
        }
        self._classes: dict[str, int] = {
            row.signature: row.id for row in execute(sa.select(host_class))
        }
        self._next_host = self._next(host)
        self._next_guest = self._next(guest)
        self._any_guests = self._next_guest > 1 or self._count(gone) > 0

    def take(self, reports: Sequence[HostReport], done: Imported) -> None:
        """Some reports; of a host that comes twice the newest counts."""
        newest: dict[str, HostReport] = {}
        for one in sorted(reports, key=lambda report: report.head.time):
            newest[one.head.host] = one
        reports = sorted(newest.values(), key=lambda report: report.head.time)
        known = self._hosts([one.head.host for one in reports])
        fresh: list[tuple[int, HostReport, tuple[KindClass, ...]]] = []
        rows = []
        for one in reports:
            name = one.head.host
            before = known.get(name)
            if before is not None and one.head.time <= before.heard:
                done.unchanged.append(name)
                continue
            classes = self._classifier.classes(one)
            for found in classes:
                self._class(found)
            number = self._next_host if before is None else before.id
            if before is None:
                self._next_host += 1
            known[name] = _HostRow(number, one.head.time)
            rows.append(self._row(number, one))
            fresh.append((number, one, classes))
            (done.new if before is None else done.changed).append(name)
        new = set(done.new)
        self._insert(host, [row for row in rows if row["name"] in new])
        self._update(host, [row for row in rows if row["name"] not in new])
        self._history(fresh, rows)
        self._members(fresh)
        self._guests(fresh)

    def derive(self) -> None:
        """What is counted, counted anew."""
        run = self._connection.execute
        run(sa.delete(tally))
        run(
            sa.insert(tally).from_select(
                ["class_id", "make_id", "site", "hosts"],
                sa.select(membership.c.class_id, host.c.make_id, host.c.site, sa.func.count())
                .join(host, host.c.id == membership.c.host_id)
                .group_by(membership.c.class_id, host.c.make_id, host.c.site),
            )
        )
        run(sa.delete(guest_state))
        run(
            sa.insert(guest_state).from_select(
                ["birth", "present", "guests"],
                sa.select(guest.c.birth, guest.c.present, sa.func.count()).group_by(
                    guest.c.present, guest.c.birth
                ),
            )
        )
        newest = self._connection.scalar(sa.select(sa.func.max(host.c.heard))) or 0
        run(sa.delete(gone).where(gone.c.time < newest - _KEPT))

    # -- hosts

    def _hosts(self, names: Sequence[str]) -> dict[str, _HostRow]:
        found = {}
        for some in _batched(names, _WORDS):
            rows = self._connection.execute(
                sa.select(host.c.name, host.c.id, host.c.heard).where(host.c.name.in_(some))
            )
            found.update({row.name: _HostRow(row.id, row.heard) for row in rows})
        return found

    def _row(self, number: int, report: HostReport) -> dict[str, object]:
        return {
            "id": number,
            "name": report.head.host,
            "make_id": self._make(report),
            "site": report.site,
            "failure_domain": report.failure_domain,
            "memory": report.memory // _MIB,
            "heard": report.head.time,
            "boot": report.head.boot,
            "stale": any(
                kind.fingerprint.provenance.kernel not in ("", report.kernel)
                for kind in report.kinds
            ),
        }

    def _make(self, report: HostReport) -> int:
        key = report.kernel, json.dumps(list(report.qemus)), report.cpu, report.armferry
        if key not in self._makes:
            number = len(self._makes) + 1
            self._makes[key] = number
            names = ("kernel", "qemus", "cpu", "armferry")
            self._insert(make, [{"id": number, **dict(zip(names, key, strict=True))}])
        return self._makes[key]

    def _class(self, found: KindClass) -> int:
        number = self._classes.get(found.id)
        if number is None:
            number = self._new_class(found.id, found.kind)
            known = set(
                self._connection.scalars(
                    sa.select(variant.c.signature).where(variant.c.signature.in_(found.variants))
                )
            )
            new = [
                {"signature": signature, "document": zlib.compress(dump(one).encode(), 9)}
                for signature, one in found.variants.items()
                if signature not in known
            ]
            self._insert(variant, new)
            parts = [{"class_id": number, "signature": one} for one in found.variants]
            self._insert(class_variant, parts)
        return number

    def _new_class(self, signature: str, kind: str) -> int:
        self._classes[signature] = number = len(self._classes) + 1
        self._insert(host_class, [{"id": number, "signature": signature, "kind": kind}])
        return number

    def _unknown(self, kind: str) -> int:
        """The class that stands for no fingerprint."""
        signature = unknown_class(kind)
        return self._classes.get(signature) or self._new_class(signature, kind)

    def _members(self, fresh: Sequence[tuple[int, HostReport, tuple[KindClass, ...]]]) -> None:
        self._delete(membership, membership.c.host_id, [number for number, *_ in fresh])
        rows = [
            {"host_id": number, "class_id": self._classes[one.id]}
            for number, _, classes in fresh
            for one in classes
        ]
        self._insert(membership, rows)

    def _history(
        self,
        fresh: Sequence[tuple[int, HostReport, tuple[KindClass, ...]]],
        rows: Sequence[Mapping[str, object]],
    ) -> None:
        """Keeps those reports in which kernel, QEMUs, boot or classes changed."""
        last: dict[int, tuple[object, ...]] = {}
        for some in _batched([number for number, *_ in fresh], _WORDS):
            newest = (
                sa.select(history.c.host_id, sa.func.max(history.c.time).label("time"))
                .where(history.c.host_id.in_(some))
                .group_by(history.c.host_id)
                .subquery()
            )
            found = self._connection.execute(
                sa.select(history).join(
                    newest,
                    sa.and_(history.c.host_id == newest.c.host_id, history.c.time == newest.c.time),
                )
            )
            last.update({row.host_id: (row.make_id, row.boot, row.classes) for row in found})
        new = []
        for (number, report, classes), row in zip(fresh, rows, strict=True):
            numbers = json.dumps(sorted(self._classes[one.id] for one in classes))
            now = (row["make_id"], report.head.boot, numbers)
            if last.get(number) != now:
                entry = {"host_id": number, "time": report.head.time, "make_id": now[0]}
                new.append({**entry, "boot": now[1], "classes": now[2]})
        self._insert(history, new)

    # -- guests

    def _guests(self, fresh: Sequence[tuple[int, HostReport, tuple[KindClass, ...]]]) -> None:
        ids = [one.id for _, report, _ in fresh for one in report.guests]
        born = self._births(ids)
        self._take_off([number for number, *_ in fresh], set(ids))
        rows: dict[str, dict[str, object]] = {}
        pins: dict[str, tuple[str, ...]] = {}
        for number, report, classes in fresh:
            present = {one.kind: self._classes[one.id] for one in classes}
            for one in report.guests:
                now = present.get(one.kind) or self._unknown(one.kind)
                rows[one.id] = {
                    "guest_id": one.id,
                    "name": "" if one.name == one.id else one.name,
                    "host_id": number,
                    "birth": self._birth(one, now, born.get(one.id)),
                    "present": now,
                    "memory": one.memory // _MIB,
                }
                pins[one.id] = one.pins
        numbers = self._numbers(list(rows))
        old = [{**row, "id": numbers[key]} for key, row in rows.items() if key in numbers]
        self._update(guest, old)
        new = []
        for key, row in rows.items():
            if key not in numbers:
                numbers[key] = self._next_guest
                self._next_guest += 1
                new.append({**row, "id": numbers[key]})
        self._insert(guest, new)
        self._delete(pin, pin.c.guest, [row["id"] for row in old])
        self._insert(
            pin,
            [
                {"guest": numbers[key], "host_name": name}
                for key, names in pins.items()
                for name in sorted(set(names))
            ],
        )
        self._delete(gone, gone.c.guest_id, [one for one in rows if one in born])
        self._any_guests = self._any_guests or bool(rows)

    def _birth(self, one: ReportedGuest, present: int, known: int | None) -> int:
        """The class it was born on: as its host says, else as was known, else the present one."""
        if one.birth == HERE:
            return present
        if one.birth != CAME and one.birth in self._classes:
            return self._classes[one.birth]
        return present if known is None else known

    def _births(self, ids: Sequence[str]) -> dict[str, int]:
        """Guest -> the class of its birth, of those that are known."""
        found: dict[str, int] = {}
        for table in (gone, guest) if self._any_guests else ():
            for some in _batched(ids, _WORDS):
                rows = self._connection.execute(
                    sa.select(table.c.guest_id, table.c.birth).where(table.c.guest_id.in_(some))
                )
                found.update(dict(rows.all()))
        return found

    def _take_off(self, hosts: Sequence[int], reported: set[str]) -> None:
        """Takes guests off hosts that no longer report them; their birth is kept."""
        lost: list[dict[str, object]] = []
        numbers: list[int] = []
        for some in _batched(hosts, _WORDS) if self._any_guests else ():
            rows = self._connection.execute(
                sa.select(guest.c.id, guest.c.guest_id, guest.c.birth, host.c.heard)
                .join(host, host.c.id == guest.c.host_id)
                .where(guest.c.host_id.in_(some))
            )
            for row in rows:
                if row.guest_id not in reported:
                    numbers.append(row.id)
                    lost.append({"guest_id": row.guest_id, "birth": row.birth, "time": row.heard})
        self._delete(pin, pin.c.guest, numbers)
        self._delete(guest, guest.c.id, numbers)
        self._delete(gone, gone.c.guest_id, [row["guest_id"] for row in lost])
        self._insert(gone, lost)

    def _numbers(self, ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for some in _batched(ids, _WORDS) if self._any_guests else ():
            rows = self._connection.execute(
                sa.select(guest.c.guest_id, guest.c.id).where(guest.c.guest_id.in_(some))
            )
            found.update(dict(rows.all()))
        return found

    # -- statements

    def _next(self, table: sa.Table) -> int:
        found: int | None = self._connection.scalar(sa.select(sa.func.max(table.c.id)))
        return (found or 0) + 1

    def _count(self, table: sa.Table) -> int:
        return self._connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0

    def _insert(self, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
        if rows:
            self._connection.execute(sa.insert(table), list(rows))

    def _update(self, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
        if rows:
            values: dict[str, sa.BindParameter[object]] = {
                name: sa.bindparam(name) for name in rows[0] if name != "id"
            }
            statement = sa.update(table).where(table.c.id == sa.bindparam("number")).values(values)
            self._connection.execute(statement, [{**row, "number": row["id"]} for row in rows])

    def _delete(self, table: sa.Table, column: sa.Column[object], values: Sequence[object]) -> None:
        for some in _batched(values, _WORDS):
            self._connection.execute(sa.delete(table).where(column.in_(some)))


def _batched(values: Iterable[_T], most: int) -> Iterator[list[_T]]:
    source = iter(values)
    while some := list(islice(source, most)):
        yield some
