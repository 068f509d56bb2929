from __future__ import annotations

import pytest
from sqlalchemy import Connection, create_engine, text

from credit.ledger.credits import credit_rows
from credit.ledger.database import Ledger, upgrade
from credit.ledger.payouts import payouts as all_payouts
from credit.ledger.statements import add_statements, statements
from credit.ledger.verify import verify
from credit.ledger.views import VIEWS
from tests.ledger import samples

COLUMNS = {
    "v_payouts": "period provider provider_name currency amount_minor status decided_at batch channel status_since",
    "v_credits": "period provider provider_name collection day credit_micro",
    "v_statements": "period provider provider_name version is_newest sha256 created_at body_json",
}
"""What other software relies on: a change here breaks its queries."""


@pytest.fixture
def url(shared_database) -> str:
    return shared_database(holding=samples.populate)


@pytest.fixture
def conn(url):
    with Ledger.open(url) as ledger, ledger.read() as conn:
        yield conn


def periods(conn: Connection) -> list[str]:
    return list(conn.execute(text("SELECT id FROM period ORDER BY id")).scalars())


def test_views_have_the_columns_that_are_documented(conn):
    assert {name: " ".join(conn.execute(text(f"SELECT * FROM {name}")).keys()) for name in VIEWS} == COLUMNS


def test_payouts_are_those_of_the_ledger(conn):
    query = "SELECT period, provider, currency, amount_minor, status FROM v_payouts ORDER BY 1, 2, 3"
    expected = [
        (period, item.provider, item.currency, item.amount_minor, item.status)
        for period in periods(conn)
        for item in all_payouts(conn, period)
    ]
    assert sorted(map(tuple, conn.execute(text(query)))) == sorted(expected) != []


def test_credits_are_those_of_the_ledger(conn):
    query = "SELECT period, provider, collection, day, credit_micro FROM v_credits"
    expected = [
        (period, row.group.provider, row.group.collection, row.day.isoformat(), row.credit_micro)
        for period in periods(conn)
        for row in credit_rows(conn, period)
    ]
    assert sorted(map(tuple, conn.execute(text(query)))) == sorted(expected) != []


def test_statements_are_those_of_the_ledger_and_the_last_version_is_the_newest(url):
    with Ledger.open(url) as ledger, ledger.write() as conn:
        period, key = conn.execute(text("SELECT period, provider FROM v_statements ORDER BY 1, 2 LIMIT 1")).one()
        add_statements(conn, period, [(key, '{"restated":true}')], now=samples.NOW)
        query = "SELECT period, provider, version, body_json FROM v_statements ORDER BY 1, 2, 3"
        expected = [
            (period, item.provider, item.version, item.body_json)
            for period in periods(conn)
            for item in statements(conn, period)
        ]
        assert sorted(map(tuple, conn.execute(text(query)))) == sorted(expected)
        newest = {(period, provider): version for period, provider, version, _ in sorted(expected)}
        found = conn.execute(text("SELECT period, provider, version FROM v_statements WHERE is_newest = 1"))
        assert {(row[0], row[1]): row[2] for row in found} == newest
        assert newest[period, key] == 2


@pytest.mark.parametrize("name", VIEWS)
def test_no_view_takes_writes(url, name):
    with Ledger.open(url) as ledger, pytest.raises(Exception, match="view"), ledger.write() as conn:
        conn.execute(text(f"DELETE FROM {name}"))


def test_a_changed_and_a_missing_view_are_named_and_an_upgrade_puts_them_back(url):
    made = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with made.begin() as conn:
        conn.exec_driver_sql("DROP VIEW v_credits")
        conn.exec_driver_sql("DROP VIEW v_payouts")
        changed = VIEWS["v_payouts"].replace("p.amount_minor AS", "p.amount_minor * 2 AS")
        conn.exec_driver_sql(f"CREATE VIEW v_payouts AS\n{changed}")
    made.dispose()
    with Ledger.open(url) as ledger:
        assert [problem.place for problem in verify(ledger, None).problems] == ["view v_payouts", "view v_credits"]
        upgrade(url)
        assert verify(ledger, None).problems == ()
