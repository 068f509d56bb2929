from __future__ import annotations

from datetime import UTC, datetime, timedelta

from credit.ledger import journal
from credit.pipeline.status import overview, status
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, credit_posting


def test_status_counts_what_there_is(ledger):
    with ledger.write() as conn:
        samples.add_providers(conn)
        index = samples.add_index(conn)
        moments = [datetime(2026, month, 3, tzinfo=UTC) for month in (9, 10, 10)]
        samples.add_outputs(conn, [samples.logged(n, occurred_at=moment) for n, moment in enumerate(moments)])
        samples.value(conn, index.id, [1, 2])
        posted = journal.post(conn, credit_posting("a"), now=NOW)
        found = status(conn)
        assert (found.providers, found.models, found.indexes, found.books) == (2, 1, 1, 1), "the house is none"
        assert (found.outputs, found.pending) == ({"2026-09": 1, "2026-10": 2}, 1)
        assert (found.transactions, found.chain_head) == (1, posted.hash)
        assert [item.id for item in found.periods] == [OCTOBER]


def test_status_says_that_the_ledgers_clock_is_ahead(ledger):
    with ledger.write() as conn:
        samples.add_providers(conn)
        journal.post(conn, credit_posting("fast"), now=NOW + timedelta(days=364))
        assert "clock is 364 days ahead of this machine's" in overview(conn, now=NOW).clock
        assert overview(conn, now=NOW + timedelta(days=364)).clock == ""
