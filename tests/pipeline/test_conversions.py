"""A currency that is paid in another one: converted at the close, by the rate given for the period, to the cent."""

from __future__ import annotations

import json
from datetime import date

import pytest
from sqlalchemy import select

from credit.errors import InvalidRequestError, LedgerError
from credit.ledger import fx, holds
from credit.ledger.corrections import adjust, pay_advance, undo
from credit.ledger.database import Ledger
from credit.ledger.schema import ledger_txn
from credit.ledger.transaction_kinds import CLOSE_KINDS
from credit.ledger.verify import verify
from credit.pipeline.explain_payout import explain_payout
from credit.records import GivenRate, Group, Rate, Terms
from credit.reporting.books import beancount_text
from credit.reporting.frames import payouts
from tests.ledger.tampering import unguarded
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, MARCH, NOW, Account
from tests.pipeline.scored import Scored, at, credit_outputs

ECB = "ECB reference rate"


@pytest.fixture
def account(ledger: Ledger) -> Account:
    """Ann is paid in dollars for what she is owed in euros; Ben is not."""
    found = Account(ledger).start()
    found.agree("ann", "EUR", pay_in="USD", rate_ppm=700_000)
    return found


def give(account: Account, period: str, coefficient: int = 10842, base: str = "EUR", quote: str = "USD") -> None:
    given = GivenRate(base, quote, date.fromisoformat(f"{period}-27"), Rate(coefficient, 4), ECB)
    with account.ledger.write() as conn:
        fx.give_rate(conn, given, now=NOW)


def balances(account: Account, period: str, provider: str = "ann") -> dict[str, dict[str, str]]:
    found = account.statement(period, provider)["balances"]
    return {
        item["currency"]: {name: value for name, value in item.items() if value not in ("", "0.00")} for item in found
    }


def sums(account: Account) -> dict[str, int]:
    names = ("money:payable:ann", "money:payout:ann", "money:fx:EUR-USD")
    return {f"{name} {code}": account.balance(name, code) for name in names for code in ("EUR", "USD")}


def test_what_is_owed_is_converted_through_the_account_of_the_pair_and_paid(account):
    give(account, JANUARY)
    account.month(JANUARY, 20_010, {"ann": 1, "ben": 1})
    # 100.05 allocated, 70.04 (all but ⌊30.015⌋) hers; × 1.0842 = 75.937368
    assert sums(account) == {
        "money:payable:ann EUR": 0,
        "money:payable:ann USD": 0,
        "money:payout:ann EUR": 0,
        "money:payout:ann USD": 7_594,
        "money:fx:EUR-USD EUR": 7_004,
        "money:fx:EUR-USD USD": -7_594,
    }
    assert account.balance("money:payout:ben") == 10_005, "nobody else's money is converted"
    found = balances(account, JANUARY)
    assert list(found) == ["EUR", "USD"], "what is converted stands before what it is converted to"
    assert (found["EUR"]["earned"], found["EUR"]["converted_out"]) == ("70.04", "70.04")
    assert found["EUR"]["reason"] == "the balance of 70.04 EUR is paid in USD: converted, 75.94 USD"
    assert found["USD"] == {"currency": "USD", "converted_in": "75.94", "payable": "75.94"}
    assert account.statement(JANUARY, "ann")["conversions"] == [
        {
            "amount": "70.04",
            "base": "EUR",
            "converted": "75.94",
            "currency": "EUR",
            "exact": "75.937368",
            "into": "USD",
            "on": "2026-01-27",
            "quote": "USD",
            "rate": "1.0842",
            "source": ECB,
        }
    ]
    assert "conversions" not in account.statement(JANUARY, "ben")
    assert verify(account.ledger, None).problems == ()


def test_without_a_rate_nothing_closes_and_the_remedy_is_named(account):
    account.credits(JANUARY, {"ann": 1})
    account.pool(JANUARY, 100)
    give(account, FEBRUARY)
    with pytest.raises(LedgerError, match=r"EUR and USD is given for 2026-01; .* fx add 2026-01-DD EUR USD RATE"):
        account.close(JANUARY)
    give(account, JANUARY)
    assert account.close(JANUARY).statements == 1


def test_no_rate_is_asked_for_where_nothing_is_converted(account):
    account.month(JANUARY, 0, {"ann": 1})
    account.month(FEBRUARY, 100, {"ben": 1})
    with account.ledger.write() as conn:
        holds.place_hold(conn, "ann", None, "disputed", now=NOW)
    account.month(MARCH, 100, {"ann": 1})
    found = balances(account, MARCH)
    assert (list(found), found["EUR"]["carried_forward"]) == (["EUR"], "0.70")


def test_what_is_agreed_in_the_currency_of_the_payout_holds_for_it(account):
    account.agree("ann", "USD", minimum_payout_minor=10_000, withholding_ppm=100_000, fee_minor=25)
    for period, coefficient in ((JANUARY, 10_000), (FEBRUARY, 20_000)):
        give(account, period, coefficient)
        account.month(period, 10_000, {"ann": 1})
    first, second = (balances(account, period)["USD"] for period in (JANUARY, FEBRUARY))
    assert (first["converted_in"], first["carried_forward"]) == ("70.00", "70.00")
    assert "below the minimum payout of 100.00 USD" in first["reason"]
    # 70 from January at its own rate, 140 from February: 210 − 21 − 0.25
    assert (second["opening"], second["converted_in"], second["payable"]) == ("70.00", "140.00", "188.75")


def test_reserves_and_advances_stay_in_their_own_currency(ledger):
    account = Account(ledger).start()
    account.agree("ann", "EUR", pay_in="USD", reserve_ppm=100_000, reserve_release_periods=1)
    with ledger.write() as conn:
        for code in ("EUR", "USD"):
            pay_advance(conn, "ann", 300, code, paid_on=date(2026, 1, 2), reference=code, now=NOW)
    give(account, JANUARY, 20_000)
    account.month(JANUARY, 1_000, {"ann": 1})
    assert balances(account, JANUARY)["EUR"]["converted_out"] == "6.00"  # less 1.00 in reserve, 3.00 recouped
    assert balances(account, JANUARY)["USD"]["payable"] == "12.00", "euros do not recoup a dollar advance"
    assert account.balance("money:advance:ann", "USD") == -300
    give(account, FEBRUARY, 30_000)
    account.month(FEBRUARY, 0, {"ann": 1})
    assert balances(account, FEBRUARY)["USD"]["payable"] == "3.00", "the reserve, at the rate of its release"


def test_a_debt_is_carried_in_its_own_currency(account):
    with account.ledger.write() as conn:
        adjust(conn, "ann", -5_000, "EUR", period=JANUARY, reason="paid twice", now=NOW)
    account.month(JANUARY, 1_000, {"ann": 1})
    assert balances(account, JANUARY)["EUR"]["carried_forward"] == "-43.00"
    assert verify(account.ledger, None).problems == ()


def test_a_rate_serves_both_ways_by_division(ledger):
    account = Account(ledger).start()
    account.agree("ann", "USD", pay_in="EUR")
    give(account, JANUARY)
    account.credits(JANUARY, {"ann": 1})
    account.pool(JANUARY, 1_000, "USD")
    account.close(JANUARY)
    assert balances(account, JANUARY)["EUR"]["payable"] == "9.22"
    assert account.balance("money:fx:EUR-USD", "EUR") == -922
    assert account.balance("money:fx:EUR-USD", "USD") == 1_000
    assert verify(ledger, None).problems == ()


def test_what_converts_to_nothing_is_carried(ledger):
    account = Account(ledger).start()
    account.agree("ann", "EUR", pay_in="USD")
    give(account, JANUARY, 1)
    account.month(JANUARY, 1_000, {"ann": 1})
    found = balances(account, JANUARY)["EUR"]
    assert found["carried_forward"] == "10.00"
    assert "is less than can be paid in USD" in found["reason"]


def test_a_chain_of_currencies_is_refused(account):
    account.agree("ann", "USD", pay_in="GBP")
    account.credits(JANUARY, {"ann": 1})
    account.pool(JANUARY, 100)
    with pytest.raises(LedgerError, match="paid in USD for EUR, and in GBP for USD; agree one currency"):
        account.close(JANUARY)


@pytest.mark.parametrize("pay_in", ["EUR", "euro"])
def test_money_is_paid_in_another_currency_or_in_its_own(ledger, pay_in):
    account = Account(ledger).start()
    with pytest.raises(LedgerError, match="cannot be paid in"):
        account.agree("ann", "EUR", pay_in=pay_in)


@pytest.mark.parametrize("values", [{"minimum_payout_minor": 1}, {"withholding_ppm": 1}, {"fee_minor": 1}])
def test_what_is_taken_from_a_payout_is_agreed_where_it_is_paid(values):
    with pytest.raises(InvalidRequestError, match="agree them in USD"):
        Terms(pay_in="USD", **values)


def test_a_payout_is_explained_back_through_its_conversion(account, tmp_path):
    give(account, JANUARY)
    measures = {Group("ann"): (1.0, 0.0), Group("ben"): (1.0, 0.0)}
    credit_outputs(account.ledger, tmp_path, [Scored("o1", at(1, 3), measures)])
    account.pool(JANUARY, 20_010)
    account.close(JANUARY)
    give(account, FEBRUARY, 20_000)  # no later rate or term changes what is told
    account.agree("ann", "EUR", date(2026, 2, 1))
    with account.ledger.read() as conn:
        found = explain_payout(conn, tmp_path, "ann", JANUARY)
        told = payouts(conn, JANUARY).filter(provider="ann")
    euros, dollars = found.currencies
    (step,) = [item for item in euros.waterfall if item.label == "converted out"]
    assert step.amount_minor == -7_004
    assert step.arithmetic == (
        f"70.04 EUR × 1.0842 = 75.937368 USD, rounded to 75.94; 1 EUR = 1.0842 USD ({ECB}, 2026-01-27)"
    )
    steps = [(item.label, item.amount_minor) for item in dollars.waterfall]
    assert steps == [("converted in", 7_594), ("payable", 7_594)]
    assert "nothing in EUR: the balance of 70.04 EUR is paid in USD" in found.verdict
    assert told.select("currency", "converted_in", "converted_out", "status").rows() == [
        ("EUR", "0.00", "70.04", "converted"),
        ("USD", "75.94", "0.00", "pending"),
    ]


def test_a_conversion_stays_as_it_is_and_its_rate_is_in_the_chain(account):
    give(account, JANUARY)
    account.month(JANUARY, 1_000, {"ann": 1})
    with account.ledger.read() as conn:
        row = conn.execute(select(ledger_txn).where(ledger_txn.c.kind == "conversion")).one()
    said = {"base": "EUR", "quote": "USD", "on": "2026-01-27", "rate": "1.0842", "source": ECB}
    assert json.loads(row.details_json) == said
    assert "conversion" in CLOSE_KINDS
    with pytest.raises(LedgerError, match="cannot be reversed"), account.ledger.write() as conn:
        undo(conn, row.id, reason="no", now=NOW)


def test_the_books_of_a_period_with_a_conversion_pass_bean_check(account):
    loader = pytest.importorskip("beancount.loader")
    give(account, JANUARY)
    account.month(JANUARY, 20_010, {"ann": 1, "ben": 1})
    _, errors, _ = loader.load_string(beancount_text(account.ledger, JANUARY))
    assert errors == []


@pytest.mark.parametrize(
    "change",
    ["on_day = '2026-01-26'", "base = 'GBP'", "quote = 'GBP'", "coefficient = 1", "digits = 3", "source = 'x'"],
)
def test_a_changed_rate_is_found_where_it_was_used(account, database_url, change):
    give(account, JANUARY)
    account.month(JANUARY, 1_000, {"ann": 1})
    with unguarded(database_url) as conn:
        conn.exec_driver_sql(f"UPDATE fx_rate SET {change}")
    found = [problem.place for problem in verify(account.ledger, None).problems]
    assert found == ["fx_rate 1", "fx_rate of 2026-01, EUR/USD"]
