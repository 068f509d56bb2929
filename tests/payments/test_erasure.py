"""Erasing personal details while others read, write and die: gone from the files, or it is said that they are not."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shlex
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event, select, text

from credit.ledger import database
from credit.ledger.database import Ledger
from credit.ledger.personal_data import personal_events
from credit.ledger.schema import provider_pii
from credit.ledger.verify import verify
from tests.payments.samples import details_of

ERASE = 'providers erase ada --reason "asked to"'
_SPAWN = multiprocessing.get_context("spawn")


def run_command(url: str, line: str, said: Path, last_step: int | None, largest_file: int | None) -> None:
    """Run a command in a process of its own that waits for nobody.

    It dies after so many steps of SQLite's machine, and finds the disk full where a file would grow beyond a size.
    """
    from contextlib import redirect_stderr, redirect_stdout

    from credit.cli.main import cli

    database.BUSY_TIMEOUT_MS = 100
    if largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if last_step is not None:
        steps = iter(range(last_step))

        def step() -> int:
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return 0

        @event.listens_for(Engine, "begin")
        def count_steps(conn: Connection) -> None:
            driver = conn.connection.driver_connection
            assert driver is not None
            driver.set_progress_handler(step, 1)

    os.environ["CREDIT_DATABASE_URL"] = url
    with said.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        cli(shlex.split(line), prog_name="credit")


def run(
    url: str, said: Path, *, last_step: int | None = None, largest_file: int | None = None
) -> tuple[int | None, str]:
    process = _SPAWN.Process(target=run_command, args=(url, ERASE, said, last_step, largest_file))
    process.start()
    process.join()
    return process.exitcode, said.read_text()


def hold_open(url: str, statement: str, pipe: Pipe) -> None:
    """Keep a transaction open in a process of its own until the pipe says so."""
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("BEGIN")
    else:
        connection = psycopg.connect(url)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute(statement).fetchall()
    pipe.send("open")
    pipe.recv()
    connection.close()


@contextmanager
def held_open(url: str, statement: str) -> Iterator[None]:
    here, there = _SPAWN.Pipe()
    process = _SPAWN.Process(target=hold_open, args=(url, statement, there))
    process.start()
    here.recv()
    yield
    here.send("end")
    process.join()


def secrets(ledger: Ledger, provider: str = "ada") -> list[str]:
    """What is known of a person, but for words that others may use, and the salts of it."""
    with ledger.read() as conn:
        owner = text("provider_id = (SELECT id FROM provider WHERE key = :key)").bindparams(key=provider)
        salts = conn.execute(select(provider_pii.c.salt).where(owner)).scalars().all()
    known = details_of(provider)
    return [*salts, *(known[name] for name in ("legal_name", "email", "paypal", "iban", "tax_id"))]


def left(ledger: Ledger, url: str, values: list[str]) -> list[str]:
    """Those of some values of which a byte is in the files that hold the ledger's tables."""
    if ledger.sqlite_path is not None:
        path = ledger.sqlite_path
        files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-journal"))]
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
            (folder,), (number,) = (
                connection.execute(query).fetchone() or ("",)
                for query in (
                    "SHOW data_directory",
                    "SELECT oid::text FROM pg_database WHERE datname = current_database()",
                )
            )
        files = list(Path(folder, "base", number).iterdir())
    content = b"".join(file.read_bytes() for file in files if file.is_file())
    return [value for value in values if value.encode() in content]


def test_after_an_erasure_no_file_of_the_tables_holds_a_byte_of_it(owing, database_url, tmp_path):
    values = secrets(owing)
    assert left(owing, database_url, values) == values
    assert run(database_url, tmp_path / "said")[0] == 0
    assert left(owing, database_url, values) == []
    others = secrets(owing, "bell")
    assert left(owing, database_url, others) == others
    assert verify(owing, None).problems == ()


def test_who_read_before_the_erasure_keeps_its_bytes_and_it_says_so(owing, database_url, tmp_path):
    """A snapshot of a table that has nothing to do with it is enough."""
    values = secrets(owing)
    with held_open(database_url, "SELECT key FROM provider"):
        code, said = run(database_url, tmp_path / "said")
        assert code == 11
        assert "the details of ada are erased from the ledger, but bytes of them may remain in its files" in said
        assert "run this again to clean the files" in said
        assert values[0] not in said
        assert left(owing, database_url, values) == values
        with owing.read() as conn:
            assert conn.execute(select(provider_pii.c.id).where(provider_pii.c.salt == values[0])).all() == []
        assert run(database_url, tmp_path / "said")[0] == 11
    code, said = run(database_url, tmp_path / "said")
    assert (code, said) == (0, "ada: there are no details; the files are clean\n")
    assert left(owing, database_url, values) == []
    with owing.read() as conn:
        assert [item.action for item in personal_events(conn, "ada")] == ["set", "erased"]


def test_who_only_has_the_ledger_open_is_not_in_the_way(owing, database_url, tmp_path):
    values = secrets(owing)
    if owing.sqlite_path is None:
        return
    with closing(sqlite3.connect(owing.sqlite_path)) as other:
        other.execute("SELECT key FROM provider").fetchall()
        assert run(database_url, tmp_path / "said")[0] == 0
        assert left(owing, database_url, values) == []
        assert other.execute("SELECT count(*) FROM provider_pii").fetchone() == (2,)


def test_who_reads_details_is_waited_for_and_then_it_says_so(owing, database_url, tmp_path):
    values = secrets(owing)
    with held_open(database_url, "SELECT town FROM provider_pii"):
        code, said = run(database_url, tmp_path / "said")
        assert (code, "are erased from the ledger, but bytes" in said) == (11, True)
    assert run(database_url, tmp_path / "said")[0] == 0
    assert left(owing, database_url, values) == []


def test_who_writes_is_waited_for_and_then_nothing_is_done(owing, database_url, tmp_path):
    if owing.sqlite_path is None:
        return  # a writer waits for the other, for as long as it takes
    with owing.write():
        code, said = run(database_url, tmp_path / "said")
    assert (code, "another run is writing" in said) == (11, True)
    with owing.read() as conn:
        assert [item.action for item in personal_events(conn, "ada")] == ["set"]


def test_who_may_not_write_the_table_anew_is_told(owing, database_url, tmp_path):
    """PostgreSQL only warns, and passes the table over."""
    if owing.sqlite_path is not None:
        return
    values = secrets(owing)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS clerk")
        connection.execute("CREATE ROLE clerk LOGIN")
        connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk")
    code, said = run(f"{database_url}&options=-c%20role=clerk", tmp_path / "said")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP OWNED BY clerk")
        connection.execute("DROP ROLE clerk")
    assert code == 1, said
    assert "bytes of them may remain" in said
    assert "run this as its owner" in said
    assert run(database_url, tmp_path / "said")[0] == 0
    assert left(owing, database_url, values) == []


def test_a_disk_that_is_full_is_no_other_run(owing, database_url, tmp_path):
    """SQLite needs as much again as the file has to write it anew."""
    if owing.sqlite_path is None:
        return
    values = secrets(owing)
    code, said = run(database_url, tmp_path / "said", largest_file=150_000)
    assert (code, "are erased from the ledger, but bytes" in said) == (1, True), said
    assert "cannot be written anew" in said
    assert run(database_url, tmp_path / "said")[0] == 0
    assert left(owing, database_url, values) == []


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_step_it_is_finished_by_the_next(owing, database_url, tmp_path, seed):
    """A real SIGKILL between two steps of SQLite's machine, of which an erasure takes some ten thousand."""
    if owing.sqlite_path is None:
        return  # the server goes on, or undoes, what a killed client had asked for
    values = secrets(owing)
    step = random.Random(seed).randrange(200, 40_000)
    code, _ = run(database_url, tmp_path / "said", last_step=step)
    assert code in {-signal.SIGKILL, 0}
    with closing(sqlite3.connect(owing.sqlite_path)) as other:  # keeps the write-ahead log, which is then looked at
        other.execute("SELECT key FROM provider").fetchall()
        assert verify(owing, None).problems == ()
        assert run(database_url, tmp_path / "said")[0] == 0
        assert left(owing, database_url, values) == []
    with owing.read() as conn:
        assert [item.action for item in personal_events(conn, "ada")] == ["set", "erased"]
    assert verify(owing, None).problems == ()
