from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import Connection

from credit.errors import LedgerError, PeriodClosedError
from credit.ledger import journal, payouts, periods, pools, statements, values
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, SEPTEMBER


@pytest.fixture(autouse=True)
def start(conn: Connection) -> None:
    samples.add_providers(conn)


def test_a_day_counts_in_its_month_or_the_first_one_after_that_is_not_closed(conn):
    assert periods.open_period_for(conn, date(2026, 9, 30)) == SEPTEMBER
    for name in (SEPTEMBER, OCTOBER):
        journal.ensure_period(conn, name, now=NOW)
        samples.close(conn, name)
    assert periods.open_period_for(conn, date(2026, 9, 30)) == "2026-11"
    assert periods.open_period_for(conn, date(2026, 8, 1)) == "2026-11", "no period is opened before a closed one"
    assert [values.following(name) for name in ("2026-09", "2026-12")] == ["2026-10", "2027-01"]


def test_open_periods_before_one_are_named_in_order(conn):
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


def test_a_close_is_read_back_as_it_was_written(conn):
    pools.add_pool(conn, OCTOBER, "USD", 111, 10, "ads", NOW)
    samples.close(conn, OCTOBER)
    found = pools.allocations(conn, OCTOBER)
    assert [(item.provider, item.amount_minor) for item in found] == [("ada", 51), ("bell", 50)]
    (statement,) = statements.statements(conn, OCTOBER)
    assert json.loads(statement.body_json) == {"payable": "0.51"}
    (paid,) = payouts.payouts(conn, OCTOBER)
    assert (paid.provider, paid.amount_minor, paid.status) == ("ada", 50, "pending")
    (period,) = periods.periods(conn)
    assert (period.status, period.closed_at, period.close_policy_json) == ("closed", NOW, '{"house":"keep"}')


def test_a_month_with_outputs_is_a_period_before_anything_is_posted_into_it(conn):
    samples.add_index(conn)
    samples.add_outputs(conn, [samples.logged(1, occurred_at=datetime(2026, 9, 30, 23, tzinfo=UTC))])
    with pytest.raises(LedgerError, match="there is no period 2026-10"):
        periods.close_lock(conn, OCTOBER, now=NOW)
    periods.close_lock(conn, SEPTEMBER, now=NOW)
    assert [(item.id, item.status) for item in periods.periods(conn)] == [(SEPTEMBER, "open")]
    periods.mark_closed(conn, SEPTEMBER, policy_json="{}", now=NOW)
    with pytest.raises(PeriodClosedError, match="closed already"):
        periods.close_lock(conn, SEPTEMBER, now=NOW)


def test_closing_twice_or_what_never_opened_is_refused(conn):
    with pytest.raises(LedgerError, match="there is no period"):
        periods.close_lock(conn, OCTOBER, now=NOW)
    journal.ensure_period(conn, OCTOBER, now=NOW)
    samples.close(conn, OCTOBER)
    with pytest.raises(PeriodClosedError, match="closed already"):
        periods.close_lock(conn, OCTOBER, now=NOW)
