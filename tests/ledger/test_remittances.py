"""Withheld tax, fees and the house's money leave by remittances, never more than there is."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from credit.errors import CreditError, IdempotencyError, LedgerError
from credit.ledger import balances, corrections, journal, pools, remittances
from credit.ledger.database import Ledger
from credit.ledger.journal import Entry, Posted
from credit.ledger.verify import verify
from tests.kills import die_at_commit_of, killed
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, SEPTEMBER

PAID = date(2026, 10, 2)
HELD = {SEPTEMBER: {"money:withholding:ada": 30, "money:withholding:bell": 12, "money:fees": 5}}
HELD[OCTOBER] = {"money:withholding:ada": 7, "money:payable:house": 40}


def withhold(conn: Connection) -> None:
    """Let closes of September and October withhold tax and fees, and the house earn."""
    samples.add_providers(conn)
    for period, amounts in HELD.items():
        for key, amount in amounts.items():
            lines = (Entry("money:external", "EUR", -amount), Entry(key, "EUR", amount))
            kind = key.split(":")[1].replace("payable", "allocation")
            day = date.fromisoformat(f"{period}-01")
            journal.post(conn, journal.Posting(kind, period, day, f"{period} {key}", lines), now=NOW)


def remit(conn: Connection, amount: int, of: remittances.Remitted = "withholding", **changes: object) -> Posted:
    values = {"paid_on": PAID, "reference": "tax-1", "now": NOW}
    return remittances.remit(conn, of, amount, "EUR", **{**values, **changes})


def held(conn: Connection, *keys: str) -> list[int]:
    return [balances.balance(conn, f"money:{key}", "EUR") for key in keys]


def test_withheld_tax_leaves_whole_through_a_period_and_what_is_left_is_known_by_provider(conn):
    withhold(conn)
    before = held(conn, "external")[0]
    with pytest.raises(
        LedgerError, match=r"42 EUR \(minor units\) was withheld through 2026-09 and not remitted, not 49"
    ):
        remit(conn, 49, through=SEPTEMBER)
    first = remit(conn, 42, through=SEPTEMBER)
    assert held(conn, "withholding:ada", "withholding:bell", "external") == [7, 0, before + 42]
    assert remit(conn, 42, through=SEPTEMBER) == Posted(first.txn_id, first.seq, first.hash, replayed=True)
    assert remittances.withholding_due(conn, "EUR", through=SEPTEMBER) == {}
    assert remittances.withholding_due(conn, "EUR") == {"ada": 7}
    for changes in ({"through": None}, {"paid_on": date(2026, 10, 1), "through": SEPTEMBER}):
        with pytest.raises(IdempotencyError, match=f"belongs to transaction {first.txn_id} .*credit reverse"):
            remit(conn, 42, **changes)
    assert not remit(conn, 4, provider_key="ada", reference="tax-2").replayed
    assert held(conn, "withholding:ada") == [3]
    corrections.undo(conn, first.txn_id, reason="the bank sent it back", now=NOW)
    assert remittances.withholding_due(conn, "EUR", through=SEPTEMBER) == {"ada": 26, "bell": 12}
    assert held(conn, "withholding:ada", "withholding:bell") == [33, 12]


@pytest.mark.parametrize(("of", "key", "there"), [("fees", "fees", 5), ("house", "payable:house", 40)])
def test_fees_and_the_money_of_the_house_leave_in_parts(conn, of, key, there):
    withhold(conn)
    remit(conn, there - 1, of)
    with pytest.raises(LedgerError, match=r"2 EUR .* is more than the 1 EUR .* there"):
        remit(conn, 2, of, reference="another")
    remit(conn, 1, of, reference="another")
    assert held(conn, key) == [0]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"reference": " "}, "needs the reference"),
        ({"paid_on": date(2026, 12, 1)}, "still to come"),
        ({"amount": 0}, "must be more than 0"),
        ({"amount": 10**16 + 1}, "looks mistyped"),
        ({"of": "fees", "through": SEPTEMBER}, "of no period and no provider"),
        ({"of": "house", "provider_key": "ada"}, "of no period and no provider"),
        ({"provider_key": "eve"}, "unknown provider"),
        ({"provider_key": "bell", "amount": 13}, "more than the 12 EUR .* withheld from bell by now"),
        ({"through": "2026-9"}, "is not a period"),
    ],
    ids=str,
)
def test_a_remittance_that_makes_no_sense_is_refused(conn, changes, match):
    withhold(conn)
    with pytest.raises(CreditError, match=match):
        remit(conn, **{"amount": 49, **changes})


@pytest.mark.parametrize("amount", [6, 2**62])
def test_the_database_refuses_to_remit_more_than_there_is(conn, amount):
    withhold(conn)
    lines = (Entry("money:fees", "EUR", -amount), Entry("money:external", "EUR", amount))
    with pytest.raises(DBAPIError, match="a remittance takes no more than there is"):
        journal.post(conn, journal.Posting("remittance", OCTOBER, PAID, "too much", lines), now=NOW)


def test_amounts_that_would_stop_every_later_close_are_refused_where_they_are_typed(conn):
    samples.add_providers(conn)
    huge = 10**16 + 1
    for amount in (huge, -huge):
        with pytest.raises(LedgerError, match="looks mistyped: at most 10000000000000000 go at once"):
            corrections.adjust(conn, "ada", amount, "EUR", period=OCTOBER, reason="a slip", now=NOW)
    with pytest.raises(LedgerError, match="looks mistyped"):
        corrections.pay_advance(conn, "ada", huge, "EUR", paid_on=PAID, reference="x", now=NOW)
    with pytest.raises(LedgerError, match="looks mistyped"):
        pools.add_pool(conn, OCTOBER, "EUR", huge, 0, "main", NOW)
    corrections.adjust(conn, "ada", huge - 1, "EUR", period=OCTOBER, reason="as large as it gets", now=NOW)


def remitter(url: str) -> None:
    die_at_commit_of("ledger_txn")
    with Ledger.open(url) as ledger, ledger.write() as conn:
        remit(conn, 42, through=SEPTEMBER)


def test_a_killed_remittance_leaves_nothing_and_is_made_by_the_next(ledger, database_url):
    with ledger.write() as conn:
        withhold(conn)
    killed(remitter, database_url)
    with ledger.write() as conn:
        assert not remit(conn, 42, through=SEPTEMBER).replayed
        assert remit(conn, 42, through=SEPTEMBER).replayed
        assert held(conn, "withholding:ada", "withholding:bell") == [7, 0]
    assert verify(ledger, None).problems == ()
