from __future__ import annotations

import pytest
from sqlalchemy import Connection, text

from credit.errors import LedgerError
from credit.ledger import corrections
from credit.ledger.transactions import transaction, transactions
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, SEPTEMBER


@pytest.fixture
def filled(conn: Connection) -> Connection:
    samples.populate(conn)
    corrections.adjust(conn, "bell", 5, "EUR", period=OCTOBER, reason="a gift", now=NOW)
    return conn


def test_every_transaction_is_listed_once_in_the_order_of_the_chain(filled):
    numbers = list(filled.execute(text("SELECT id FROM ledger_txn ORDER BY seq")).scalars())
    found = transactions(filled)
    assert [item.id for item in found] == numbers
    assert [item.id for item in transactions(filled, limit=3)] == numbers[-3:]
    (reversal,) = (item for item in found if item.kind == "reversal")
    assert (reversal.reverses, reversal.memo) == (2, "posted twice")
    assert [item.reversed_by for item in found if item.id == 2] == [reversal.id]


def test_filters_keep_what_they_say(filled):
    everything = transactions(filled)
    for period in (SEPTEMBER, OCTOBER):
        expected = [item for item in everything if item.period == period]
        assert transactions(filled, period=period) == expected
        assert expected
    for kind in {item.kind for item in everything}:
        assert transactions(filled, kind=kind) == [item for item in everything if item.kind == kind]
    for key in ("ada", "bell"):
        of = [item for item in everything if any(f":{key}" in e.account for e in transaction(filled, item.id).entries)]
        assert transactions(filled, provider=key) == of
        assert 0 < len(of) < len(everything)
    assert transactions(filled, period="2031-01") == []


def test_one_transaction_says_all_that_was_posted(filled):
    for header in transactions(filled):
        found = transaction(filled, header.id)
        assert found.header == header
        assert len(found.entries) == header.entries
        assert sum(line.amount for line in found.entries) == 0
    assert found.header.memo == "a gift"
    assert [(line.account, line.amount) for line in found.entries] == [
        ("money:payable:house", -5),
        ("money:payable:bell", 5),
    ]


def test_what_is_not_there_is_named(filled):
    with pytest.raises(LedgerError, match="no transaction 999; list them: credit transactions"):
        transaction(filled, 999)
    with pytest.raises(LedgerError, match="unknown provider 'eve'"):
        transactions(filled, provider="eve")
    with pytest.raises(LedgerError, match="of the kind 'gift'; there are: adjustment, allocation"):
        transactions(filled, kind="gift")
