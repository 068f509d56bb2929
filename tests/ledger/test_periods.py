from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Connection

from credit.errors import LedgerError, PeriodClosedError
from credit.ledger import catalog, journal, periods, queries
from credit.records import CREDIT, Group, Provider
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, SEPTEMBER, credit_posting


@pytest.fixture(autouse=True)
def start(conn: Connection) -> None:
    samples.add_providers(conn)


def add_pool(conn: Connection, name: str = OCTOBER, gross: int = 100, less: int = 10, ref: str = "ads") -> periods.Pool:
    return periods.add_pool(conn, name, "USD", gross, less, ref, NOW)


def test_a_day_counts_in_its_month_or_the_first_one_after_that_is_not_closed(conn: Connection) -> None:
    assert periods.open_period_for(conn, date(2026, 9, 30)) == SEPTEMBER
    for name in (SEPTEMBER, OCTOBER):
        journal.ensure_period(conn, name, now=NOW)
        samples.close(conn, name)
    assert periods.open_period_for(conn, date(2026, 9, 30)) == "2026-11"
    assert periods.open_period_for(conn, date(2026, 8, 1)) == "2026-11", "no period is opened before a closed one"
    assert [periods.following(name) for name in ("2026-09", "2026-12")] == ["2026-10", "2027-01"]


def test_open_periods_before_one_are_named_in_order(conn: Connection) -> None:
    for name in ("2026-10", "2026-08", "2026-09"):
        journal.ensure_period(conn, name, now=NOW)
    assert periods.unclosed_before(conn, "2026-10") == ["2026-08", "2026-09"]
    samples.close(conn, "2026-08")
    assert periods.unclosed_before(conn, "2026-10") == ["2026-09"]
    assert [(item.id, item.status) for item in periods.periods(conn)] == [
        ("2026-08", "closed"),
        ("2026-09", "open"),
        ("2026-10", "open"),
    ]


def test_a_pool_is_posted_and_read_back(conn: Connection) -> None:
    item = add_pool(conn)
    assert (item.net_minor, item.txn_id) == (90, 1)
    assert periods.pools(conn, OCTOBER) == [item]
    assert periods.balance(conn, "money:pool:2026-10", "USD") == 90
    assert periods.balance(conn, "money:external", "USD") == -90


def test_a_pool_given_twice_is_one_pool(conn: Connection) -> None:
    assert add_pool(conn) == add_pool(conn)
    assert periods.balance(conn, "money:pool:2026-10", "USD") == 90
    assert add_pool(conn, ref="licences").id == 2


def test_a_pool_of_nothing_posts_nothing(conn: Connection) -> None:
    assert add_pool(conn, gross=10, less=10).txn_id is None
    assert journal.chain_head(conn)[0] == 0


@pytest.mark.parametrize(("gross", "less"), [(101, 10), (100, 11), (101, 11)])
def test_a_pool_reference_with_another_amount_is_refused(conn: Connection, gross: int, less: int) -> None:
    add_pool(conn)
    with pytest.raises(LedgerError, match="holds 100 less 10 USD"):
        add_pool(conn, gross=gross, less=less)


@pytest.mark.parametrize(("gross", "less"), [(-1, 0), (1, -1), (1, 2)])
def test_a_pool_that_is_no_money_is_refused(conn: Connection, gross: int, less: int) -> None:
    with pytest.raises(LedgerError, match="not money to distribute"):
        add_pool(conn, gross=gross, less=less)


@pytest.mark.parametrize(("gross", "less"), [(7, 0), (7, 7)])
def test_a_closed_period_takes_no_pool(conn: Connection, gross: int, less: int) -> None:
    journal.ensure_period(conn, OCTOBER, now=NOW)
    samples.close(conn, OCTOBER)
    with pytest.raises(PeriodClosedError, match=OCTOBER):
        add_pool(conn, gross=gross, less=less)


def test_credits_are_summed_from_the_entries(conn: Connection) -> None:
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
    assert periods.credit_totals(conn, OCTOBER) == {"ada": 13, "bell": 4}
    assert queries.credits_by_group(conn, OCTOBER) == {Group("ada", "novels"): 13, Group("bell"): 4}
    assert [(row.group.provider, row.day.day, row.credit_micro) for row in queries.credit_rows(conn, OCTOBER)] == [
        ("ada", 30, 7),
        ("ada", 5, 6),
        ("bell", 30, 1),
        ("bell", 5, 3),
    ]


def test_a_close_is_read_back_as_it_was_written(conn: Connection) -> None:
    add_pool(conn, gross=111)
    samples.close(conn, OCTOBER)
    found = periods.allocations(conn, OCTOBER)
    assert [(item.provider, item.currency, item.amount_minor) for item in found] == [
        ("ada", "USD", 51),
        ("bell", "USD", 50),
    ]
    (statement,) = periods.statements(conn, OCTOBER)
    assert json.loads(statement.body_json) == {"payable": "0.51"}
    (paid,) = periods.payouts(conn, OCTOBER)
    assert (paid.provider, paid.amount_minor, paid.status) == ("ada", 50, "pending")
    (period,) = periods.periods(conn)
    assert (period.status, period.closed_at, period.close_policy_json) == ("closed", NOW, '{"house":"keep"}')


def test_statements_are_versioned_and_the_same_text_is_the_same_version(conn: Connection) -> None:
    journal.ensure_period(conn, OCTOBER, now=NOW)
    texts = ["{}", "{}", '{"a":1}', "{}", "{}"]
    versions = [periods.add_statement(conn, OCTOBER, "ada", body, now=NOW).version for body in texts]
    assert versions == [1, 1, 2, 3, 3]
    assert periods.add_statement(conn, OCTOBER, "bell", "{}", now=NOW).version == 1
    assert [item.version for item in periods.statements(conn, OCTOBER)] == [1, 2, 3, 1]


def test_closing_twice_or_what_never_opened_is_refused(conn: Connection) -> None:
    with pytest.raises(LedgerError, match="there is no period"):
        periods.close_lock(conn, OCTOBER)
    journal.ensure_period(conn, OCTOBER, now=NOW)
    samples.close(conn, OCTOBER)
    with pytest.raises(PeriodClosedError, match="closed already"):
        periods.close_lock(conn, OCTOBER)


def test_a_balance_is_as_of_an_effective_and_a_recorded_date(conn: Connection) -> None:
    """Learnt on the 5th: earned on the 1st. Learnt on the 9th: that was wrong, and 3 were earned on the 8th."""
    key = "credits:earned:ada/novels"
    journal.post(conn, credit_posting("a", 5, 1, day=date(2026, 10, 1)), now=NOW)
    later = NOW + timedelta(days=4)
    journal.reverse(conn, 1, period=OCTOBER, reason="wrong", now=later)
    journal.post(conn, credit_posting("b", 3, 1, day=date(2026, 10, 8)), now=later)

    def held(effective: int | None, recorded: datetime | None) -> int:
        day = None if effective is None else date(2026, 10, effective)
        return periods.balance(conn, key, CREDIT, effective=day, recorded=recorded)

    assert [held(day, NOW) for day in (None, 1, 8)] == [5, 5, 5]
    assert [held(day, later) for day in (None, 1, 7, 8)] == [3, 0, 0, 3]
    assert [held(day, None) for day in (None, 1)] == [3, 0]
    assert held(None, datetime(2026, 1, 1, tzinfo=UTC)) == 0
    assert periods.balance(conn, key, "USD") == periods.balance(conn, "money:payable:ada", "USD") == 0


def test_status_counts_what_there_is(conn: Connection) -> None:
    index = samples.add_index(conn)
    moments = [datetime(2026, month, 3, tzinfo=UTC) for month in (9, 10, 10)]
    samples.add_outputs(conn, [samples.logged(n, occurred_at=moment) for n, moment in enumerate(moments)])
    samples.value(conn, index.id, [1, 2])
    posted = journal.post(conn, credit_posting("a"), now=NOW)
    found = queries.status(conn)
    assert (found.providers, found.models, found.indexes, found.books) == (3, 1, 1, 1)
    assert (found.outputs, found.pending) == ({"2026-09": 1, "2026-10": 2}, 1)
    assert (found.transactions, found.chain_head) == (1, posted.hash)
    assert [item.id for item in found.periods] == [OCTOBER]


def test_the_books_of_a_month_are_those_that_value_its_outputs(conn: Connection) -> None:
    index = samples.add_index(conn)
    moments = [datetime(2026, month, 3, tzinfo=UTC) for month in (9, 10, 10)]
    samples.add_outputs(conn, [samples.logged(n, occurred_at=moment) for n, moment in enumerate(moments)])
    samples.value(conn, index.id, [1, 2], sha256="a" * 64)
    samples.value(conn, index.id, [3], sha256="b" * 64)
    counted = {
        name: [
            (book.sha256[0], book.output_count, book.outputs_in_period) for book in queries.books_of_period(conn, name)
        ]
        for name in (SEPTEMBER, OCTOBER, "2026-11")
    }
    assert counted == {SEPTEMBER: [("a", 2, 1)], OCTOBER: [("a", 2, 1), ("b", 1, 1)], "2026-11": []}
    assert [queries.outputs_valued(conn, name) for name in (SEPTEMBER, OCTOBER)] == [1, 2]


def test_rows_are_in_the_same_order_on_both_engines(conn: Connection) -> None:
    """By code point, whatever the database's own language: `_` after `Z`, before `a`."""
    keys = ["b", "a_b", "a-b", "ab", "a0"]
    catalog.import_providers(conn, [Provider(key, key) for key in keys], NOW)
    found = [item.key for item in catalog.providers(conn)]
    assert found == sorted(found)
