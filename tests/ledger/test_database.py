from __future__ import annotations

import importlib.util
import os
import signal
import sqlite3
from multiprocessing.connection import Connection

import pytest
from sqlalchemy import create_engine, text

from credit.errors import InvalidRequestError, LedgerError, LockHeldError
from credit.ledger import providers
from credit.ledger.database import Ledger, parse_url, redact, upgrade
from credit.ledger.schema import REVISIONS
from credit.records import Provider
from tests.conftest import ON_SQLITE, SYNCHRONOUS
from tests.ledger.samples import NOW, undone
from tests.processes import FORKS


def rename_revision(url: str, revision: str) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    engine.dispose()


def test_a_missing_file_is_refused_and_not_created(tmp_path):
    with pytest.raises(LedgerError, match="credit init"):
        Ledger.open(f"sqlite:///{tmp_path}/missing.db")
    assert list(tmp_path.iterdir()) == []


def test_a_database_without_a_ledger_is_refused(empty_url, engine_name):
    if engine_name == "sqlite":
        sqlite3.connect(empty_url.removeprefix("sqlite:///")).close()
    with pytest.raises(LedgerError, match="credit init"):
        Ledger.open(empty_url)


def test_a_newer_ledger_is_refused_and_left_alone(database_url):
    rename_revision(database_url, "9999")
    with pytest.raises(LedgerError, match="newer"):
        Ledger.open(database_url)
    with pytest.raises(LedgerError, match="newer"):
        upgrade(database_url)


def test_an_older_ledger_is_refused(database_url, monkeypatch):
    monkeypatch.setattr("credit.ledger.database.REVISIONS", (*REVISIONS, "9999"))
    with pytest.raises(LedgerError, match=r"needs 9999; run: credit init"):
        Ledger.open(database_url)


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path):
    path = tmp_path / "credit.db"
    path.write_text("this is a text file, long enough to have a header" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger.open(f"sqlite:///{path}")


def test_an_unreachable_server_is_a_clear_error_without_the_password(tmp_path):
    with pytest.raises(LedgerError, match="cannot use") as caught:
        Ledger.open(f"postgresql://someone:s3cret@/credit?host={tmp_path}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["mysql://host/db", "sqlite://", "sqlite:///:memory:", "no url", "postgresql://u:p@h:x/d"]
)
def test_urls_without_a_ledger_are_wrong_requests(url):
    with pytest.raises(InvalidRequestError):
        Ledger.open(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_spelling_of_postgresql_uses_the_same_driver(scheme):
    assert parse_url(f"{scheme}://host/name").drivername == "postgresql+psycopg"


def test_postgresql_without_its_driver_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LedgerError, match=r"credit\[postgres\]"):
        Ledger.open("postgresql://host/name")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:s3cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql+psycopg://u:s3cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d?password=s3cret&sslmode=require", "postgresql://u@h/d?password=hidden&sslmode=require"),
        ("sqlite:///credit.db", "sqlite:///credit.db"),
        ("postgresql://u:s3cret@h:port/d", "<unreadable database URL>"),
    ],
)
def test_a_url_is_printed_without_its_secrets(url, shown):
    assert redact(url) == shown


def test_a_write_that_raises_leaves_nothing(ledger):
    with undone(ledger) as conn:
        providers.add_provider(conn, Provider("ada", "Ada"), now=NOW)
    with ledger.read() as conn:
        assert [item.key for item in providers.providers(conn)] == ["house"]


def test_a_reader_sees_one_moment_throughout(ledger):
    with ledger.read() as conn:
        before = providers.providers(conn)
        with ledger.write() as other:
            providers.add_provider(other, Provider("ada", "Ada"), now=NOW)
        assert providers.providers(conn) == before
    with ledger.read() as conn:
        assert len(providers.providers(conn)) == len(before) + 1


def test_a_reader_cannot_write(ledger):
    with pytest.raises(LedgerError, match=r"read-?only"), ledger.read() as conn:
        providers.add_provider(conn, Provider("ada", "Ada"), now=NOW)
    with ledger.write() as conn:
        providers.add_provider(conn, Provider("ada", "Ada"), now=NOW)


@ON_SQLITE
def test_a_writer_that_waits_too_long_is_told_who_is_in_the_way(ledger, monkeypatch):
    # PostgreSQL waits until the other one is done.
    monkeypatch.setattr("credit.ledger.database.BUSY_TIMEOUT_MS", 1)
    with ledger.write(), pytest.raises(LockHeldError, match="another run is writing"), ledger.write():
        pass


@ON_SQLITE
def test_sqlite_is_asked_for_what_the_ledger_promises(ledger, monkeypatch):
    monkeypatch.setattr("credit.ledger.database.SYNCHRONOUS", SYNCHRONOUS)
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1}
    with ledger.write() as conn:
        assert {name: conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in wanted} == wanted


@pytest.mark.parametrize(
    ("pragma", "said"),
    [("max_page_count = 1", "is full, or a quota is used up"), ("query_only = ON", "must be writable for whoever")],
)
@ON_SQLITE
def test_what_a_disk_refuses_is_said_with_the_remedy(ledger, pragma, said):
    long = Provider("ada", 10**6 * "x")

    def write() -> None:
        with ledger.write() as conn:
            conn.exec_driver_sql(f"PRAGMA {pragma}")
            providers.add_provider(conn, long, NOW)

    with pytest.raises(LedgerError, match=rf"cannot use sqlite:.*{said}"):
        write()


def test_a_file_that_cannot_be_opened_is_said_with_the_remedy(tmp_path):
    with pytest.raises(LedgerError, match="must be there and writable"):
        upgrade(f"sqlite:///{tmp_path}")


def test_a_lock_is_held_once_and_freed(ledger):
    with ledger.exclusive("compute"):
        with pytest.raises(LockHeldError, match="compute"), ledger.exclusive("compute"):
            pass
        with ledger.exclusive("close"):
            pass
    with ledger.exclusive("compute"):
        pass


def hold(url: str, ready: Connection) -> None:
    with Ledger.open(url) as other, other.exclusive("compute"):
        ready.send(True)
        ready.recv()


def test_a_lock_is_freed_when_its_process_is_killed(ledger, database_url):
    ours, theirs = FORKS.Pipe()
    process = FORKS.Process(target=hold, args=(database_url, theirs))
    process.start()
    assert ours.recv()
    with pytest.raises(LockHeldError), ledger.exclusive("compute"):
        pass
    os.kill(int(process.pid or 0), signal.SIGKILL)
    process.join()
    ours.close()
    theirs.close()
    wait_until_free(ledger)


def wait_until_free(ledger: Ledger) -> None:
    """A server notices a killed client a moment later; ask until it has."""
    for _ in range(100_000):
        try:
            with ledger.exclusive("compute"):
                return
        except LockHeldError:
            continue
    raise AssertionError("the lock of a dead process was never freed")
