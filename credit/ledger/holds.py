"""Holds: what keeps a provider's money where it is, with the reason; placed and released, never erased."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, select

from credit.errors import LedgerError
from credit.ledger import schema
from credit.ledger.catalog import provider_id
from credit.ledger.engine import serialise_writers
from credit.ledger.personal import keep_erasable
from credit.ledger.schema import next_id, provider
from credit.ledger.seals import add_rows
from credit.ledger.values import is_currency, is_storable, utc_moment, utc_text
from credit.records import HOUSE


@dataclass(frozen=True, slots=True)
class HoldEvent:
    """A hold placed or released; `currency` None stands for all currencies."""

    provider: str
    currency: str | None
    action: Literal["hold", "release"]
    reason: str
    created_at: datetime


def place_hold(conn: Connection, provider_key: str, currency: str | None, reason: str, *, now: datetime) -> HoldEvent:
    """Hold back what a provider would be paid, in a currency or (None) in all; again changes nothing.

    Raises:
        LedgerError: it is held for another reason already, or the reason is missing.
    """
    return _record(conn, provider_key, currency, "hold", reason, now)


def release_hold(conn: Connection, provider_key: str, currency: str | None, reason: str, *, now: datetime) -> HoldEvent:
    """Release what `place_hold` held, with the same provider and currency; again changes nothing.

    Raises:
        LedgerError: there is no such hold, or the reason is missing.
    """
    return _record(conn, provider_key, currency, "release", reason, now)


def hold_history(conn: Connection, provider_key: str | None = None) -> list[HoldEvent]:
    """Return everything that was ever held or released, of one provider or of all, in order."""
    query = select(schema.hold, provider.c.key.label("owner")).join_from(schema.hold, provider)
    if provider_key is not None:
        query = query.where(schema.hold.c.provider_id == provider_id(conn, provider_key))
    return [
        HoldEvent(row.owner, row.currency, row.action, row.reason, utc_moment(row.created_at))
        for row in conn.execute(query.order_by(schema.hold.c.id))
    ]


def holds(conn: Connection) -> dict[tuple[str, str | None], HoldEvent]:
    """Return the holds that stand, by (provider's key, currency or None for all)."""
    last = {(item.provider, item.currency): item for item in hold_history(conn)}
    return {key: item for key, item in last.items() if item.action == "hold"}


def hold_on(conn: Connection, provider_key: str, currency: str) -> HoldEvent | None:
    """Return the hold that keeps a provider's money in a currency back, or None; that on all currencies first."""
    last = {item.currency: item for item in hold_history(conn, provider_key)}
    standing = [last[key] for key in (None, currency) if key in last and last[key].action == "hold"]
    return standing[0] if standing else None


def _record(
    conn: Connection,
    provider_key: str,
    currency: str | None,
    action: Literal["hold", "release"],
    reason: str,
    now: datetime,
) -> HoldEvent:
    scope = f"{provider_key} ({currency or 'all currencies'})"
    if not reason.strip() or not is_storable(reason):
        raise LedgerError(f"the {action} of {scope} needs a reason, in words that a database can keep")
    if currency is not None and not is_currency(currency):
        raise LedgerError(f"{currency!r} is not an ISO 4217 code such as USD")
    if provider_key == HOUSE:
        raise LedgerError(f"{HOUSE!r} is never paid, so that there is nothing to hold")
    serialise_writers(conn)
    last = {item.currency: item for item in hold_history(conn, provider_key)}.get(currency)
    if last is not None and last.action == action:
        if action == "release" or last.reason == reason:
            return last
        raise LedgerError(f"{scope} is on hold already: {last.reason}; release it first: credit hold release")
    if last is None and action == "release":
        raise LedgerError(f"{scope} is not on hold; see what is: credit hold list")
    keep_erasable(conn, reason, "the reason")
    row = {"id": next_id(conn, schema.hold), "provider_id": provider_id(conn, provider_key), "currency": currency}
    add_rows(conn, schema.hold, [{**row, "action": action, "reason": reason, "created_at": utc_text(now)}])
    return HoldEvent(provider_key, currency, action, reason, utc_moment(utc_text(now)))
