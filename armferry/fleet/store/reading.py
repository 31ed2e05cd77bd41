"""What is asked of the store: hosts, guests, classes, what was derived, cells that were kept."""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from armferry.decide import Risk
from armferry.errors import ArmferryError
from armferry.facts import release_key
from armferry.fleet.model import Answer, Cell, Condition, Fleet, Guest, Host, HostClass
from armferry.fleet.relation import Triple
from armferry.fleet.store.database import Database
from armferry.fleet.store.tables import (
    cell,
    class_variant,
    guest,
    guest_state,
    history,
    host,
    host_class,
    make,
    membership,
    outcome,
    pin,
    tally,
    variant,
)
from armferry.hosts.fingerprints.fingerprint import Fingerprint, parse

__all__ = ["Past", "Store", "Tally", "UnknownName"]

_MIB = 1 << 20
_ANSWERS = list(Answer)
_FEW = 1000  # guests, up to which their pins are asked for by number


class UnknownName(ArmferryError):
    """No host, class or guest of that name is in the store."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many `hosts` of a class run this kernel at this site."""

    class_id: str
    kernel: str
    cpu: str
    site: str
    hosts: int


@dataclass(frozen=True, slots=True)
class Past:
    """A report of a host in which something had changed."""

    time: float
    kernel: str
    qemus: tuple[str, ...]
    boot: str
    armferry: str
    classes: tuple[str, ...]


class Store:
    """Questions to one database. Each raises StoreFault where it cannot be read."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # -- classes

    @cached_property
    def _signatures(self) -> dict[int, tuple[str, str]]:
        """Number -> (id, kind) of every class."""
        with self.database.reading() as connection:
            rows = connection.execute(sa.select(host_class))
            return {row.id: (row.signature, row.kind) for row in rows}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {signature: number for number, (signature, _) in self._signatures.items()}

    def kind_of(self, class_id: str) -> str:
        """The kind of guest that a class is about."""
        return self._signatures[self._numbers[class_id]][1]

    @cached_property
    def fingerprinted(self) -> frozenset[str]:
        """The classes of which there is a fingerprint: all but those that stand for none."""
        query = sa.select(class_variant.c.class_id).distinct()
        with self.database.reading() as connection:
            numbers = connection.scalars(query).all()
        return frozenset(self._signatures[number][0] for number in numbers)

    def tallies(self) -> tuple[Tally, ...]:
        """How many hosts of which class, kernel and site."""
        query = sa.select(
            tally.c.class_id, make.c.kernel, make.c.cpu, tally.c.site, sa.func.sum(tally.c.hosts)
        )
        query = query.join(make, make.c.id == tally.c.make_id).group_by(
            tally.c.class_id, make.c.kernel, make.c.cpu, tally.c.site
        )
        with self.database.reading() as connection:
            return tuple(
                Tally(self._signatures[number][0], kernel, cpu, site, int(hosts))
                for number, kernel, cpu, site, hosts in connection.execute(query)
            )

    def classes(self) -> tuple[HostClass, ...]:
        """Every class that a host is of, by kind, oldest kernel first."""
        query = sa.select(tally.c.class_id, make.c.kernel, make.c.qemus, make.c.cpu, tally.c.hosts)
        query = query.join(make, make.c.id == tally.c.make_id)
        found: dict[int, list[tuple[str, str, str, int]]] = {}
        with self.database.reading() as connection:
            for number, kernel, qemus, cpu, hosts in connection.execute(query):
                found.setdefault(number, []).append((kernel, qemus, cpu, hosts))
        made = [
            HostClass(
                *self._signatures[number],
                tuple(sorted({row[0] for row in rows}, key=release_key)),
                tuple(sorted({one for row in rows for one in json.loads(row[1])}, key=release_key)),
                tuple(sorted({row[2] for row in rows})),
                sum(row[3] for row in rows),
            )
            for number, rows in found.items()
        ]
        return tuple(
            sorted(
                made, key=lambda one: (one.kind, [*map(release_key, one.kernels)], one.cpus, one.id)
            )
        )

    def fingerprints(self, class_id: str) -> tuple[Fingerprint, ...]:
        """A fingerprint for each content of a class; none where nothing is known of its hosts."""
        query = (
            sa.select(variant.c.document)
            .join(class_variant, class_variant.c.signature == variant.c.signature)
            .where(class_variant.c.class_id == self._numbers[class_id])
            .order_by(variant.c.signature)
        )
        with self.database.reading() as connection:
            packed = connection.scalars(query).all()
        return tuple(parse(zlib.decompress(one), f"class {class_id}") for one in packed)

    # -- hosts

    def hosts(
        self, names: Sequence[str] | None = None, *, most: int | None = None
    ) -> tuple[Host, ...]:
        """All hosts, or those called so that there are, by name; at most so many."""
        query = sa.select(host, make.c.kernel, make.c.qemus, make.c.cpu).join(
            make, make.c.id == host.c.make_id
        )
        query = query.order_by(host.c.name).limit(most)
        members = sa.select(membership)
        if names is not None:
            query = query.where(host.c.name.in_(names))
        if names is not None or most is not None:
            members = members.where(membership.c.host_id.in_(_ids(query)))
        classes: dict[int, dict[str, str]] = {}
        with self.database.reading() as connection:
            for number, one in connection.execute(members):
                signature, kind = self._signatures[one]
                classes.setdefault(number, {})[kind] = signature
            return tuple(
                Host(
                    row.name,
                    row.kernel,
                    tuple(json.loads(row.qemus)),
                    row.cpu,
                    row.memory * _MIB,
                    row.failure_domain,
                    row.heard,
                    classes.get(row.id, {}),
                    row.site,
                )
                for row in connection.execute(query)
            )

    def host(self, name: str) -> Host:
        """One host. Raises UnknownName."""
        found = self.hosts([name])
        if not found:
            raise UnknownName(f"no host {name!r} in {self.database.text}; see armferry fleet hosts")
        return found[0]

    def heard(self, since: float) -> tuple[int, int]:
        """How many hosts there are, and how many were heard at `since` or later."""
        query = sa.select(
            sa.func.count(), sa.func.count().filter(host.c.heard >= since)
        ).select_from(host)
        with self.database.reading() as connection:
            every, late = connection.execute(query).one()
        return every, late

    def stale(self) -> int:
        """How many hosts have a fingerprint of another kernel than they run."""
        query = sa.select(sa.func.count()).select_from(host).where(host.c.stale)
        with self.database.reading() as connection:
            return connection.scalar(query) or 0

    def used(self) -> dict[str, int]:
        """Host -> bytes of memory that its guests have."""
        query = (
            sa.select(host.c.name, sa.func.sum(guest.c.memory))
            .join(guest, guest.c.host_id == host.c.id)
            .group_by(host.c.name)
        )
        with self.database.reading() as connection:
            return {name: int(memory) * _MIB for name, memory in connection.execute(query)}

    def silent(self, since: float, most: int) -> tuple[tuple[str, float], ...]:
        """Hosts not heard since, the longest silent first: name and time."""
        query = (
            sa.select(host.c.name, host.c.heard)
            .where(host.c.heard < since)
            .order_by(host.c.heard, host.c.name)
            .limit(most)
        )
        with self.database.reading() as connection:
            return tuple((name, heard) for name, heard in connection.execute(query))

    def history(self, name: str) -> tuple[Past, ...]:
        """What changed on a host, newest first. Raises UnknownName."""
        self.host(name)
        query = (
            sa.select(history, make.c.kernel, make.c.qemus, make.c.armferry)
            .join(host, host.c.id == history.c.host_id)
            .join(make, make.c.id == history.c.make_id)
            .where(host.c.name == name)
            .order_by(history.c.time.desc())
        )
        with self.database.reading() as connection:
            return tuple(
                Past(
                    row.time,
                    row.kernel,
                    tuple(json.loads(row.qemus)),
                    row.boot,
                    row.armferry,
                    tuple(self._signatures[one][0] for one in json.loads(row.classes)),
                )
                for row in connection.execute(query)
            )

    # -- guests

    def states(self) -> dict[tuple[str, str], int]:
        """(Class of birth, present class) -> how many guests."""
        with self.database.reading() as connection:
            return {
                (self._signatures[birth][0], self._signatures[present][0]): guests
                for birth, present, guests in connection.execute(sa.select(guest_state))
            }

    def guests(
        self,
        *,
        host_name: str | None = None,
        states: Iterable[tuple[str, str]] | None = None,
        guest_id: str | None = None,
        pinned: bool = False,
        most: int | None = None,
    ) -> tuple[Guest, ...]:
        """Guests: of a host, in one of `states`, of an id or a name, only pinned ones."""
        query = sa.select(guest, host.c.name.label("host")).join(host, host.c.id == guest.c.host_id)
        if host_name is not None:
            query = query.where(host.c.name == host_name)
        if states is not None:
            pairs = [
                sa.and_(
                    guest.c.present == self._numbers[present], guest.c.birth == self._numbers[birth]
                )
                for birth, present in states
            ]
            query = query.where(sa.or_(sa.false(), *pairs))
        if guest_id is not None:
            query = query.where(sa.or_(guest.c.guest_id == guest_id, guest.c.name == guest_id))
        if pinned:
            query = query.where(guest.c.id.in_(sa.select(pin.c.guest)))
        query = query.order_by(guest.c.id)
        if most is not None:
            query = query.limit(most)
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
            pins: dict[int, list[str]] = {}
            pinned_rows = sa.select(pin)
            if len(rows) < _FEW:
                pinned_rows = pinned_rows.where(pin.c.guest.in_([row.id for row in rows]))
            for number, name in connection.execute(pinned_rows):
                pins.setdefault(number, []).append(name)
        return tuple(
            Guest(
                row.guest_id,
                row.host,
                self._signatures[row.present][1],
                self._signatures[row.birth][0],
                row.memory * _MIB,
                frozenset(pins.get(row.id, ())),
                row.name,
            )
            for row in rows
        )

    def guest(self, text: str) -> Guest:
        """The guest of that id or name. Raises UnknownName."""
        found = self.guests(guest_id=text, most=2)
        if not found:
            raise UnknownName(f"no guest {text!r} in {self.database.text}")
        if len(found) > 1:
            raise UnknownName(f"several guests are called {text!r}: name one by its id")
        return found[0]

    def fleet(self) -> Fleet:
        """All hosts and guests."""
        return Fleet(self.hosts(), self.guests())

    # -- cells

    def read_cells(self, key: str) -> dict[Triple, Cell]:
        """As `CellStore`."""
        query = sa.select(cell.c.birth, cell.c.present, cell.c.destination, cell.c.outcome)
        used = sa.select(cell.c.outcome).where(cell.c.key == key).distinct()
        with self.database.reading() as connection:
            outcomes = {
                row.id: _cell(row.answer, row.risk, row.detail)
                for row in connection.execute(sa.select(outcome).where(outcome.c.id.in_(used)))
            }
            rows = connection.execute(query.where(cell.c.key == key)).all()
        names = {number: signature for number, (signature, _) in self._signatures.items()}
        return {
            (names[birth], names[present], names[destination]): outcomes[found]
            for birth, present, destination, found in rows
        }

    def write_cells(self, key: str, cells: Mapping[Triple, Cell]) -> None:
        """As `CellStore`."""
        with self.database.writing() as connection:
            numbers = _outcomes(connection, cells.values())
            known = {
                tuple(row)
                for row in connection.execute(
                    sa.select(cell.c.birth, cell.c.present, cell.c.destination).where(
                        cell.c.key == key
                    )
                )
            }
            new = []
            for triple, found in cells.items():
                birth, present, destination = (self._numbers[one] for one in triple)
                if (birth, present, destination) not in known:
                    row = {"birth": birth, "present": present, "destination": destination}
                    new.append({"key": key, **row, "outcome": numbers[found]})
            if new:
                connection.execute(sa.insert(cell), new)


def _outcomes(connection: sa.Connection, cells: Iterable[Cell]) -> dict[Cell, int]:
    """The number of what each cell says, given one where it is new."""
    known: dict[str, int] = {
        digest: number
        for number, digest in connection.execute(sa.select(outcome.c.id, outcome.c.digest))
    }
    following = max(known.values(), default=0) + 1
    numbers: dict[Cell, int] = {}
    new = []
    for found in cells:
        if found in numbers:
            continue
        row = {"answer": found.answer.rank, "risk": int(found.risk), "detail": _detail(found)}
        digest = hashlib.sha256(repr(tuple(row.values())).encode()).hexdigest()
        if digest not in known:
            known[digest] = following
            new.append({"id": following, "digest": digest, **row})
            following += 1
        numbers[found] = known[digest]
    if new:
        connection.execute(sa.insert(outcome), new)
    return numbers


def _ids(hosts: "sa.Select[Any]") -> "sa.Select[Any]":
    """The numbers of the hosts that a query finds."""
    return sa.select(hosts.subquery().c.id)


def _detail(found: Cell) -> str:
    return json.dumps(
        [
            found.verdict,
            found.stock,
            found.why,
            [[one.index, one.name, one.mask, one.expected] for one in found.conditions],
            [[one.index, one.name, one.mask, one.expected] for one in found.lossless_if],
        ],
        separators=(",", ":"),
    )


def _cell(answer: int, risk: int, detail: str) -> Cell:
    verdict, stock, why, needed, losing = json.loads(detail)
    return Cell(
        _ANSWERS[answer],
        Risk(risk),
        tuple(Condition(*one) for one in needed),
        verdict,
        stock,
        why,
        tuple(Condition(*one) for one in losing),
    )
