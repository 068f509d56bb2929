"""Rates of exchange, each given by a person with its day and source.

**The rate of a period**, for a pair, is the latest version for the last day of the period with a rate. The rates of a
closed period stay as they are, so its conversions can be computed again. The database keeps both rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, select

from credit.errors import LedgerError, PeriodClosedError
from credit.ledger.database import serialise_writers
from credit.ledger.periods import last_closed
from credit.ledger.rows import add_records, read_row
from credit.ledger.schema import fx_rate
from credit.ledger.sql import next_id
from credit.ledger.values import check_currency, first_day, following, is_storable, last_day, utc_moment, utc_text
from credit.records import GivenRate


@dataclass(frozen=True, slots=True)
class RecordedRate:
    """A version of the rate of a pair on a day; a later version replaces it."""

    id: int
    version: int
    given: GivenRate
    created_at: datetime


def give_rate(conn: Connection, given: GivenRate, *, supersede: bool = False, now: datetime) -> RecordedRate:
    """Record the rate of a pair on a day; the same rate from the same source changes nothing.

    Args:
        conn: from `Ledger.write`.
        given: the rate.
        supersede: replace the rate that the pair has on the day.
        now: when the ledger records it.

    Raises:
        LedgerError: the pair has another rate on the day, the day is in the future, or a value makes no sense.
        PeriodClosedError: the day is in a closed period.
    """
    where = f"the rate of {given.base} in {given.quote} on {given.on}"
    for code in (given.base, given.quote):
        check_currency(code)
    if given.base == given.quote:
        raise LedgerError(f"{where} makes no sense: it is one currency")
    if not given.source.strip() or not is_storable(given.source):
        raise LedgerError(f"{where} needs its source, in words: --source")
    if given.on > now.date():
        raise LedgerError(f"{where} cannot be known: the day is still to come")
    serialise_writers(conn)
    known = recorded_rates(conn, given.base, given.quote, since=given.on, until=given.on)
    if known and (known[-1].given.rate.value, known[-1].given.source) == (given.rate.value, given.source):
        return known[-1]
    closed = last_closed(conn)
    if closed is not None and given.on < first_day(following(closed)):
        raise PeriodClosedError(
            f"{where} comes too late: period {closed} is closed; correct closed periods: credit adjust --help"
        )
    if known and not supersede:
        raise LedgerError(
            f"another rate was given already: {known[-1].given}; rates are never edited: say --supersede if the new"
            " one replaces it"
        )
    item = RecordedRate(next_id(conn, fx_rate), known[-1].version + 1 if known else 1, given, utc_moment(utc_text(now)))
    add_records(conn, fx_rate, [item])
    return item


def recorded_rates(
    conn: Connection,
    base: str | None = None,
    quote: str | None = None,
    *,
    since: date | None = None,
    until: date | None = None,
) -> list[RecordedRate]:
    """Return every version of the rates of a pair, or of all, from one day to another, by pair, day and version."""
    query = select(fx_rate).order_by(fx_rate.c.base, fx_rate.c.quote, fx_rate.c.on_day, fx_rate.c.version)
    if base is not None:
        query = query.where(fx_rate.c.base == base)
    if quote is not None:
        query = query.where(fx_rate.c.quote == quote)
    if since is not None:
        query = query.where(fx_rate.c.on_day >= since.isoformat())
    if until is not None:
        query = query.where(fx_rate.c.on_day <= until.isoformat())
    return [read_row(RecordedRate, row) for row in conn.execute(query)]


def rates_of_period(conn: Connection, period: str) -> dict[tuple[str, str], GivenRate]:
    """Return the rates of a period, by (base, quote)."""
    found = recorded_rates(conn, since=first_day(period), until=last_day(period))
    return {(item.given.base, item.given.quote): item.given for item in found}  # the last one of each pair wins
