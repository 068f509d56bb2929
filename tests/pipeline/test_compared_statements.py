"""Statements say what changed since the one before, and what the year adds up to so far."""

from __future__ import annotations

import pytest

from credit.accounting.comparison import CAUSES
from credit.errors import IntegrityError
from credit.ledger.database import Ledger
from credit.reporting.frames import latest_statements
from credit.reporting.pages import statement_page
from tests.ledger.tampering import unguarded
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, MARCH, Account
from tests.reporting.reading import Page

DECEMBER = "2025-12"


@pytest.fixture
def account(ledger: Ledger) -> Account:
    return Account(ledger).start()


def page(account: Account, period: str, provider: str = "ann") -> Page:
    with account.ledger.read() as conn:
        return Page(statement_page(next(i for i in latest_statements(conn, period) if i.provider == provider)))


def test_a_first_statement_is_compared_with_nothing(account):
    account.month(JANUARY, 10_000, {"ann": 1, "ben": 1})
    first = account.statement(JANUARY, "ann")
    assert "compared" not in first
    assert "year_to_date" not in first
    assert "Compared with" not in page(account, JANUARY).text


def test_a_statement_says_that_the_pool_fell_and_the_share_rose(account):
    account.month(JANUARY, 24_000, {"ann": 12_267, "ben": 87_733})
    account.month(FEBRUARY, 18_000, {"ann": 13_039, "ben": 86_961})
    found = account.statement(FEBRUARY, "ann")
    (one,) = found["compared"]["balances"]
    assert (found["compared"]["period"], one["before"], one["payable"], one["change"]) == (
        JANUARY,
        "29.44",
        "23.47",
        "-5.97",
    )
    assert [one["pools"][0][name] for name in CAUSES] == ["-7.36", "1.39", "0.00", "0.00"]
    assert found["year_to_date"] == [{"currency": "EUR", "earned": "52.91", "payable": "52.91"}]
    text = " ".join(page(account, FEBRUARY).text.split())
    assert "Compared with January 2026" in text
    assert "The pool was smaller−7.36" in text
    assert "Your share of it rose from 12.27 % to 13.04 %" in text
    assert "2026 up to now: EUR 52.91 earned, 52.91 paid or to be paid." in text


def test_a_year_begins_anew_and_is_compared_with_the_one_before(account):
    account.month(DECEMBER, 1_000, {"ann": 1})
    account.month(JANUARY, 3_000, {"ann": 1})
    found = account.statement(JANUARY, "ann")
    assert found["compared"]["period"] == DECEMBER
    assert found["compared"]["balances"][0]["change"] == "20.00"
    assert "year_to_date" not in found, "January is the year so far"


def test_whoever_got_no_statement_for_the_month_before_is_compared_with_nothing(account):
    account.month(JANUARY, 1_000, {"ann": 1, "ben": 1})
    account.month(FEBRUARY, 1_000, {"ben": 1})
    account.month(MARCH, 1_000, {"ann": 1, "ben": 1})
    assert "compared" not in account.statement(MARCH, "ann")
    assert account.statement(MARCH, "ann")["year_to_date"] == [
        {"currency": "EUR", "earned": "10.00", "payable": "10.00"}
    ]
    assert account.statement(MARCH, "ben")["compared"]["period"] == FEBRUARY


def test_lines_that_are_taken_and_carried_are_told_in_the_words_of_the_statement(account):
    account.agree("ann", withholding_ppm=100_000, minimum_payout_minor=500)
    account.month(JANUARY, 1_000, {"ann": 1})
    account.month(FEBRUARY, 100, {"ann": 1})
    (one,) = account.statement(FEBRUARY, "ann")["compared"]["balances"]
    assert (one["before"], one["payable"]) == ("9.00", "0.00")
    assert one["lines"] == [
        {"line": "withholding", "change": "1.00"},
        {"line": "carried_forward", "change": "-1.00"},
    ]
    text = page(account, FEBRUARY).text
    assert "Tax withheld: more for you" in text
    assert "Carried forward to the next period: less for you" in text


def test_a_statement_says_when_a_reserve_is_released(account):
    account.agree("ann", reserve_ppm=100_000, reserve_release_periods=2)
    account.month(JANUARY, 1_000, {"ann": 1})
    once = page(account, JANUARY).text
    assert "Held in reserve after this period: EUR 1.00, released with the statement of March 2026." in once
    account.month(FEBRUARY, 2_000, {"ann": 1})
    twice = page(account, FEBRUARY).text
    assert "EUR 3.00, released with the statement of March 2026 (1.00), April 2026 (2.00)." in twice


def test_texts_in_no_collection_are_called_so_and_not_default(account):
    account.month(JANUARY, 1_000, {"ann": 1})
    assert "All your texts" in page(account, JANUARY).seen
    assert "default" not in page(account, JANUARY).seen


def test_an_altered_statement_is_no_ground_for_the_next(account, database_url):
    account.month(JANUARY, 1_000, {"ann": 1})
    account.credits(FEBRUARY, {"ann": 1})
    account.pool(FEBRUARY, 100)
    with unguarded(database_url) as conn:
        conn.exec_driver_sql("UPDATE statement SET body_json = replace(body_json, '10.00', '99.00')")
    with pytest.raises(
        IntegrityError, match="statement 1 of ann for 2026-01 is not what was stored; run credit verify"
    ):
        account.close(FEBRUARY)
