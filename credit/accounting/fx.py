"""Conversion of money between currencies, by rates that a person gave: none is looked up, averaged or guessed.

A rate is the price of one unit of its base in its quote, a decimal number kept digit by digit. It serves both ways:
multiply from the base, divide from the quote, exactly. No rounded inverse is ever made, as Council Regulation (EC) No
1103/97, article 4, requires of the euro's rates. The result is rounded once, to the nearest minor unit, an exact half
away from zero (article 5 of the same).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from credit.accounting.amounts import currency_digits, format_amount, money_text
from credit.errors import InvalidRequestError, LedgerError
from credit.records import GivenRate, Rate

_RATE = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,12}))?")
_MAX_DIGITS = 18
_SHOWN_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Conversion:
    """Minor units of one currency turned into minor units of another, at a given rate."""

    currency: str
    amount_minor: int
    into: str
    converted_minor: int
    given: GivenRate

    @property
    def exact(self) -> Fraction:
        """The result before rounding, in units of `into`."""
        amount = Fraction(self.amount_minor, 10 ** currency_digits(self.currency))
        return amount * self.given.rate.value if self.currency == self.given.base else amount / self.given.rate.value

    @property
    def arithmetic(self) -> str:
        """The conversion in words: amount, rate, exact result and rounded result."""
        sign = "×" if self.currency == self.given.base else "÷"
        result = format_amount(self.converted_minor, self.into)
        shown = exact_text(self.exact)
        rounded = "" if Fraction(result) == self.exact else f", rounded to {result}"
        return (
            f"{money_text(self.amount_minor, self.currency)} {sign} {self.given.rate}"
            f" = {shown} {self.into}{rounded}; {self.given}"
        )


@dataclass(frozen=True, slots=True)
class PeriodRates:
    """The rates of a period, by (base, quote)."""

    period: str
    given: Mapping[tuple[str, str], GivenRate]

    def between(self, currency: str, into: str) -> GivenRate:
        """Return the rate between two currencies, given in either direction.

        Raises:
            LedgerError: neither was given for the period.
        """
        found = self.given.get((currency, into)) or self.given.get((into, currency))
        if found is None:
            raise LedgerError(
                f"no rate between {currency} and {into} is given for {self.period}; give one of a day in it:"
                f" credit fx add {self.period}-DD {currency} {into} RATE --source TEXT"
            )
        return found


NO_RATES = PeriodRates("this period", {})
"""For balances without a conversion."""


def parse_rate(text: str) -> Rate:
    """Return an exact rate: `parse_rate("1.0842")` is 10842 / 10^4.

    Raises:
        InvalidRequestError: the text is not a plain decimal number above 0, with at most 18 digits in all.
    """
    match = _RATE.fullmatch(text)
    digits = match[2] or "" if match else ""
    coefficient = int(match[1] + digits) if match else 0
    if coefficient == 0 or coefficient >= 10**_MAX_DIGITS:
        shown = repr(text if len(text) <= 40 else f"{text[:40]}…")
        raise InvalidRequestError(
            f"{shown} is not a rate: write what one unit costs in the other currency, in digits, like 1.0842"
        )
    return Rate(coefficient, len(digits))


def convert(amount_minor: int, currency: str, into: str, given: GivenRate) -> Conversion:
    """Convert an amount of at least 0 at a rate between its currency and another.

    Raises:
        InvalidRequestError: the amount is negative, a currency is unknown, or the rate is between other currencies.
    """
    if amount_minor < 0 or {currency, into} != {given.base, given.quote}:
        raise InvalidRequestError(f"{amount_minor} {currency} (minor units) cannot be converted to {into} at {given}")
    # The result is not known yet, and `exact` does not read it.
    exact = Conversion(currency, amount_minor, into, 0, given).exact * 10 ** currency_digits(into)
    rounded = (2 * exact.numerator + exact.denominator) // (2 * exact.denominator)  # to the nearest, half up
    return Conversion(currency, amount_minor, into, rounded, given)


def exact_text(value: Fraction) -> str:
    """Return a number of at least 0 in decimal digits; after 12 decimals it ends with `…`."""
    scaled, rest = divmod(value.numerator * 10**_SHOWN_DIGITS, value.denominator)
    whole, fraction = divmod(scaled, 10**_SHOWN_DIGITS)
    digits = f"{fraction:0{_SHOWN_DIGITS}d}"
    if rest:
        return f"{whole}.{digits}…"
    digits = digits.rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
