from __future__ import annotations

from datetime import date
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.accounting.amounts import CURRENCY_DIGITS, format_amount, parse_amount
from credit.accounting.fx import Conversion, PeriodRates, convert, exact_text, parse_rate
from credit.errors import InvalidRequestError, LedgerError
from credit.records import GivenRate, Rate

DAY = date(2026, 1, 30)
rates = st.builds(Rate, st.integers(1, 10**15), st.integers(0, 12))
currencies = st.sampled_from(["EUR", "USD", "JPY", "BHD", "CLF"])


def rate_of(text: str, base: str = "EUR", quote: str = "USD") -> GivenRate:
    return GivenRate(base, quote, DAY, parse_rate(text), "ECB reference rate")


@given(st.integers(0, 2**62), currencies, currencies, rates, st.booleans())
def test_a_conversion_is_the_exact_one_rounded_once_half_up(minor, base, quote, rate, back):
    if base == quote:
        return
    currency, into = (quote, base) if back else (base, quote)
    item = convert(minor, currency, into, GivenRate(base, quote, DAY, rate, "a bank"))
    with localcontext(prec=200):
        amount, factor = Decimal(format_amount(minor, currency)), Decimal(str(rate))
        exact = amount / factor if back else amount * factor
        places = Decimal(1).scaleb(-CURRENCY_DIGITS[into])
        expected = format(exact.quantize(places, ROUND_HALF_UP), "f")
    assert format_amount(item.converted_minor, into) == expected
    assert abs(item.exact - Fraction(expected)) <= Fraction(1, 2 * 10 ** CURRENCY_DIGITS[into])


def test_the_arithmetic_names_rate_source_day_and_rounding():
    there = convert(parse_amount("70.05", "EUR"), "EUR", "USD", rate_of("1.0842"))
    assert there.arithmetic == (
        "70.05 EUR × 1.0842 = 75.94821 USD, rounded to 75.95; 1 EUR = 1.0842 USD (ECB reference rate, 2026-01-30)"
    )
    back = convert(parse_amount("10.00", "USD"), "USD", "EUR", rate_of("1.0842"))
    assert back.arithmetic.startswith("10.00 USD ÷ 1.0842 = 9.223390518354… EUR, rounded to 9.22; 1 EUR")
    assert "rounded" not in convert(100, "EUR", "USD", rate_of("1.50")).arithmetic


def test_an_exact_half_is_rounded_up():
    assert [convert(minor, "EUR", "USD", rate_of("0.5")).converted_minor for minor in (0, 1, 2, 3)] == [0, 1, 1, 2]


def test_digits_of_both_currencies_count():
    assert convert(1_234, "JPY", "EUR", rate_of("0.0061", "JPY", "EUR")).converted_minor == 753
    assert convert(1_000, "EUR", "BHD", rate_of("0.4087", "EUR", "BHD")).converted_minor == 4_087


@pytest.mark.parametrize("text", ["1.0842", "0.000001", "163", "1.10", "12345678.9"])
def test_a_rate_is_kept_as_it_was_given(text):
    assert str(parse_rate(text)) == text
    assert parse_rate(text).value == Fraction(text)


@pytest.mark.parametrize("text", ["0", "0.00", "-1.1", "1,08", "1e3", ".5", "5.", "", "+1", "NaN", "9" * 19, "1.0842 "])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(InvalidRequestError, match="is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize("pair", [("EUR", "GBP"), ("EUR", "EUR"), ("GBP", "USD")])
def test_a_rate_of_other_currencies_converts_nothing(pair):
    with pytest.raises(InvalidRequestError, match="cannot be converted"):
        convert(1, *pair, rate_of("1.1"))


def test_the_pairs_own_rate_goes_before_the_one_the_other_way_round():
    one, other = rate_of("1.25"), rate_of("0.79", "USD", "EUR")
    both = PeriodRates("2026-01", {("EUR", "USD"): one, ("USD", "EUR"): other})
    assert (both.between("EUR", "USD"), both.between("USD", "EUR")) == (one, other)
    assert PeriodRates("2026-01", {("EUR", "USD"): one}).between("USD", "EUR") == one
    with pytest.raises(LedgerError, match=r"no rate between USD and GBP .* credit fx add 2026-01-DD USD GBP RATE"):
        both.between("USD", "GBP")


def test_long_numbers_are_cut_visibly():
    assert [exact_text(Fraction(text)) for text in ("1/3", "2", "5/4", "0")] == ["0.333333333333…", "2", "1.25", "0"]


def test_a_conversion_of_nothing_is_nothing():
    assert convert(0, "EUR", "USD", rate_of("1.5")) == Conversion("EUR", 0, "USD", 0, rate_of("1.5"))
