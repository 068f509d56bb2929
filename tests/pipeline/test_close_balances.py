"""Closing a period: every line of the waterfall is a transaction, in the right account, stated and carried on."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from credit.accounting.statement_lines import STATEMENT_LINES
from credit.errors import InvalidRequestError, LedgerError, PeriodClosedError
from credit.ledger import holds, journal, periods, values
from credit.ledger.database import Ledger
from credit.ledger.journal import Entry, Posting
from credit.ledger.transaction_kinds import CLOSE_KINDS, TransactionKind
from credit.ledger.verify import verify
from credit.pipeline.close import ClosePolicy
from credit.pipeline.explain_balances import CurrencySteps, balance_steps
from credit.records import Provider
from tests.ledger import samples
from tests.ledger.tampering import unguarded
from tests.pipeline.books_of_account import APRIL, FEBRUARY, JANUARY, MARCH, NOW, Account


@pytest.fixture
def account(ledger: Ledger) -> Account:
    return Account(ledger).start()


def advance(account: Account, provider: str, amount: int, period: str = JANUARY, currency: str = "EUR") -> None:
    entries = (Entry(f"money:advance:{provider}", currency, -amount), Entry("money:external", currency, amount))
    posting = Posting("advance", period, values.first_day(period), f"advance {amount} {currency}", entries)
    with account.ledger.write() as conn:
        journal.post(conn, posting, now=NOW)


def verified(account: Account) -> bool:
    return verify(account.ledger, None).problems == ()


def balance(account: Account, period: str, provider: str = "ann") -> dict[str, str]:
    (found,) = account.statement(period, provider)["balances"]
    return {name: value for name, value in found.items() if value and value != "0.00"}


def test_an_agreed_channel_is_paid_what_it_carries_and_the_rest_opens_the_next_period(account):
    account.agree("ann", "HUF", channel="paypal", withholding_ppm=100_000)
    account.agree("ben", "KWD", channel="paypal")
    for period, huf in ((JANUARY, 44_444), (FEBRUARY, 66)):
        account.credits(period, {"ann": 1})
        account.pool(period, huf, "HUF")
        account.close(period)
    # 44 444 less ⌊4 444.4⌋ are 40 000: whole forints. Of 66, 60 are left.
    found = {line.currency: line for line in _explained(account, JANUARY)}
    assert (found["HUF"].payable_minor, found["HUF"].reason) == (40_000, "")
    account.credits(MARCH, {"ann": 1, "ben": 1})
    account.pool(MARCH, 2 * 33_334, "HUF")
    account.pool(MARCH, 2 * 5, "KWD")
    account.agree("ben", "HUF", channel="paypal", begin=values.first_day(MARCH))
    account.close(MARCH)
    shares = {name: account.statement(MARCH, name)["balances"] for name in ("ann", "ben")}
    (huf,) = [line for line in shares["ben"] if line["currency"] == "HUF"]
    assert (huf["payable"], huf["carried_forward"]) == ("333.00", "0.34")
    assert huf["reason"] == "PayPal carries whole HUF alone; the rest of 0.34 HUF is carried forward"
    (kwd,) = [line for line in shares["ben"] if line["currency"] == "KWD"]
    assert (kwd["payable"], kwd["carried_forward"]) == ("0.000", "0.005")
    (huf,) = [line for line in shares["ann"] if line["currency"] == "HUF"]
    # 0.66 were below a forint in February: 334.00 come to 300.60 after tax, so 333.33 are paid, and 0.67 stay.
    assert (huf["opening"], huf["payable"], huf["withholding"], huf["carried_forward"]) == (
        "0.66", "300.00", "33.33", "0.67",
    )  # fmt: skip
    assert account.balance("money:payable:ann", "HUF") == 67
    for name in ("ann", "ben"):
        assert [line.status for line in _explained(account, MARCH, name)]
    assert verified(account)


def _explained(account: Account, period: str, provider: str = "ann") -> list[CurrencySteps]:
    """Recompute the balances of a statement; an error if one comes out otherwise."""
    with account.ledger.read() as conn:
        return list(balance_steps(conn, periods.existing_period(conn, period), Provider(provider, provider)))


def test_every_line_is_posted_by_a_kind_of_transaction_of_a_close():
    posted = {line.transaction for line in STATEMENT_LINES if line.transaction}
    assert posted == CLOSE_KINDS - {TransactionKind.PERIOD_BASIS, TransactionKind.ALLOCATION}
    lines_alone = posted - {TransactionKind.CONVERSION}
    assert {kind for kind in TransactionKind if kind.account is not None} == lines_alone


def test_every_line_moves_its_own_account(account):
    account.agree(
        "ann",
        rate_ppm=700_000,
        reserve_ppm=100_000,
        reserve_release_periods=2,
        recoupment_ppm=500_000,
        withholding_ppm=150_000,
        fee_minor=25,
        agreement_reference="A-17",
    )
    advance(account, "ann", 2_000)
    account.month(JANUARY, 10_001, {"ann": 1, "own": 1})
    # 5 001 or 5 000 by hash; ann: 5 001 − ⌊5 001 × 0.3⌋, or 5 000 − 1 500
    (pool,) = account.statement(JANUARY, "ann")["pools"]
    allocated = int(pool["amount"].replace(".", ""))
    earned = allocated - allocated * 300_000 // 1_000_000
    assert pool["earned"] == f"{earned / 100:.2f}"
    held, recouped = earned // 10, min(2_000, earned // 2)
    owed = earned - held - recouped
    withheld = owed * 15 // 100
    expected = {
        "money:payable:ann": 0,
        "money:reserve:ann": held,
        "money:advance:ann": recouped - 2_000,
        "money:withholding:ann": withheld,
        "money:fees": 25,
        "money:payout:ann": owed - withheld - 25,
        "money:payable:house": 10_001 - earned,
        "money:pool:2026-01": 0,
    }
    assert {key: account.balance(key) for key in expected} == expected
    assert balance(account, JANUARY) == {
        "currency": "EUR",
        "agreement": "A-17",
        "reserve_ppm": 100_000,
        "recoupment_ppm": 500_000,
        "withholding_ppm": 150_000,
        "earned": f"{earned / 100:.2f}",
        "reserve_held": f"{held / 100:.2f}",
        "advances_recouped": f"{recouped / 100:.2f}",
        "withholding": f"{withheld / 100:.2f}",
        "fees": "0.25",
        "payable": f"{(owed - withheld - 25) / 100:.2f}",
        "reserve_balance": f"{held / 100:.2f}",
        "reserve_releases": {MARCH: f"{held / 100:.2f}"},
        "advance_balance": f"{(2_000 - recouped) / 100:.2f}",
    }
    assert verified(account)


def test_a_reserve_is_released_on_time_and_once(account):
    account.agree("ann", reserve_ppm=100_000, reserve_release_periods=2)
    for period in (JANUARY, FEBRUARY):
        account.month(period, 1_000, {"ann": 1})
    assert account.balance("money:reserve:ann") == 200
    (told,) = account.statement(FEBRUARY, "ann")["balances"]
    assert told["reserve_releases"] == {"2026-03": "1.00", "2026-04": "1.00"}
    assert "reserve_released" not in balance(account, FEBRUARY)
    account.month(MARCH, 0, {"ann": 1})
    assert balance(account, MARCH)["reserve_released"] == balance(account, MARCH)["payable"] == "1.00"
    account.month("2026-06", 0, {"ben": 1})
    assert balance(account, "2026-06")["reserve_released"] == "1.00", "due in April, in which nothing was closed"
    assert account.balance("money:reserve:ann") == 0
    assert verified(account)


def test_an_advance_is_recouped_from_earnings_of_its_own_currency_alone(account):
    advance(account, "ann", 1_500)
    account.pool(JANUARY, 900, "USD")
    account.month(JANUARY, 1_000, {"ann": 1})
    assert account.balance("money:payout:ann", "USD") == 900
    assert account.balance("money:payout:ann") == 0
    account.month(FEBRUARY, 1_000, {"ann": 1})
    assert balance(account, FEBRUARY)["advances_recouped"] == balance(account, FEBRUARY)["payable"] == "5.00"
    assert account.balance("money:advance:ann") == 0
    assert account.balance("money:advance:ann", "USD") == 0


def test_a_hold_carries_the_balance_with_its_reason_until_it_is_released(account):
    with account.ledger.write() as conn:
        holds.place_hold(conn, "ann", "EUR", "the rights are disputed", now=NOW)
    account.month(JANUARY, 1_000, {"ann": 1, "ben": 1})
    assert "is on hold: the rights are disputed" in balance(account, JANUARY)["reason"]
    assert account.balance("money:payout:ben") == 500
    with account.ledger.write() as conn:
        holds.release_hold(conn, "ann", "EUR", "settled out of court", now=NOW)
    account.month(FEBRUARY, 1_000, {"ann": 1, "ben": 1})
    assert balance(account, FEBRUARY)["payable"] == "10.00"
    assert balance(account, FEBRUARY)["opening"] == balance(account, JANUARY)["carried_forward"] == "5.00"


@pytest.mark.parametrize(
    ("house", "expected"),
    [
        ("return", {"ann": 300, "house": 700, "escrow": 0}),
        ("redistribute", {"ann": 1_000, "house": 0, "escrow": 0}),
        ("escrow", {"ann": 300, "house": 0, "escrow": 700}),
    ],
)
def test_the_houses_share_goes_where_policy_says(account, house, expected):
    account.month(JANUARY, 1_000, {"ann": 3, "own": 2, "house": 5}, house=house)
    accounts = {"ann": "money:payout:ann", "house": "money:payable:house", "escrow": "money:escrow"}
    assert {name: account.balance(accounts[name]) for name in expected} == expected
    with account.ledger.read() as conn:
        stored = ClosePolicy.from_json(periods.periods(conn)[0].close_policy_json or "")
    assert stored.house == house
    assert verified(account)


def test_the_rest_of_a_rate_is_the_houses_whatever_becomes_of_what_nobody_earned(account):
    account.agree("ann", rate_ppm=600_000)
    account.month(JANUARY, 1_000, {"ann": 1, "own": 1}, house="escrow")
    assert account.balance("money:payout:ann") == 300
    assert account.balance("money:payable:house") == 200
    assert account.balance("money:escrow") == 500


def test_nothing_is_redistributed_among_nobody(account):
    account.credits(JANUARY, {"own": 1})
    account.pool(JANUARY, 100)
    with pytest.raises(LedgerError, match=r"no provider earned credits in 2026-01.*--house return"):
        account.close(JANUARY, house="redistribute")


def test_what_was_posted_into_the_next_period_already_does_not_open_this_one(account):
    account.agree("ann", minimum_payout_minor=10_000)
    account.credits(JANUARY, {"ann": 1})
    account.pool(JANUARY, 1_000)
    entries = (Entry("money:payable:house", "EUR", -70), Entry("money:payable:ann", "EUR", 70))
    early = Posting("adjustment", FEBRUARY, date(2026, 2, 3), "early", entries, memo="a late claim")
    with account.ledger.write() as conn:
        posted = journal.post(conn, early, now=NOW)
    account.close(JANUARY)
    account.month(FEBRUARY, 0, {"ben": 1})
    assert balance(account, JANUARY)["carried_forward"] == balance(account, FEBRUARY)["opening"] == "10.00"
    assert balance(account, FEBRUARY)["adjustments"] == "0.70"
    (line,) = account.statement(FEBRUARY, "ann")["corrections"]
    assert line == {
        "amount": "0.70",
        "cites": None,
        "currency": "EUR",
        "hash": posted.hash,
        "kind": "adjustment",
        "reason": "a late claim",
        "transaction": posted.txn_id,
    }


def test_a_late_output_is_credited_in_the_open_period_which_says_where_it_belongs(account):
    account.month(JANUARY, 1_000, {"ben": 1})
    account.credits(FEBRUARY, {"ann": 30}, day=date(2026, 1, 31))
    account.credits(FEBRUARY, {"ann": 70}, day=date(2026, 2, 1))
    account.pool(FEBRUARY, 1_000)
    account.close(FEBRUARY)
    credited = account.statement(FEBRUARY, "ann")["credits"]
    assert credited["collections"] == [{"collection": "default", "credit_micro": "100"}]
    assert credited["late"] == [{"collection": "default", "month": "2026-01", "credit_micro": "30"}]


def test_a_dry_run_shows_every_line_and_writes_nothing(account):
    account.agree("ann", withholding_ppm=100_000)
    account.credits(JANUARY, {"ann": 1, "ben": 1})
    account.pool(JANUARY, 1_000)
    with account.ledger.read() as conn:
        before = journal.chain_head(conn)
    tried = account.close(JANUARY, dry_run=True)
    with account.ledger.read() as conn:
        assert journal.chain_head(conn) == before
        assert [item.status for item in periods.periods(conn)] == ["open"]
    done = account.close(JANUARY)
    assert (tried.earnings, tried.waterfalls, tried.statements) == (done.earnings, done.waterfalls, done.statements)
    assert [(fall.provider, fall.withholding_minor, fall.payable_minor) for fall in done.waterfalls] == [
        ("ann", 50, 450),
        ("ben", 0, 500),
    ]


def test_a_period_closes_after_its_grace_and_not_before(account):
    account.credits(JANUARY, {"ann": 1})
    account.pool(JANUARY, 1_000)
    early = datetime(2026, 2, 5, 23, 59, tzinfo=UTC)
    with pytest.raises(LedgerError, match="with 5 days of grace, is not over; it can be closed from 2026-02-06"):
        account.close(JANUARY, now=early, grace_days=5)
    with pytest.raises(LedgerError, match="is not over; it can be closed from 2026-02-01"):
        account.close(JANUARY, now=datetime(2026, 1, 31, 23, 59, tzinfo=UTC))
    account.close(JANUARY, now=datetime(2026, 2, 6, tzinfo=UTC), grace_days=5)


def test_periods_close_once_and_in_their_order(account):
    account.pool(JANUARY, 0)
    account.pool(MARCH, 0)
    with pytest.raises(LedgerError, match="period 2026-01 is still open; close it first"):
        account.close(MARCH)
    account.close(JANUARY)
    with pytest.raises(PeriodClosedError, match="closed already"):
        account.close(JANUARY)
    account.close(MARCH)
    with pytest.raises(PeriodClosedError, match="period 2026-02 is closed, because 2026-03 is"):
        account.pool(FEBRUARY, 5)
    with pytest.raises(LedgerError, match="there is no period 2026-04"):
        account.close(APRIL)


def test_a_pool_that_was_taken_back_is_not_divided(account):
    mistaken = account.pool(JANUARY, 100_000)
    account.pool(JANUARY, 1_000, reference="corrected")
    account.credits(JANUARY, {"ann": 1})
    assert mistaken.txn_id is not None
    with account.ledger.write() as conn:
        journal.reverse(conn, mistaken.txn_id, period=JANUARY, reason="two zeros too many", now=NOW)
    account.close(JANUARY)
    assert account.balance("money:payout:ann") == 1_000
    assert account.balance("money:pool:2026-01") == 0
    assert verified(account)


@pytest.mark.parametrize("policy", [{"house": "keep"}, {"grace_days": -1}], ids=str)
def test_a_policy_that_makes_no_sense_is_refused(policy):
    with pytest.raises(InvalidRequestError):
        ClosePolicy(**policy)


def test_outputs_up_to_the_end_of_a_period_must_be_valued_wherever_they_belong(account):
    """A late output of a closed month counts in the period that is closed now, or would count a period too late."""
    account.month(JANUARY, 100, {"ann": 1})
    with account.ledger.write() as conn:
        samples.add_index(conn)
        moments = [datetime(2026, 1, 31, 23, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)]
        samples.add_outputs(conn, [samples.logged(number, occurred_at=moment) for number, moment in enumerate(moments)])
    account.credits(FEBRUARY, {"ann": 1})
    account.pool(FEBRUARY, 100)
    with pytest.raises(LedgerError, match=r"yet: 1 output up to the end of 2026-02 \(1 of earlier months\) \("):
        account.close(FEBRUARY)
    assert account.close(FEBRUARY, dry_run=True, leave_pending=True).left_pending == 1
    with account.ledger.write() as conn:
        samples.value(conn, 1, [1])
    assert account.close(FEBRUARY).left_pending == 0
    with pytest.raises(LedgerError, match=r"not valued yet: 1 output of 2026-03 \("):
        account.close(MARCH)
    assert account.close(MARCH, leave_pending=True).left_pending == 1
    assert verified(account)


@pytest.mark.parametrize("change", ["provider_id = 3", "period_id = '2026-02'"])
def test_a_statement_that_is_filed_under_another_name_or_month_is_found(account, database_url, change):
    account.month(JANUARY, 1_000, {"ann": 1})
    account.pool(FEBRUARY, 0)
    with unguarded(database_url) as conn:
        conn.exec_driver_sql(f"UPDATE statement SET {change}")
    sealed, filed = verify(account.ledger, None).problems
    assert sealed.place == "statement 1"
    assert str(filed).startswith("statement 1: is filed under")
