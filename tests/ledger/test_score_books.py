from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection

from credit.ledger import score_books
from tests.ledger import samples
from tests.ledger.samples import OCTOBER, SEPTEMBER


@pytest.fixture(autouse=True)
def start(conn: Connection) -> None:
    samples.add_providers(conn)


def test_the_books_of_a_month_are_those_that_value_its_outputs(conn):
    index = samples.add_index(conn)
    moments = [datetime(2026, month, 3, tzinfo=UTC) for month in (9, 10, 10)]
    samples.add_outputs(conn, [samples.logged(n, occurred_at=moment) for n, moment in enumerate(moments)])
    samples.value(conn, index.id, [1, 2], sha256="a" * 64)
    samples.value(conn, index.id, [3], sha256="b" * 64)
    found = {name: score_books.books_of_period(conn, name) for name in (SEPTEMBER, OCTOBER, "2026-11")}
    assert found == {SEPTEMBER: ["a" * 64], OCTOBER: ["a" * 64, "b" * 64], "2026-11": []}
