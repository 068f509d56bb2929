from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import select

from credit.ledger.rows import PROVIDER, add_records, read_row
from credit.ledger.schema import hold, provider
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
