"""Closers and posters as real processes on one ledger: each period is closed once, over all that was posted in it."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest

from credit.errors import PeriodClosedError
from credit.ledger import corrections, pools
from credit.ledger.credits import credit_totals
from credit.ledger.database import Ledger
from credit.ledger.verify import verify
from tests.pipeline.books_of_account import JANUARY, NOW, Account
from tests.processes import FORKS

Work = Callable[[str, Barrier, Connection], None]


@pytest.fixture
def account(ledger: Ledger) -> Account:
    opened = Account(ledger).start()
    opened.credits(JANUARY, {"ann": 3, "ben": 1})
    opened.pool(JANUARY, 1_001)
    return opened


def close(url: str, start: Barrier, done: Connection) -> None:
    """Close January once everybody is ready; send what came of it."""
    with Ledger.open(url) as ledger:
        start.wait()
        try:
            report = Account(ledger).close(JANUARY)
        except PeriodClosedError:
            done.send("refused")
        else:
            done.send(f"{report.statements} statements")


def post(url: str, start: Barrier, done: Connection) -> None:
    """Post credits into January until it is closed; send how many micro-credits went in."""
    with Ledger.open(url) as ledger:
        account = Account(ledger, number=1_000)
        start.wait()
        posted = 0
        try:
            while posted < 10_000:
                account.credits(JANUARY, {"ann": 7})
                posted += 7
        except PeriodClosedError:
            pass
        done.send(posted)


def adjust(url: str, start: Barrier, done: Connection) -> None:
    """Post the same adjustment of January again and again until it is closed; send how often it was new."""
    with Ledger.open(url) as ledger:
        start.wait()
        fresh = 0
        for _ in range(40):
            with ledger.write() as conn:
                try:
                    said = corrections.adjust(conn, "ann", 50, "EUR", period=JANUARY, reason="the same", now=NOW)
                except PeriodClosedError:
                    break
            fresh += not said.replayed
        done.send(fresh)


def at_once(url: str, *works: Work) -> list[Any]:
    """Run each in a process of its own, started together; return what they sent."""
    start = FORKS.Barrier(len(works))
    running: list[tuple[BaseProcess, Connection]] = []
    for work in works:
        ours, theirs = FORKS.Pipe(duplex=False)
        process = FORKS.Process(target=work, args=(url, start, theirs))
        process.start()
        theirs.close()
        running.append((process, ours))
    results = [ours.recv() for _, ours in running]
    for process, _ in running:
        process.join()
    assert [process.exitcode for process, _ in running] == [0] * len(works)
    return results


def test_of_two_closers_one_closes_and_the_other_is_refused(account, database_url):
    assert sorted(at_once(database_url, close, close)) == ["2 statements", "refused"]
    assert len(account.statements()) == 2
    assert account.balance("money:payout:ann") + account.balance("money:payout:ben") == 1_001
    assert verify(account.ledger, None).problems == ()


def test_what_a_poster_got_in_before_the_close_is_in_it(account, database_url):
    closed, posted = at_once(database_url, close, post)
    assert closed == "2 statements"
    total = 4 + posted
    assert account.statement(JANUARY, "ann")["credits"]["total_credit_micro"] == str(total)
    with account.ledger.read() as conn:
        assert sum(credit_totals(conn, JANUARY).values()) == total
        shares = {(item.provider, item.total_credit_micro) for item in pools.allocations(conn, JANUARY)}
    assert shares == {("ann", total), ("ben", total)}
    assert verify(account.ledger, None).problems == ()


def test_an_adjustment_posted_by_many_is_posted_once_and_before_the_close_or_not_at_all(account, database_url):
    closed, *fresh = at_once(database_url, close, adjust, adjust)
    assert closed == "2 statements"
    assert sum(fresh) <= 1
    (balance,) = account.statement(JANUARY, "ann")["balances"]
    assert balance["adjustments"] == ("0.50" if sum(fresh) else "0.00")
    assert verify(account.ledger, None).problems == ()
