from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection

from credit.ledger import journal, queries, score_books
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, SEPTEMBER, credit_posting


@pytest.fixture(autouse=True)
def start(conn: Connection) -> None:
    samples.add_providers(conn)


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
    found = {name: score_books.books_of_period(conn, name) for name in (SEPTEMBER, OCTOBER, "2026-11")}
    assert found == {SEPTEMBER: ["a" * 64], OCTOBER: ["a" * 64, "b" * 64], "2026-11": []}
    assert [queries.outputs_valued(conn, name) for name in (SEPTEMBER, OCTOBER)] == [1, 2]
