"""A store opened: which database, its tables brought up to date, one writer at a time.

`fleet.sqlite` or `sqlite:///FILE`, `postgresql://USER@HOST/NAME`. SQLite keeps its journal ahead of
the file (WAL), so that questions are answered while something is imported.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from armferry.errors import ArmferryError, EnvironmentFault

__all__ = ["HEAD", "Database", "StoreFault", "open_database"]

HEAD = "0001"
"""The newest migration."""
_OLDEST_POSTGRES = 15
_LOCK = 0x61726D66  # any number that nobody else takes
_WAIT = 60.0  # seconds for another writer
_CACHE = 65536  # KiB: an index of a million guests is written at random


class StoreFault(EnvironmentFault):
    """The database cannot be opened, read or written."""


class Database:
    """An open store."""

    def __init__(self, engine: sa.Engine, text: str) -> None:
        self._engine = engine
        self.text = text

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection to read with. Raises StoreFault."""
        with self._named(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that no other writer can be in. Raises StoreFault."""
        with self._named(), self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def close(self) -> None:
        """Gives connections back; SQLite then writes its journal into the file."""
        self._engine.dispose()

    def compact(self) -> None:
        """Makes a file of SQLite no larger than it must be. Raises StoreFault."""
        with self.reading() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("VACUUM")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            said = str(cause).strip().splitlines()
            raise StoreFault(f"{self.text}: {said[0] if said else cause!r}") from error

    def upgrade(self) -> None:
        """Brings the tables up to date. Raises StoreFault for a newer armferry's."""
        with self.reading() as connection:
            found = self._version(connection)
        if found == HEAD:
            return
        with self.writing() as connection:
            found = self._version(connection)
            if found == HEAD:
                return
            if found is not None and found > HEAD:
                raise StoreFault(
                    f"{self.text}: its tables are of a newer armferry ({found}, this one knows "
                    f"{HEAD}): use that armferry"
                )
            from alembic import command
            from alembic.config import Config

            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @staticmethod
    def _version(connection: sa.Connection) -> str | None:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return found


def open_database(text: str, *, create: bool = True) -> Database:
    """The store called `text`: a file, or the URL of a database.

    Without `create` a file that is not there is an error. Raises ArmferryError or StoreFault.
    """
    url = _url(text)
    if url.get_backend_name() == "sqlite":
        database = Database(_sqlite(url, text, create=create), text)
    elif url.get_backend_name() == "postgresql":
        database = Database(sa.create_engine(url), text.partition("?")[0])
        with database.reading() as connection:
            version = connection.dialect.server_version_info or (0,)
            if int(version[0]) < _OLDEST_POSTGRES:
                raise StoreFault(
                    f"{database.text}: PostgreSQL {version[0]} is too old: {_OLDEST_POSTGRES} or "
                    "newer is needed"
                )
    else:
        raise ArmferryError(
            f"{url.get_backend_name()} is no store of armferry: name a file, or postgresql://..."
        )
    database.upgrade()
    return database


def _url(text: str) -> sa.URL:
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        raise ArmferryError(f"{text.partition('://')[0]}://...: no URL of a database") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    return url


def _sqlite(url: sa.URL, text: str, *, create: bool) -> sa.Engine:
    place = url.database or ""
    if place and place != ":memory:" and not os.path.exists(place):
        if not create:
            raise ArmferryError(f"{text}: no such store; make one with armferry fleet import")
        folder = Path(place).absolute().parent
        if not folder.is_dir():
            raise ArmferryError(f"{text}: there is no folder {folder}")
    engine = sa.create_engine(url, connect_args={"timeout": _WAIT})

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _: object) -> None:
        # transactions are begun by `writing`, not by the driver
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE}")

    return engine
