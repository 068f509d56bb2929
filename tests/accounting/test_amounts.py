from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.accounting.amounts import (
    CODES_WITHOUT_MINOR_UNIT,
    CURRENCY_DIGITS,
    currency_digits,
    format_amount,
    format_percent,
    parse_amount,
    parse_percent,
)
from credit.errors import InvalidRequestError

currencies = st.sampled_from(sorted(CURRENCY_DIGITS))


def test_the_table_has_as_many_codes_of_each_kind_as_the_standard_publishes():
    assert Counter(CURRENCY_DIGITS.values()) == {0: 17, 2: 139, 3: 7, 4: 2}
    assert len(CODES_WITHOUT_MINOR_UNIT) == 13
    assert not CODES_WITHOUT_MINOR_UNIT & set(CURRENCY_DIGITS)
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in CURRENCY_DIGITS)


@pytest.mark.parametrize(
    ("currency", "digits"), [("USD", 2), ("EUR", 2), ("JPY", 0), ("ISK", 0), ("KWD", 3), ("CLF", 4), ("XCG", 2)]
)
def test_digits_of_well_known_currencies(currency, digits):
    assert currency_digits(currency) == digits


@given(currencies, st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_formatted_amount_parses_back_and_means_the_same(currency, minor):
    text = format_amount(minor, currency)
    assert parse_amount(text, currency, allow_negative=True) == minor
    assert int(Decimal(text).scaleb(CURRENCY_DIGITS[currency])) == minor


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("1234.50", "USD", 123450),
        ("1234.5", "USD", 123450),
        ("1234", "USD", 123400),
        ("0.05", "EUR", 5),
        ("0", "EUR", 0),
        ("007", "JPY", 7),
        ("1.005", "KWD", 1005),
    ],
)
def test_amounts_are_read_in_minor_units(text, currency, minor):
    assert parse_amount(text, currency) == minor


def test_small_negative_amounts_keep_their_sign():
    assert format_amount(-5, "USD") == "-0.05"
    assert parse_amount("-0.05", "USD", allow_negative=True) == -5
    assert parse_amount("-0.00", "USD", allow_negative=True) == 0


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1,234.50", "1 234", "1_000", "$5", "+5", "5.", ".5", "1e3", "1e999999", "NaN", "Infinity"),
        *("0x10", "--5", "5 ", "5\n", "\u0663", "1.2.3"),
    ],
)
def test_what_is_not_a_plain_number_is_refused(text):
    with pytest.raises(InvalidRequestError, match="is not an amount"):
        parse_amount(text, "USD", allow_negative=True)


@pytest.mark.parametrize(
    ("text", "currency", "message"),
    [
        ("1.005", "USD", "has 3 decimal digits, but USD has 2"),
        ("1.0", "JPY", "has 1 decimal digits, but JPY has 0"),
        ("-1", "USD", "is negative"),
        ("92233720368547758.08", "USD", "more than the ledger can hold"),
        ("9" * 100_000, "USD", "more than the ledger can hold"),
        ("1", "usd", "'usd' is not a current ISO 4217"),
        ("1", "HRK", "'HRK' is not a current ISO 4217"),
        ("1", "XAU", "XAU has no minor unit"),
    ],
)
def test_other_amounts_are_refused_with_the_reason(text, currency, message):
    with pytest.raises(InvalidRequestError, match=message) as refusal:
        parse_amount(text, currency)
    assert len(str(refusal.value)) < 200


@given(st.text(), currencies)
def test_any_text_is_an_amount_or_an_error(text, currency):
    try:
        minor = parse_amount(text, currency, allow_negative=True)
    except InvalidRequestError:
        return
    assert Decimal(text) == Decimal(format_amount(minor, currency))


@given(st.integers(0, 1_000_000))
def test_a_percentage_is_read_as_it_is_written(ppm):
    assert parse_percent(format_percent(ppm)) == ppm


@pytest.mark.parametrize(("text", "ppm"), [("70%", 700_000), ("0%", 0), ("100.0000%", 1_000_000), ("0.0001%", 1)])
def test_percent_is_parts_of_a_hundred(text, ppm):
    assert parse_percent(text) == ppm


@pytest.mark.parametrize(
    "text", ["70", "0.7", "100.0001%", "101%", "-1%", "1e1%", "12.34567%", "", "%", " 5%", "\u0667%"]
)
def test_what_is_no_percentage_is_refused(text):
    with pytest.raises(InvalidRequestError, match="write 0% to 100%"):
        parse_percent(text)
