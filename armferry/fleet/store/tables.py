"""The tables. Ids of hosts and guests are numbers of this database alone; a class is known outside
by its `signature`. Sizes of memory are in MiB, times in seconds since 1970.
"""

import uuid
from typing import Any

import sqlalchemy as sa

__all__ = [
    "Token",
    "cell",
    "class_variant",
    "gone",
    "guest",
    "guest_state",
    "history",
    "host",
    "host_class",
    "make",
    "membership",
    "metadata",
    "outcome",
    "pin",
    "tally",
    "variant",
]

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)
_UUID = 16


class Token(sa.types.TypeDecorator[str]):
    """An id as text: of a guest, of a boot. A UUID takes 16 bytes, other text begins with 0xff."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> bytes | None:
        """Text to bytes."""
        if value is None:
            return None
        try:
            found = uuid.UUID(value)
        except ValueError:
            found = None
        if found is not None and str(found) == value:
            return found.bytes
        text = value.encode()
        return (b"\xff\xff" if len(text) == _UUID - 1 else b"\xff") + text

    def process_result_value(self, value: Any | None, dialect: sa.Dialect) -> str | None:
        """Bytes to text."""
        if value is None:
            return None
        found = bytes(value)
        if len(found) == _UUID:
            return str(uuid.UUID(bytes=found))
        return found.lstrip(b"\xff").decode()


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)


def _of(column: str, table: str, **more: Any) -> sa.Column[int]:
    return sa.Column(column, sa.Integer, sa.ForeignKey(f"{table}.id"), nullable=False, **more)


def _text(column: str, **more: Any) -> sa.Column[str]:
    return sa.Column(column, sa.Text, nullable=False, **more)


make = sa.Table(
    "make",
    metadata,
    _id(),
    _text("kernel"),
    _text("qemus"),
    _text("cpu"),
    _text("armferry"),
    sa.UniqueConstraint("kernel", "qemus", "cpu", "armferry"),
    comment="what hosts run and are made of; qemus is a JSON list of versions",
)

host_class = sa.Table(
    "host_class",
    metadata,
    _id(),
    _text("signature", unique=True),
    _text("kind"),
    comment="a class of hosts for one kind of guest",
)

variant = sa.Table(
    "variant",
    metadata,
    sa.Column("signature", sa.Text, primary_key=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
    comment="a content, as a fingerprint that has it, compressed by zlib",
)

class_variant = sa.Table(
    "class_variant",
    metadata,
    _of("class_id", "host_class", primary_key=True),
    sa.Column("signature", sa.Text, sa.ForeignKey("variant.signature"), primary_key=True),
)

host = sa.Table(
    "host",
    metadata,
    _id(),
    _text("name", unique=True),
    _of("make_id", "make"),
    _text("site"),
    _text("failure_domain"),
    sa.Column("memory", sa.Integer, nullable=False),
    sa.Column("heard", sa.Double, nullable=False),
    sa.Column("boot", Token, nullable=False),
    sa.Column("stale", sa.Boolean, nullable=False),
    comment="stale: a fingerprint of it is of another kernel than it runs",
)

membership = sa.Table(
    "membership",
    metadata,
    _of("host_id", "host", primary_key=True),
    _of("class_id", "host_class", primary_key=True, index=True),
    sqlite_with_rowid=False,
    comment="the classes of a host, one for each kind of guest",
)

guest = sa.Table(
    "guest",
    metadata,
    _id(),
    sa.Column("guest_id", Token, nullable=False, unique=True),
    _text("name"),
    _of("host_id", "host", index=True),
    _of("birth", "host_class"),
    _of("present", "host_class"),
    sa.Column("memory", sa.Integer, nullable=False),
    sa.Index("ix_guest_present_birth", "present", "birth"),
)

pin = sa.Table(
    "pin",
    metadata,
    _of("guest", "guest", primary_key=True),
    sa.Column("host_name", sa.Text, primary_key=True),
    comment="the only hosts that a guest may run on",
)

gone = sa.Table(
    "gone",
    metadata,
    sa.Column("guest_id", Token, primary_key=True),
    _of("birth", "host_class"),
    sa.Column("time", sa.Double, nullable=False),
    comment="where a guest was born that no host reports any more: it may be on its way",
)

tally = sa.Table(
    "tally",
    metadata,
    _of("class_id", "host_class", primary_key=True),
    _of("make_id", "make", primary_key=True),
    sa.Column("site", sa.Text, primary_key=True),
    sa.Column("hosts", sa.Integer, nullable=False),
    comment="derived: how many hosts",
)

guest_state = sa.Table(
    "guest_state",
    metadata,
    _of("birth", "host_class", primary_key=True),
    _of("present", "host_class", primary_key=True),
    sa.Column("guests", sa.Integer, nullable=False),
    comment="derived: how many guests",
)

outcome = sa.Table(
    "outcome",
    metadata,
    _id(),
    _text("digest", unique=True),
    sa.Column("answer", sa.SmallInteger, nullable=False),
    sa.Column("risk", sa.SmallInteger, nullable=False),
    _text("detail"),
    comment="what cells say, each once; detail is JSON",
)

cell = sa.Table(
    "cell",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    _of("birth", "host_class", primary_key=True),
    _of("present", "host_class", primary_key=True),
    _of("destination", "host_class", primary_key=True),
    _of("outcome", "outcome"),
    sqlite_with_rowid=False,
    comment="cells that were worked out, by policy and armferry (key)",
)

history = sa.Table(
    "history",
    metadata,
    _of("host_id", "host", primary_key=True),
    sa.Column("time", sa.Double, primary_key=True),
    _of("make_id", "make"),
    sa.Column("boot", Token, nullable=False),
    _text("classes"),
    sqlite_with_rowid=False,
    comment="a host's reports in which something changed; classes is a JSON list of their ids",
)
