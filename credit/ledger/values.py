"""Values as the ledger keeps them: moments, days, currencies, text and the bounds of an amount."""

from __future__ import annotations

from datetime import UTC, datetime

from credit.errors import LedgerError

MAX_AMOUNT = 2**63 - 1
"""Largest amount of one entry, on either side of zero, so that every entry can be reversed."""

GENESIS = "0" * 64
"""`prev_hash` of the first transaction, and of the first seal."""


def utc_text(moment: datetime) -> str:
    """Return an aware moment as `YYYY-MM-DDTHH:MM:SS.ffffffZ`; ValueError when it has no time zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; the ledger keeps UTC")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def utc_moment(text: str) -> datetime:
    """Return the moment that `utc_text` wrote."""
    return datetime.fromisoformat(text)


def is_currency(text: str) -> bool:
    """Return True if `text` has the form of an ISO 4217 code: three capital letters."""
    return len(text) == 3 and text.isascii() and text.isalpha() and text.isupper()


def check_currency(text: str) -> None:
    """Raise LedgerError where `text` has not the form of an ISO 4217 code."""
    if not is_currency(text):
        raise LedgerError(f"{text!r} is not an ISO 4217 code such as USD")


def is_storable(text: str) -> bool:
    """Return True if both engines can store `text`: without NUL (PostgreSQL) and without half a surrogate pair."""
    if "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
