"""Engines and migrations, on both databases."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import StatementError

from store.db import Sessions, alembic_config, is_current, make_engine, migrate
from store.models import Base, LeaderRow

ROOT = Path(__file__).parents[2]


def test_models_and_migrations_agree(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrations_lead_back_to_an_empty_database(engine: Engine) -> None:
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert not is_current(engine)
    migrate(engine)
    assert is_current(engine)


def test_observations_of_before_are_no_forecasts(engine: Engine) -> None:
    sweep = "INSERT INTO sweeps (id, name, state, spec, spec_hash, revision, created_at, mirror_fit)"
    old = "INSERT INTO observations (id, sweep_id, config, cost, loss, provenance, created_at)"
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
        connection.execute(text(f"{sweep} VALUES (1, 'a', 'running', '{{}}', 'b', 0, '2026-01-01', 0)"))
        connection.execute(text(f"{old} VALUES (1, 1, '{{}}', '{{}}', 2.0, 'run', '2026-01-01')"))
    migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT loss, deviation FROM observations")).one() == (2.0, 0.0)


def test_processes_that_migrate_at_once_do_not_meet(database_url: str, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "store", "migrate", "--url", database_url]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(program, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    engine = make_engine(database_url)
    assert is_current(engine)
    engine.dispose()


def test_a_new_file_that_another_process_writes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite refuses the write-ahead log at once then, whatever the timeout."""
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waits = []

    def end_the_other(seconds: float) -> None:
        waits.append(seconds)
        other.execute("COMMIT")

    monkeypatch.setattr("store.db.time.sleep", end_the_other)
    engine = make_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
    engine.dispose()
    other.close()
    assert len(waits) == 1


def test_sqlite_is_durable_and_concurrent(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'new' / 'folder' / 'a.db'}")
    with engine.connect() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 30_000}


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://user:secret@host/name"])
def test_other_databases_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(ValueError, match="allowed: sqlite:///path") as error:
        make_engine(url)
    assert "secret" not in str(error.value)


def test_postgres_takes_its_usual_names() -> None:
    for name in ("postgres", "postgresql", "postgresql+psycopg"):
        engine = make_engine(f"{name}://user@host/name")
        assert engine.url.drivername == "postgresql+psycopg"


def test_times_keep_their_zone(sessions: Sessions) -> None:
    moment = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=timezone(timedelta(hours=5)))
    with sessions.begin() as session:
        session.add(LeaderRow(work="a", owner="b", lease_until=moment))
    with sessions() as session:
        row = session.get_one(LeaderRow, "a")
    assert row.lease_until == moment
    assert row.lease_until.tzinfo is UTC


def test_naive_times_are_refused(sessions: Sessions) -> None:
    naive = datetime(2026, 3, 4)
    with pytest.raises(StatementError, match="allowed: aware ones"), sessions.begin() as session:
        session.add(LeaderRow(work="a", owner="b", lease_until=naive))
        session.flush()
