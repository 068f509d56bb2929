from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import Connection

from credit.errors import LedgerError, PeriodClosedError
from credit.ledger import balances, journal, pools
from credit.ledger.credits import credit_rows, credit_totals, credits_by_group
from credit.records import Group
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, credit_posting


@pytest.fixture(autouse=True)
def start(conn: Connection) -> None:
    samples.add_providers(conn)


def add_pool(conn: Connection, name: str = OCTOBER, gross: int = 100, less: int = 10, ref: str = "ads") -> pools.Pool:
    return pools.add_pool(conn, name, "USD", gross, less, ref, NOW)


def test_a_pool_is_posted_and_read_back(conn):
    item = add_pool(conn)
    assert (item.net_minor, item.txn_id) == (90, 1)
    assert pools.pools(conn, OCTOBER) == [item]
    assert balances.balance(conn, "money:pool:2026-10", "USD") == 90
    assert balances.balance(conn, "money:external", "USD") == -90


def test_a_pool_given_twice_is_one_pool(conn):
    assert add_pool(conn) == add_pool(conn)
    assert balances.balance(conn, "money:pool:2026-10", "USD") == 90
    assert add_pool(conn, ref="licences").id == 2


def test_a_pool_of_nothing_posts_nothing(conn):
    assert add_pool(conn, gross=10, less=10).txn_id is None
    assert journal.chain_head(conn)[0] == 0


@pytest.mark.parametrize(("gross", "less"), [(101, 10), (100, 11), (101, 11)])
def test_a_pool_reference_with_another_amount_is_refused(conn, gross, less):
    add_pool(conn)
    with pytest.raises(
        LedgerError, match=r"holds another amount already \(credit pool list 2026-10\).*credit reverse 1"
    ):
        add_pool(conn, gross=gross, less=less)


@pytest.mark.parametrize(("gross", "less"), [(-1, 0), (1, -1), (1, 2)])
def test_a_pool_that_is_no_money_is_refused(conn, gross, less):
    with pytest.raises(LedgerError, match="not money to distribute"):
        add_pool(conn, gross=gross, less=less)


@pytest.mark.parametrize("currency", ["usd", "US", "EURO", "ÜSD", ""])
def test_a_pool_in_what_is_no_currency_is_refused(conn, currency):
    with pytest.raises(LedgerError, match=f"'{currency}' is not an ISO 4217 code such as USD"):
        pools.add_pool(conn, OCTOBER, currency, 100, 10, "ads", NOW)


def test_a_pool_more_than_a_year_ahead_is_refused(conn):
    assert add_pool(conn, "2027-10").period == "2027-10"
    with pytest.raises(LedgerError, match="lies more than a year ahead"):
        add_pool(conn, "2027-11")


@pytest.mark.parametrize(("gross", "less"), [(7, 0), (7, 7)])
def test_a_closed_period_takes_no_pool(conn, gross, less):
    journal.ensure_period(conn, OCTOBER, now=NOW)
    samples.close(conn, OCTOBER)
    with pytest.raises(PeriodClosedError, match=OCTOBER):
        add_pool(conn, gross=gross, less=less)


def test_credits_are_summed_from_the_entries(conn):
    journal.post_all(
        conn,
        [
            credit_posting("a", 5, 3),
            credit_posting("b", 7, 1, day=date(2026, 9, 30)),
            credit_posting("c", 100, 100, period="2026-11"),
        ],
        now=NOW,
    )
    journal.reverse(conn, 1, period=OCTOBER, reason="wrong", now=NOW)
    journal.post(conn, credit_posting("a again", 6, 3), now=NOW)
    assert credit_totals(conn, OCTOBER) == {"ada": 13, "bell": 4}
    assert credits_by_group(conn, OCTOBER) == {Group("ada", "novels"): 13, Group("bell"): 4}
    assert [(row.group.provider, row.day.day, row.credit_micro) for row in credit_rows(conn, OCTOBER)] == [
        ("ada", 30, 7),
        ("ada", 5, 6),
        ("bell", 30, 1),
        ("bell", 5, 3),
    ]
