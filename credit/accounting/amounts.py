"""Money in minor units (ISO 4217): text to integers and back, without a float in between.

Codes and digits: ISO 4217 List One (SIX Group, the maintenance agency) as published on 2026-09-17, amendments up
to 180: 165 codes with minor units and 13 without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from credit.errors import InvalidRequestError
from credit.records import CREDIT, MICRO, PPM

_CODES_BY_DIGITS = {
    0: """
        BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF
    """,
    2: """
        AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD
        CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS
        GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD
        LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB
        PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP
        SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW
        ZWG
    """,
    3: """
        BHD IQD JOD KWD LYD OMR TND
    """,
    4: """
        CLF UYW
    """,
}

CURRENCY_DIGITS = MappingProxyType(
    {code: digits for digits, codes in _CODES_BY_DIGITS.items() for code in codes.split()}
)
"""The number of decimal digits in the minor unit of each currency."""

CODES_WITHOUT_MINOR_UNIT = frozenset(
    ["XAG", "XAU", "XBA", "XBB", "XBC", "XBD", "XDR", "XPD", "XPT", "XSU", "XTS", "XUA", "XXX"]
)
"""ISO 4217 codes in which no amount can be paid: metals, units of account, testing."""

_PLAIN_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")
_PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,4}))?%")
_LARGEST = 2**63 - 1
"""The largest BIGINT of the ledger."""


def currency_digits(currency: str) -> int:
    """Return the number of digits after the decimal point in amounts of `currency`.

    Raises:
        InvalidRequestError: the code is not current in ISO 4217, or has no minor unit.
    """
    if currency in CODES_WITHOUT_MINOR_UNIT:
        raise InvalidRequestError(f"{currency} has no minor unit in ISO 4217; nothing can be paid in it")
    digits = CURRENCY_DIGITS.get(currency)
    if digits is None:
        raise InvalidRequestError(
            f"{currency!r} is not a current ISO 4217 currency code: three capital letters, like USD or EUR"
        )
    return digits


def parse_amount(text: str, currency: str, *, allow_negative: bool = False) -> int:
    """Return an amount in minor units: `parse_amount("1234.50", "USD")` is 123450.

    Only plain decimal numbers count: no exponent, thousands separator, sign `+`, currency sign or space, and never
    more digits than the currency has. Anything else would have to be guessed or rounded.

    Raises:
        InvalidRequestError: the text is no such number, is too large for the ledger or negative without leave, or the
            currency is unknown.
    """
    digits = currency_digits(currency)
    match = _PLAIN_NUMBER.fullmatch(text)
    if match is None:
        raise InvalidRequestError(
            f"{_shown(text)} is not an amount: write digits and at most one decimal point, like 1234.50"
        )
    sign, whole, fraction = match[1], match[2].lstrip("0"), match[3] or ""
    if sign and not allow_negative:
        raise InvalidRequestError(f"{_shown(text)} {currency} is negative; the amount must be at least 0")
    if len(fraction) > digits:
        raise InvalidRequestError(f"{_shown(text)} has {len(fraction)} decimal digits, but {currency} has {digits}")
    # The length goes first: turning a million digits into a number would take the very time that is refused.
    if len(whole) > 19 or (minor := int(f"{whole}{fraction:0<{digits}}" or "0")) > _LARGEST:
        raise InvalidRequestError(f"{_shown(text)} {currency} is more than the ledger can hold")
    return -minor if sign else minor


def format_amount(minor: int, currency: str) -> str:
    """Return an amount as a decimal string with all the currency's digits: -5 in USD is `-0.05`."""
    digits = currency_digits(currency)
    sign = "-" if minor < 0 else ""
    if digits == 0:
        return f"{sign}{abs(minor)}"
    whole, fraction = divmod(abs(minor), 10**digits)
    return f"{sign}{whole}.{fraction:0{digits}d}"


def money_text(minor: int, currency: str) -> str:
    """Return an amount with its currency, for people: -5 in USD is `-0.05 USD`."""
    return f"{format_amount(minor, currency)} {currency}"


def format_amounts(minors: Mapping[str, int], currency: str) -> dict[str, str]:
    """Return named amounts as `format_amount` writes them."""
    return {name: format_amount(minor, currency) for name, minor in minors.items()}


def parse_percent(text: str) -> int:
    """Return a share in parts per million: `parse_percent("12.5%")` is 125 000.

    The sign % is required, so nobody has to guess whether 0.7 is less than one in a hundred.

    Raises:
        InvalidRequestError: the text is not a percentage from 0% to 100% with at most four decimals.
    """
    match = _PERCENT.fullmatch(text)
    ppm = int(match[1]) * 10_000 + int(f"{match[2] or '':0<4}") if match else PPM + 1
    if ppm > PPM:
        raise InvalidRequestError(f"{_shown(text)} is not a share: write 0% to 100%, with at most four decimals")
    return ppm


def format_percent(ppm: int) -> str:
    """Return parts per million as a percentage in the form of `parse_percent`, without zeros at the end."""
    whole, rest = divmod(ppm, 10_000)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".") + "%"


def _shown(text: str) -> str:
    """Return the text as an error message can carry it: quoted, and not a page long."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def amount_text(amount: int, commodity: str) -> str:
    """Return an entry's amount for people: micro-credits as credits with six decimals, or money as `format_amount`."""
    if commodity != CREDIT:
        return format_amount(amount, commodity)
    whole, rest = divmod(abs(amount), MICRO)
    return f"{'-' if amount < 0 else ''}{whole}.{rest:06d}"
