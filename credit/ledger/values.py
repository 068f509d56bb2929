"""Values as the ledger keeps them: moments, months, currencies, text and the bounds of an amount."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from credit.errors import LedgerError
from credit.records import is_period

MAX_AMOUNT = 2**63 - 1
"""Largest amount of one entry, on either side of zero, so that every entry can be reversed."""

MAX_GIVEN_MINOR = 10**16
"""Largest amount of money that a person gives at once, in minor units: hundreds of them fit into one balance."""

GENESIS = "0" * 64
"""`prev_hash` of the first transaction, and of the first seal."""


def utc_text(moment: datetime) -> str:
    """Return an aware moment as `YYYY-MM-DDTHH:MM:SS.ffffffZ`; ValueError when it has no time zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; the ledger keeps UTC")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def utc_moment(text: str) -> datetime:
    """Return the moment of a text of `utc_text`."""
    return datetime.fromisoformat(text)


def check_period(name: str) -> None:
    """Raise LedgerError where `name` is not a calendar month `YYYY-MM`."""
    if not is_period(name):
        raise LedgerError(f"{name!r} is not a period; a period is a month, written YYYY-MM")


def following(name: str) -> str:
    """Return the period after `name`."""
    year, month = int(name[:4]), int(name[5:])
    return f"{year + 1:04d}-01" if month == 12 else f"{year:04d}-{month + 1:02d}"


def later(name: str, months: int) -> str:
    """Return the period some months after `name`."""
    for _ in range(months):
        name = following(name)
    return name


def first_day(name: str) -> date:
    """Return the first day of a period."""
    return date.fromisoformat(f"{name}-01")


def last_day(name: str) -> date:
    """Return the last day of a period."""
    return first_day(following(name)) - timedelta(days=1)


def month_bounds(name: str) -> tuple[str, str]:
    """Return the first moment of a month and of the next one, as stored text."""
    check_period(name)
    return f"{name}-01T00:00:00.000000Z", f"{following(name)}-01T00:00:00.000000Z"


def is_currency(text: str) -> bool:
    """Return True if `text` has the form of an ISO 4217 code: three capital letters."""
    return len(text) == 3 and text.isascii() and text.isalpha() and text.isupper()


def check_currency(text: str) -> None:
    """Raise LedgerError where `text` has not the form of an ISO 4217 code."""
    if not is_currency(text):
        raise LedgerError(f"{text!r} is not an ISO 4217 code such as USD")


def check_minor(amount_minor: int, currency: str, where: str) -> None:
    """Raise LedgerError where an amount of money, given by a person, is so large that it must be a slip.

    A balance that no entry can hold would stop every later close.
    """
    if abs(amount_minor) > MAX_GIVEN_MINOR:
        raise LedgerError(
            f"{where} of {amount_minor} {currency} (minor units) looks mistyped: at most {MAX_GIVEN_MINOR} go at once"
        )


def is_storable(*texts: str) -> bool:
    """Return True if both engines can store texts: without NUL (PostgreSQL) and without half a surrogate pair."""
    # Joined by a character between, so that two halves of a pair do not make a whole one.
    text = " ".join(texts)
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
