"""Races, with real threads on real connections, in an order that a barrier or a lock forces."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import Connection, text

from credit.errors import PeriodClosedError
from credit.ledger import journal, periods
from credit.ledger.credits import credit_totals
from credit.ledger.database import Ledger
from credit.ledger.verify import verify
from tests.conftest import ON_POSTGRESQL, ON_SQLITE
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, credit_posting
from tests.ledger.tampering import INSERT_ENTRY
from tests.processes import FORKS


@pytest.fixture(autouse=True)
def start(ledger: Ledger) -> None:
    with ledger.write() as conn:
        samples.add_providers(conn)
        journal.post(conn, credit_posting("first"), now=NOW)


def post_many(url: str, name: str, count: int) -> None:
    with Ledger.open(url) as ledger:
        for number in range(count):
            with ledger.write() as conn:
                journal.post(conn, credit_posting(f"{name}-{number}"), now=NOW)


def test_processes_that_post_at_once_make_one_chain(ledger, database_url):
    workers = [FORKS.Process(target=post_many, args=(database_url, name, 15)) for name in ("a", "b", "c")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    report = verify(ledger, None)
    assert (report.chain_seq, report.problems) == (46, ())


def test_the_same_key_posted_at_once_is_posted_once(ledger):
    barrier = threading.Barrier(4)

    def work() -> bool:
        barrier.wait()
        with ledger.write() as conn:
            return journal.post(conn, credit_posting("same"), now=NOW).replayed

    with ThreadPoolExecutor(4) as pool:
        results = [future.result() for future in [pool.submit(work) for _ in range(4)]]
    assert sorted(results) == [False, True, True, True]


def test_of_two_closers_one_closes(ledger):
    barrier = threading.Barrier(2)

    def work() -> str:
        barrier.wait()
        try:
            with ledger.write() as conn:
                samples.close(conn, OCTOBER)
        except PeriodClosedError:
            return "refused"
        return "closed"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(future.result() for future in [pool.submit(work) for _ in range(2)]) == ["closed", "refused"]


def test_a_poster_is_in_before_the_close_or_refused_after_it(ledger):
    """Whoever comes first: what the closer summed is what the period holds in the end."""
    barrier = threading.Barrier(5)

    def work(number: int) -> int:
        barrier.wait()
        try:
            with ledger.write() as conn:
                journal.post(conn, credit_posting(f"racer-{number}", 3, 4), now=NOW)
        except PeriodClosedError:
            return 0
        return 7

    def closer() -> int:
        barrier.wait()
        with ledger.write() as conn:
            periods.close_lock(conn, OCTOBER, now=NOW)
            total = sum(credit_totals(conn, OCTOBER).values())
            periods.mark_closed(conn, OCTOBER, policy_json="{}", now=NOW)
        return total

    with ThreadPoolExecutor(5) as pool:
        closing = pool.submit(closer)
        posted = sum(future.result() for future in [pool.submit(work, number) for number in range(4)])
    with ledger.read() as conn:
        assert sum(credit_totals(conn, OCTOBER).values()) == closing.result() == 1_000_000 + posted


class Rival:
    """A connection of a program that knows nothing of `credit`: no lock but what the database takes itself."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url)
        self.pid = self.connection.info.backend_pid

    def run(self, statement: str, **values: object) -> None:
        self.connection.execute(statement, values)


def waits_for_lock(ledger: Ledger, pid: int) -> None:
    """Return once the backend `pid` waits for somebody else's lock."""
    query = text("SELECT cardinality(pg_blocking_pids(:pid))")
    for _ in range(100_000):
        with ledger.read() as conn:
            if conn.execute(query, {"pid": pid}).scalar_one():
                return
    raise AssertionError("it never waited")


def psycopg_style(statement: str) -> str:
    for name in ("txn", "line", "count", "account", "commodity", "amount"):
        statement = statement.replace(f":{name}", f"%({name})s")
    return statement


def late(line: int, count: int = 3) -> dict[str, object]:
    return {"txn": 2, "line": line, "count": count, "account": 1, "commodity": "CREDIT", "amount": 1}


def write_second(conn: Connection) -> None:
    journal.post(conn, credit_posting("second"), now=NOW)


@pytest.mark.parametrize(("line", "count"), [(4, 4), (4, 3), (0, 3)])
@ON_POSTGRESQL
def test_an_entry_slipped_in_before_the_header_is_seen_is_refused(ledger, database_url, line, count):
    """The rival writes its entry while the transaction is not yet committed, where no trigger can see it."""
    rival = Rival(database_url)
    with ledger.write() as conn:
        write_second(conn)
        if 1 <= line <= count:
            rival.run(psycopg_style(INSERT_ENTRY), **late(line, count))
        else:
            with pytest.raises(psycopg.errors.CheckViolation):
                rival.run(psycopg_style(INSERT_ENTRY), **late(line, count))
            rival.connection.rollback()
    if 1 <= line <= count:
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            rival.connection.commit()
    rival.connection.close()
    assert verify(ledger, None).problems == ()


@ON_POSTGRESQL
def test_an_entry_in_a_place_that_is_taken_is_refused_when_the_other_commits(ledger, database_url):
    rival = Rival(database_url)
    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as conn:
            write_second(conn)
            waiting: Future[None] = pool.submit(rival.run, psycopg_style(INSERT_ENTRY), **late(2))
            waits_for_lock(ledger, rival.pid)
        with pytest.raises(psycopg.errors.UniqueViolation):
            waiting.result()
    rival.connection.close()
    assert verify(ledger, None).problems == ()


@ON_SQLITE
def test_a_sqlite_writer_shuts_out_every_other(ledger, database_url):
    import sqlite3

    other = sqlite3.connect(database_url.removeprefix("sqlite:///"), timeout=0)
    with ledger.write() as conn:
        write_second(conn)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO ledger_entry VALUES (2, 3, 3, 1, 'CREDIT', 1)")
    other.close()


CLOSE = "UPDATE period SET status = 'closed', closed_at = opened_at, close_policy_json = '{}' WHERE id = '2026-10'"


@ON_POSTGRESQL
def test_the_database_makes_a_close_wait_for_a_post_that_is_under_way(ledger, database_url):
    """Also a closer that takes none of our locks: the header's trigger holds the period's row."""
    rival = Rival(database_url)
    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as conn:
            write_second(conn)
            closing = pool.submit(rival.run, CLOSE)
            waits_for_lock(ledger, rival.pid)
        closing.result()
        rival.connection.commit()
    rival.connection.close()
    with pytest.raises(PeriodClosedError), ledger.write() as conn:
        journal.post(conn, credit_posting("third"), now=NOW)


@ON_POSTGRESQL
def test_the_database_makes_a_post_wait_for_a_close_and_then_refuses_it(ledger, database_url):
    rival = Rival(database_url)
    rival.run(CLOSE)
    started: list[int] = []
    ready = threading.Event()

    def work(write: Callable[[Connection], None]) -> None:
        with ledger.write() as conn:
            started.append(conn.execute(text("SELECT pg_backend_pid()")).scalar_one())
            ready.set()
            write(conn)

    with ThreadPoolExecutor(1) as pool:
        posting = pool.submit(work, write_second)
        ready.wait()
        waits_for_lock(ledger, started[0])
        rival.connection.commit()
        with pytest.raises(PeriodClosedError):
            posting.result()
    rival.connection.close()


@ON_POSTGRESQL
def test_two_posters_without_our_locks_cannot_fork_the_chain(ledger, database_url):
    """The second one waits on the unique keys of the first one and is refused when that one commits."""
    rival = Rival(database_url)
    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as conn:
            write_second(conn)
            waiting = pool.submit(
                rival.run,
                "INSERT INTO ledger_entry VALUES (2, 1, 2, 1, 'CREDIT', -1), (2, 2, 2, 2, 'CREDIT', 1);",
            )
            waits_for_lock(ledger, rival.pid)
        with pytest.raises(psycopg.errors.UniqueViolation):
            waiting.result()
    rival.connection.close()
    assert verify(ledger, None).problems == ()
