from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from sqlalchemy import Connection

from credit.errors import IdempotencyError, LedgerError, PeriodClosedError
from credit.ledger import balances, corrections, journal, periods, pools
from credit.ledger.credits import credit_totals
from credit.ledger.journal import Posted
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, SEPTEMBER


def adjust(conn: Connection, amount: int = 70, **changes: object) -> Posted:
    values = {"period": OCTOBER, "reason": "counted twice", "now": NOW}
    return corrections.adjust(conn, "ada", amount, "EUR", **{**values, **changes})


def owed(conn: Connection, provider: str) -> int:
    return balances.balance(conn, f"money:payable:{provider}", "EUR")


@pytest.mark.parametrize("amount", [70, -70])
def test_an_adjustment_moves_money_between_the_house_and_a_provider(conn, amount):
    samples.add_providers(conn)
    done = adjust(conn, amount)
    assert (owed(conn, "ada"), owed(conn, "house"), done.replayed) == (amount, -amount, False)


def test_the_same_adjustment_twice_is_one_and_another_one_says_so(conn):
    samples.add_providers(conn)
    first = adjust(conn)
    assert adjust(conn, now=datetime(2026, 10, 9, tzinfo=UTC)) == Posted(
        first.txn_id, first.seq, first.hash, replayed=True
    )
    for changes in ({"amount": 71}, {"reason": "counted thrice"}, {"key": "a second one"}, {"cites": 1}):
        assert not adjust(conn, **changes).replayed
    assert owed(conn, "ada") == 4 * 70 + 71
    with pytest.raises(IdempotencyError):
        adjust(conn, 5, key="a second one")


def test_what_is_in_escrow_goes_to_who_claims_it_or_to_the_house_and_no_more_than_there_is(conn):
    samples.add_providers(conn)
    lines = (journal.Entry("money:external", "EUR", -100), journal.Entry("money:escrow", "EUR", 100))
    journal.post(conn, journal.Posting("allocation", OCTOBER, date(2026, 10, 31), "escrow", lines), now=NOW)

    def told() -> tuple[int, int, int]:
        return owed(conn, "ada"), owed(conn, "house"), balances.balance(conn, "money:escrow", "EUR")

    claim = adjust(conn, 70, from_escrow=True)
    assert told() == (70, 0, 30)
    assert adjust(conn, 70, from_escrow=True).replayed
    assert not adjust(conn, 70).replayed, "the same out of the house's own is another adjustment"
    corrections.adjust(conn, "house", 30, "EUR", period=OCTOBER, reason="lapsed", from_escrow=True, now=NOW)
    assert told() == (140, -70 + 30, 0)
    assert adjust(conn, 70, from_escrow=True).replayed, "also when nothing is left"
    corrections.undo(conn, claim.txn_id, reason="no claim", now=NOW)
    assert told() == (70, -40, 70)
    with pytest.raises(LedgerError, match="must be more than 0"):
        adjust(conn, -1, from_escrow=True)
    with conn.begin_nested() as nested:
        with pytest.raises(LedgerError, match=r"escrow holds 70 EUR .*, less than 71"):
            adjust(conn, 71, from_escrow=True)
        nested.rollback()
    assert told() == (70, -40, 70)


def test_an_adjustment_is_found_again_after_its_period_was_closed(conn):
    samples.add_providers(conn)
    first = adjust(conn)
    samples.close(conn, OCTOBER)
    assert adjust(conn).txn_id == first.txn_id
    with pytest.raises(PeriodClosedError):
        adjust(conn, 71)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"reason": " "}, "needs a reason"),
        ({"amount": 0}, "of nothing"),
        ({"cites": 99}, "there is no transaction 99"),
        ({"period": "2026-11"}, "a month YYYY-MM that has begun"),
        ({"period": "October"}, "a month YYYY-MM that has begun"),
    ],
    ids=str,
)
def test_an_adjustment_that_makes_no_sense_is_refused(conn, changes, match):
    samples.add_providers(conn)
    with pytest.raises(LedgerError, match=match):
        adjust(conn, **changes)


@pytest.mark.parametrize(
    ("provider", "currency", "match"),
    [("eve", "EUR", "unknown provider"), ("house", "EUR", "are the house's"), ("ada", "eur", "ISO 4217")],
)
def test_an_adjustment_of_nobody_is_refused(conn, provider, currency, match):
    samples.add_providers(conn)
    with pytest.raises(LedgerError, match=match):
        corrections.adjust(conn, provider, 1, currency, period=OCTOBER, reason="x", now=NOW)


def test_what_is_reversed_is_as_if_it_had_never_been(conn):
    samples.add_providers(conn)
    first = adjust(conn)
    back = corrections.undo(conn, first.txn_id, reason="it was right after all", now=NOW)
    assert (owed(conn, "ada"), owed(conn, "house")) == (0, 0)
    again = corrections.undo(conn, first.txn_id, reason="it was right after all", now=NOW)
    assert (again.txn_id, again.replayed) == (back.txn_id, True)
    with pytest.raises(IdempotencyError, match=f"was reversed by {back.txn_id} already"):
        corrections.undo(conn, first.txn_id, reason="another reason", now=NOW)
    with pytest.raises(LedgerError, match="cannot be reversed"):
        corrections.undo(conn, back.txn_id, reason="and back", now=NOW)
    with pytest.raises(LedgerError, match="needs a reason"):
        corrections.undo(conn, adjust(conn, 5).txn_id, reason="", now=NOW)


def test_an_adjustment_of_a_closed_period_is_reversed_in_the_open_one(conn):
    samples.add_providers(conn)
    first = adjust(conn)
    samples.close(conn, OCTOBER)
    corrections.undo(conn, first.txn_id, reason="it was right", now=NOW)
    assert [item.id for item in periods.periods(conn)] == [OCTOBER, "2026-11"]
    assert owed(conn, "ada") == 0


def test_credits_and_pools_are_reversed_while_their_period_is_open(conn):
    samples.add_providers(conn)
    kept = journal.post(conn, samples.credit_posting("kept", period=SEPTEMBER, day=date(2026, 9, 2)), now=NOW)
    pool = pools.add_pool(conn, SEPTEMBER, "EUR", 100, 0, "kept", NOW)
    samples.close(conn, SEPTEMBER)
    mistaken = journal.post(conn, samples.credit_posting("mistaken"), now=NOW)
    corrections.undo(conn, mistaken.txn_id, reason="another model's", now=NOW)
    assert set(credit_totals(conn, OCTOBER).values()) == {0}
    allocation = pool.txn_id + 1
    for txn_id in (kept.txn_id, pool.txn_id, allocation):
        with pytest.raises(LedgerError, match=r"cannot be reversed.*credit adjust"):
            corrections.undo(conn, txn_id, reason="too late", now=NOW)
    with pytest.raises(LedgerError, match="no transaction 4711"):
        corrections.undo(conn, 4711, reason="x", now=NOW)


def advance(conn: Connection, amount: int = 500, reference: str = "transfer-1", **changes: object) -> Posted:
    values = {"paid_on": date(2026, 10, 2), "now": NOW}
    return corrections.pay_advance(conn, "ada", amount, "EUR", reference=reference, **{**values, **changes})


def test_an_advance_is_recorded_once_and_can_be_reversed_until_it_is_recouped(conn):
    samples.add_providers(conn)
    first = advance(conn)
    assert advance(conn).txn_id == first.txn_id
    assert balances.balance(conn, "money:advance:ada", "EUR") == -500
    with pytest.raises(IdempotencyError):
        advance(conn, 501)
    second = advance(conn, 100, "transfer-2")
    entries = (journal.Entry("money:payable:ada", "EUR", -50), journal.Entry("money:advance:ada", "EUR", 50))
    journal.post(conn, journal.Posting("recoupment", OCTOBER, date(2026, 10, 31), "r", entries), now=NOW)
    corrections.undo(conn, second.txn_id, reason="the bank sent it back", now=NOW)
    with pytest.raises(LedgerError, match=r"50 EUR .* have been recouped"):
        corrections.undo(conn, first.txn_id, reason="the bank sent it back", now=NOW)


def test_an_advance_of_a_later_period_does_not_cover_the_reversal_of_one_that_was_recouped(conn):
    """Else a period would close with more advances taken back than were paid by then."""
    samples.add_providers(conn)
    first = advance(conn)
    entries = (journal.Entry("money:payable:ada", "EUR", -50), journal.Entry("money:advance:ada", "EUR", 50))
    journal.post(conn, journal.Posting("recoupment", OCTOBER, date(2026, 10, 31), "r", entries), now=NOW)
    samples.close(conn, OCTOBER)
    advance(conn, 900, "transfer-2", paid_on=date(2026, 12, 1), now=datetime(2026, 12, 2, tzinfo=UTC))
    with pytest.raises(LedgerError, match=r"50 EUR .* have been recouped"):
        corrections.undo(conn, first.txn_id, reason="the bank sent it back", now=NOW)


def test_an_advance_is_found_again_after_its_period_was_closed(conn):
    samples.add_providers(conn)
    first = advance(conn)
    samples.close(conn, OCTOBER)
    assert advance(conn).txn_id == first.txn_id
    assert advance(conn, reference="found later").txn_id != first.txn_id
    assert periods.periods(conn)[-1].id == "2026-11"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"amount": -1}, "must be more than 0"),
        ({"amount": 0}, "of nothing"),
        ({"reference": ""}, "needs the reference"),
        ({"paid_on": date(2026, 10, 6)}, "still to come"),
    ],
    ids=str,
)
def test_an_advance_that_makes_no_sense_is_refused(conn, changes, match):
    samples.add_providers(conn)
    with pytest.raises(LedgerError, match=match):
        advance(conn, **changes)
