"""Contract terms of a provider in one currency, in versions; no version is ever edited.

**The terms of a day** are those of the latest version that covers it. So terms without an end give way to a later
version, for as long as this one lasts. Any other overlap is refused, unless the new version supersedes. No new version
begins in a closed period.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from credit.errors import LedgerError, PeriodClosedError
from credit.ledger.database import serialise_writers
from credit.ledger.periods import last_closed
from credit.ledger.personal_data import keep_erasable
from credit.ledger.providers import provider_id
from credit.ledger.rows import PROVIDER, add_records, read_row
from credit.ledger.schema import contract_term, provider
from credit.ledger.seals import last_actor
from credit.ledger.values import check_currency, first_day, following, is_currency, is_storable, utc_moment, utc_text
from credit.records import HOUSE, Terms


@dataclass(frozen=True, slots=True)
class Agreement:
    """A version of a provider's terms in a currency; `valid_to` is its last day, or None without an end.

    `actor` is who recorded it, once it is read from the ledger.
    """

    provider: str
    currency: str
    version: int
    valid_from: date
    valid_to: date | None
    supersedes: bool
    terms: Terms
    created_at: datetime
    actor: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        end = f"to {self.valid_to}" if self.valid_to else "on"
        return f"version {self.version} of {self.provider}'s terms in {self.currency} (from {self.valid_from} {end})"


def agree(
    conn: Connection,
    provider_key: str,
    currency: str,
    terms: Terms,
    valid_from: date,
    valid_to: date | None = None,
    *,
    supersede: bool = False,
    now: datetime,
) -> Agreement:
    """Record a version of a provider's terms; the same terms for the same days again change nothing.

    Args:
        conn: from `Ledger.write`.
        provider_key: the provider; not the house.
        currency: ISO 4217 code of the money.
        terms: the terms.
        valid_from: their first day.
        valid_to: their last day; None: until a later version begins.
        supersede: replace all earlier versions on these days.
        now: when the ledger records it.

    Raises:
        LedgerError: the version overlaps another, or a value makes no sense.
        PeriodClosedError: the first day is in a closed period.
    """
    where = f"terms of {provider_key} in {currency}"
    check_currency(currency)
    if provider_key == HOUSE:
        raise LedgerError(f"{HOUSE!r} keeps the money that nobody earned; it has no terms")
    if valid_to is not None and valid_to < valid_from:
        raise LedgerError(f"{where} cannot end on {valid_to}, before they begin on {valid_from}")
    if terms.pay_in and (not is_currency(terms.pay_in) or terms.pay_in == currency):
        raise LedgerError(f"{where} cannot be paid in {terms.pay_in!r}; another currency's ISO 4217 code is needed")
    if not is_storable(terms.agreement_reference):
        raise LedgerError(f"{where}: the agreement's reference holds a character that a database cannot keep")
    serialise_writers(conn)
    known = history(conn, provider_key, currency)
    if known:  # the same terms again, also when their period has closed by now
        last = known[-1]
        if (last.terms, last.valid_from, last.valid_to) == (terms, valid_from, valid_to):
            return last
    closed = last_closed(conn)
    if closed is not None and valid_from < first_day(following(closed)):
        raise PeriodClosedError(
            f"{where} cannot begin on {valid_from}: period {closed} is closed; let them begin on"
            f" {first_day(following(closed))} and correct closed periods: credit adjust --help"
        )
    keep_erasable(conn, terms.agreement_reference, "the agreement's reference")
    if not supersede:
        _refuse_overlap(known, where, valid_from, valid_to)
    version = known[-1].version + 1 if known else 1
    moment = utc_moment(utc_text(now))
    item = Agreement(provider_key, currency, version, valid_from, valid_to, supersede, terms, moment)
    add_records(conn, contract_term, [item])
    return item


def amend(
    conn: Connection,
    provider_key: str,
    currency: str,
    changes: Mapping[str, int | str | None],
    valid_from: date,
    valid_to: date | None = None,
    *,
    supersede: bool = False,
    now: datetime,
) -> Agreement:
    """Record a version with some new values; the others stay as they are on `valid_from`.

    Args:
        conn: from `Ledger.write`.
        provider_key: the provider.
        currency: ISO 4217 code.
        changes: new values, by field of `Terms`.
        valid_from: their first day.
        valid_to: their last day; None: until a later version begins.
        supersede: as for `agree`.
        now: when the ledger records it.

    Returns:
        The new version, or the present one when nothing would change.

    Raises:
        LedgerError, PeriodClosedError, InvalidRequestError: as `agree` and `Terms` do.
    """
    current = agreement_on(conn, provider_key, currency, valid_from)
    terms = replace(current.terms if current else Terms(), **dict(changes))  # type: ignore[arg-type]  # checked by Terms
    if current is not None and current.terms == terms and current.valid_to == valid_to:
        return current
    return agree(conn, provider_key, currency, terms, valid_from, valid_to, supersede=supersede, now=now)


def _refuse_overlap(known: Iterable[Agreement], where: str, valid_from: date, valid_to: date | None) -> None:
    for item in known:
        gives_way = item.valid_to is None and item.valid_from < valid_from
        begins_in_time = valid_to is None or item.valid_from <= valid_to
        if not gives_way and begins_in_time and (item.valid_to or date.max) >= valid_from:
            after = "" if item.valid_to is None else f", or let it begin on {item.valid_to + timedelta(days=1)}"
            raise LedgerError(
                f"the new {where} from {valid_from} {f'to {valid_to}' if valid_to else 'on'} overlap {item}; terms are"
                f" never edited: say --supersede if the new version replaces it for these days{after}"
            )


def history(conn: Connection, provider_key: str, currency: str | None = None) -> list[Agreement]:
    """Return all versions of a provider's terms, in one currency or in all, by currency and version."""
    query = _agreements().where(contract_term.c.provider_id == provider_id(conn, provider_key))
    if currency is not None:
        query = query.where(contract_term.c.currency == currency)
    return [read_row(Agreement, row) for row in conn.execute(query)]


def agreement_on(conn: Connection, provider_key: str, currency: str, on: date) -> Agreement | None:
    """Return the version for a day, or None without one."""
    covering = [item for item in history(conn, provider_key, currency) if _covers(item, on)]
    return covering[-1] if covering else None


def terms_on(conn: Connection, on: date) -> dict[tuple[str, str], Terms]:
    """Return the terms of a day, by (provider's key, currency)."""
    day = on.isoformat()
    query = _agreements().where(
        contract_term.c.valid_from <= day, or_(contract_term.c.valid_to.is_(None), contract_term.c.valid_to >= day)
    )
    return {(row.provider, row.currency): read_row(Terms, row) for row in conn.execute(query)}


def first_free_day(conn: Connection) -> date:
    """Return the first day after the last closed period, or the first day of all when none is closed."""
    closed = last_closed(conn)
    return date.min if closed is None else first_day(following(closed))


def _covers(item: Agreement, on: date) -> bool:
    return item.valid_from <= on and (item.valid_to is None or on <= item.valid_to)


def _agreements() -> Select[Any]:
    """Return a query for all versions, the latest of each provider and currency last."""
    return (
        select(contract_term, PROVIDER, last_actor(contract_term))
        .join_from(contract_term, provider)
        .order_by(provider.c.key, contract_term.c.currency, contract_term.c.version)
    )
