from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from sqlalchemy import select

from credit.ledger.fx import RecordedRate
from credit.ledger.rows import PROVIDER, add_records, read_row
from credit.ledger.schema import fx_rate, hold, provider
from credit.records import GivenRate, Rate
from tests.ledger import samples


@dataclass(frozen=True, slots=True)
class Hold:
    id: int
    provider: str
    currency: str | None
    action: str
    reason: str
    created_at: datetime


def test_a_record_is_read_as_it_was_written(conn):
    samples.add_providers(conn)
    moment = datetime(2026, 10, 5, 12, 30, 0, 7, tzinfo=UTC)
    first = Hold(1, "ada", "USD", "hold", "a dispute", moment)
    items = [first, replace(first, id=2, provider="bell", currency=None)]
    add_records(conn, hold, items)
    rows = conn.execute(select(hold, PROVIDER).join_from(hold, provider).order_by(hold.c.id))
    assert [read_row(Hold, row) for row in rows] == items


def test_the_fields_of_a_record_inside_a_record_are_columns_too(conn):
    moment = datetime(2026, 10, 5, 12, 30, tzinfo=UTC)
    given = GivenRate("EUR", "USD", date(2026, 10, 2), Rate(11655, 4), "a bank")
    item = RecordedRate(1, 1, given, moment)
    add_records(conn, fx_rate, [item])
    (row,) = conn.execute(select(fx_rate))
    assert (row.on_day, row.coefficient, row.digits) == ("2026-10-02", 11655, 4)
    assert read_row(RecordedRate, row) == item
