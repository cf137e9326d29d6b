"""Engines, sessions, migrations, and the few places where SQLite and PostgreSQL need different words."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from sqlite3 import OperationalError
from typing import Any, TypeAlias

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import BigInteger, Connection, Dialect, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import DateTime, TypeDecorator

Sessions: TypeAlias = sessionmaker[Session]

BUSY_SECONDS = 30
_MIGRATION_LOCK = 0x5CA1E
_NAMES = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}


def now() -> datetime:
    """This moment, aware, in UTC."""
    return datetime.now(UTC)


class UTCDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC on every database (SQLite keeps no time zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuses naive datetimes."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"given the naive datetime {value}; allowed: aware ones, such as store.db.now()")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Says that it is UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class current_transaction(FunctionElement[int]):
    """SQL function: number of this transaction; transactions may commit in another order than they began."""

    type = BigInteger()
    inherit_cache = True


class oldest_transaction(FunctionElement[int]):
    """SQL function: every transaction with a smaller number has ended."""

    type = BigInteger()
    inherit_cache = True


@compiles(current_transaction, "sqlite")
@compiles(current_transaction, "postgresql")
def _compile_current(_element: current_transaction, compiler: Any, **_options: Any) -> str:
    """One transaction writes at a time on SQLite, so there the order needs no number."""
    if compiler.dialect.name == "sqlite":
        return "0"
    return "CAST(CAST(pg_current_xact_id() AS text) AS bigint)"


@compiles(oldest_transaction, "sqlite")
@compiles(oldest_transaction, "postgresql")
def _compile_oldest(_element: oldest_transaction, compiler: Any, **_options: Any) -> str:
    if compiler.dialect.name == "sqlite":
        return "1"
    return "CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)"


def make_engine(url: str) -> Engine:
    """Connects (lazily) to a database.

    Args:
        url: ``sqlite:///path/to/file.db`` (its folder is created) or ``postgresql://user:password@host/name``.

    Raises:
        ValueError: if it is neither a SQLite file nor PostgreSQL.
    """
    parsed = make_url(url)
    parsed = parsed.set(drivername=_NAMES.get(parsed.drivername, parsed.drivername))
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql") or parsed.database in (None, "", ":memory:"):
        given = parsed.render_as_string(hide_password=True)
        raise ValueError(
            f"given the database {given}; allowed: sqlite:///path/to/file.db or postgresql://host/name"
        )
    # NaN is no JSON: refuse it on SQLite as PostgreSQL does.
    serializer = partial(json.dumps, allow_nan=False)
    if backend == "postgresql":
        return create_engine(
            parsed, json_serializer=serializer, pool_pre_ping=True, pool_size=8, max_overflow=32
        )
    Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        parsed,
        json_serializer=serializer,
        connect_args={"timeout": BUSY_SECONDS},
        pool_size=8,
        max_overflow=32,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction by itself; _begin_sqlite does
    _write_ahead(connection)
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _write_ahead(connection: Any) -> None:
    """Turns the write-ahead log on. While another process does so SQLite may refuse at once, whatever the
    timeout."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except OperationalError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    """Takes the write lock at once: a transaction that asks for it half-way is refused, not queued."""
    mode = "DEFERRED" if connection.get_execution_options().get("reading") else "IMMEDIATE"
    connection.exec_driver_sql(f"BEGIN {mode}")


def make_sessions(engine: Engine) -> Sessions:
    """Sessions of a database; ``with sessions.begin() as session`` is one writing transaction."""
    return sessionmaker(engine, expire_on_commit=False)


def reading(sessions: Sessions) -> Session:
    """A session that only reads: on SQLite it waits for no writer and no writer waits for it."""
    return sessions(execution_options={"reading": True})


def insert_new(session: Session, table: type[Any] | Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that leaves out rows that contradict a unique key."""
    insert: Callable[[Any], Any] = (
        postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    )
    statement: postgresql.Insert | sqlite.Insert = insert(table).on_conflict_do_nothing()
    return statement


def lock(connection: Session | Connection, number: int) -> None:
    """Waits until no other transaction holds this number, and holds it until this one ends.

    On SQLite a writing transaction is alone already.
    """
    bind = connection.get_bind() if isinstance(connection, Session) else connection
    if bind.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


def alembic_config() -> Config:
    """Where the migrations are; they run on the connection put into its ``attributes``."""
    config = Config()
    config.set_main_option("script_location", "store:migrations")
    return config


def migrate(engine: Engine) -> None:
    """Brings the schema up to date in one transaction; processes that call it at once wait for each other."""
    config = alembic_config()
    with engine.begin() as connection:
        lock(connection, _MIGRATION_LOCK)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_current(engine: Engine) -> bool:
    """Whether the database can be reached and has this version's schema."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    with engine.connect().execution_options(reading=True) as connection:
        return MigrationContext.configure(connection).get_current_revision() == head
