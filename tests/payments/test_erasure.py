"""Erasing personal details while others read, write and die: gone from the files, or it is said that they are not."""

from __future__ import annotations

import random
import signal
import sqlite3
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import select, text

from credit.ledger.database import Ledger
from credit.ledger.personal_data import personal_events
from credit.ledger.schema import provider_pii
from credit.ledger.verify import verify
from tests.commands import held_open, left, run
from tests.payments.samples import details_of

ERASE = 'providers erase ada --leave-unpaid --reason "asked to"'


def secrets(ledger: Ledger, provider: str = "ada") -> list[str]:
    """What is known of a person, but for words that others may use, and the salts of it."""
    with ledger.read() as conn:
        owner = text("provider_id = (SELECT id FROM provider WHERE key = :key)").bindparams(key=provider)
        salts = conn.execute(select(provider_pii.c.salt).where(owner)).scalars().all()
    known = details_of(provider)
    return [*salts, *(known[name] for name in ("legal_name", "email", "paypal", "iban", "tax_id"))]


def test_after_an_erasure_no_file_of_the_tables_holds_a_byte_of_it(owing, database_url, tmp_path):
    values = secrets(owing)
    assert left(owing, database_url, values) == values
    assert run(database_url, ERASE, tmp_path / "said")[0] == 0
    assert left(owing, database_url, values) == []
    others = secrets(owing, "bell")
    assert left(owing, database_url, others) == others
    assert verify(owing, None).problems == ()


def test_who_read_before_the_erasure_keeps_its_bytes_and_it_says_so(owing, database_url, tmp_path):
    """A snapshot of a table that has nothing to do with it is enough."""
    values = secrets(owing)
    with held_open(database_url, "SELECT key FROM provider"):
        code, said = run(database_url, ERASE, tmp_path / "said")
        assert code == 11
        assert "the details of ada are erased from the ledger, but bytes of them may remain in its files" in said
        assert "run this again to clean the files" in said
        assert values[0] not in said
        assert left(owing, database_url, values) == values
        with owing.read() as conn:
            assert conn.execute(select(provider_pii.c.id).where(provider_pii.c.salt == values[0])).all() == []
        assert run(database_url, ERASE, tmp_path / "said")[0] == 11
    code, said = run(database_url, ERASE, tmp_path / "said")
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
        assert run(database_url, ERASE, tmp_path / "said")[0] == 0
        assert left(owing, database_url, values) == []
        assert other.execute("SELECT count(*) FROM provider_pii").fetchone() == (2,)


def test_who_reads_details_is_waited_for_and_then_it_says_so(owing, database_url, tmp_path):
    values = secrets(owing)
    with held_open(database_url, "SELECT town FROM provider_pii"):
        code, said = run(database_url, ERASE, tmp_path / "said")
        assert (code, "are erased from the ledger, but bytes" in said) == (11, True)
    assert run(database_url, ERASE, tmp_path / "said")[0] == 0
    assert left(owing, database_url, values) == []


def test_who_writes_is_waited_for_and_then_nothing_is_done(owing, database_url, tmp_path):
    if owing.sqlite_path is None:
        return  # a writer waits for the other, for as long as it takes
    with owing.write():
        code, said = run(database_url, ERASE, tmp_path / "said")
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
    code, said = run(f"{database_url}&options=-c%20role=clerk", ERASE, tmp_path / "said")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP OWNED BY clerk")
        connection.execute("DROP ROLE clerk")
    assert code == 1, said
    assert "bytes of them may remain" in said
    assert "run this as its owner" in said
    assert run(database_url, ERASE, tmp_path / "said")[0] == 0
    assert left(owing, database_url, values) == []


def test_a_disk_that_is_full_is_no_other_run(owing, database_url, tmp_path):
    """SQLite needs as much again as the file has to write it anew."""
    if owing.sqlite_path is None:
        return
    values = secrets(owing)
    code, said = run(database_url, ERASE, tmp_path / "said", largest_file=150_000)
    assert (code, "are erased from the ledger, but bytes" in said) == (1, True), said
    assert "cannot be written anew" in said
    assert run(database_url, ERASE, tmp_path / "said")[0] == 0
    assert left(owing, database_url, values) == []


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_step_it_is_finished_by_the_next(owing, database_url, tmp_path, seed):
    """A real SIGKILL between two steps of SQLite's machine, of which an erasure takes some ten thousand."""
    if owing.sqlite_path is None:
        return  # the server goes on, or undoes, what a killed client had asked for
    values = secrets(owing)
    step = random.Random(seed).randrange(200, 40_000)
    code, _ = run(database_url, ERASE, tmp_path / "said", last_step=step)
    assert code in {-signal.SIGKILL, 0}
    with closing(sqlite3.connect(owing.sqlite_path)) as other:  # keeps the write-ahead log, which is then looked at
        other.execute("SELECT key FROM provider").fetchall()
        assert verify(owing, None).problems == ()
        assert run(database_url, ERASE, tmp_path / "said")[0] == 0
        assert left(owing, database_url, values) == []
    with owing.read() as conn:
        assert [item.action for item in personal_events(conn, "ada")] == ["set", "erased"]
    assert verify(owing, None).problems == ()
